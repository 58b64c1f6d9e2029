package share

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Who comes to a full-screen program sees it: from the history, or by making
// it draw once more.
func TestFullScreen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		s.Output([]byte("$ vim\r\n\x1b[?1049h\x1b[?1hpicture"))
		first := s.view(t, Person{Name: "first"}, nil)
		synctest.Wait()
		if got := first.shown(); got != cleared+"$ vim\r\n\x1b[?1049h\x1b[?1hpicture\x1b7\x1b[0;7m\x1b[24;1H\x1b[2Kintro\x1b8" {
			t.Errorf("%q", got)
		}
		time.Sleep(time.Minute)
		if got := s.resized(); got != "[]" {
			t.Errorf("it was made to draw: %s", got)
		}
		for range 2000 {
			s.Output(bytes.Repeat([]byte("x"), 100))
		}
		time.Sleep(time.Minute)
		second := s.view(t, Person{Name: "second"}, nil)
		synctest.Wait()
		if got := s.resized(); got != "[80x23]" {
			t.Errorf("the nudge: %s", got)
		}
		s.Output([]byte("drawn at 23"))
		synctest.Wait()
		if got := s.resized(); got != "[]" {
			t.Errorf("back too soon: %s", got)
		}
		time.Sleep(calmAfter)
		synctest.Wait()
		if got := s.resized(); got != "[80x24]" {
			t.Errorf("not back: %s", got)
		}
		s.Output([]byte("drawn at 24"))
		synctest.Wait()
		if got := second.shown(); !strings.HasPrefix(got, cleared+"\x1b[?1049h\x1b[?1h") || !strings.HasSuffix(got, "drawn at 23drawn at 24") {
			t.Errorf("%.60q", got)
		}
		// A program that does not care is not waited for.
		s.view(t, Person{Name: "third"}, nil)
		time.Sleep(calmMost)
		synctest.Wait()
		if got := s.resized(); got != "[80x23 80x24]" {
			t.Errorf("the nudge: %s", got)
		}
		// Whoever leaves gets their screen back.
		second.shown()
		second.Leave()
		<-second.done
		if got := second.shown(); got != "\x1b[?1049l\x1b[?1l"+leaveAll {
			t.Errorf("%q", got)
		}
		if s.Restore() != "\x1b[?1049l\x1b[?1l"+leaveAll {
			t.Errorf("restore: %q", s.Restore())
		}
		s.Output([]byte("\x1b[?1049l"))
		if s.Restore() != "" {
			t.Errorf("restore: %q", s.Restore())
		}
		s.end("over")
		<-first.done
	})
}

func TestPlace(t *testing.T) {
	s := newStage(t)
	defer s.end("over")
	if got, over := s.Place("\r\none\r\ntwo\r\n"); string(got) != "\r\none\r\ntwo\r\n" || over {
		t.Errorf("%q %v", got, over)
	}
	s.Output([]byte("\x1b[?1049h"))
	got, over := s.Place("\r\n" + strings.Repeat("x", 100) + "\r\ntwo\r\n")
	want := "\x1b7\x1b[0;7m" +
		"\x1b[22;1H\x1b[2K" + strings.Repeat("x", 80) +
		"\x1b[23;1H\x1b[2K" + strings.Repeat("x", 20) +
		"\x1b[24;1H\x1b[2Ktwo\x1b8"
	if string(got) != want || !over {
		t.Errorf("%q %v", got, over)
	}
	s.ResizeOwner(Size{Cols: 5, Rows: 2})
	if got, _ := s.Place("0123456789abcdef"); !strings.Contains(string(got), "\x1b[2;1H\x1b[2K56789\x1b8") {
		t.Errorf("%q", got)
	}
}

func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		begun := time.Now()
		s.Calm(nil)
		if time.Since(begun) != 0 {
			t.Error("silence is not calm")
		}
		s.Output([]byte("x"))
		s.Calm(nil)
		if took := time.Since(begun); took != calmAfter {
			t.Errorf("calm after %v", took)
		}
		// A sequence that does not end is waited for, to an extent.
		s.Output([]byte("\x1b[12"))
		begun = time.Now()
		s.Calm(nil)
		if took := time.Since(begun); took != calmMost {
			t.Errorf("calm after %v", took)
		}
		stop := make(chan struct{})
		close(stop)
		s.Output([]byte("x"))
		begun = time.Now()
		s.Calm(stop)
		if took := time.Since(begun); took != 0 {
			t.Errorf("stopped after %v", took)
		}
		s.end("over")
	})
}
