package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, path string) []Event {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

func parse(t *testing.T, text string) []Event {
	t.Helper()
	var events []Event
	for line := range strings.Lines(text) {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// TestFile: lines are added, and a file that was moved away is made anew.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(path, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	l.Write(Event{Event: "first", ToAgent: &zero, Result: "<&>\n\x1b"})
	l.Close()
	if runtime.GOOS != "windows" {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if l, err = Open(path, nil, nil); err != nil {
		t.Fatal(err)
	}
	l.Write(Event{Event: "second"})
	l.Close()
	l.Close()
	l.Write(Event{Event: "after the end"})
	if got := read(t, path); len(got) != 2 || got[0].Event != "first" || got[0].Time.IsZero() || *got[0].ToAgent != 0 || got[0].Result != "<&>\n\x1b" || got[1].Event != "second" {
		t.Errorf("%+v", got)
	}
	if _, err := Open(filepath.Join(path, "x"), nil, nil); err == nil {
		t.Error("a file within a file is opened")
	}
	var none *Log
	none.Write(Event{})
	none.Reopen()
	none.Close()
}

func TestReopen(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // an open file cannot be moved away there, and there is no SIGHUP
	}
	path := filepath.Join(t.TempDir(), "audit.log")
	synctest.Test(t, func(t *testing.T) {
		l, err := Open(path, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Write(Event{Event: "first"})
		synctest.Wait()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		l.Write(Event{Event: "second"})
		synctest.Wait()
		l.Reopen()
		synctest.Wait()
		l.Write(Event{Event: "third"})
		l.Close()
		if got := read(t, path+".1"); len(got) != 2 || got[1].Event != "second" {
			t.Errorf("moved: %+v", got)
		}
		if got := read(t, path); len(got) != 1 || got[0].Event != "third" {
			t.Errorf("new: %+v", got)
		}
	})
}

// disk is one that fills up.
type disk struct {
	mu   sync.Mutex
	room int
	text bytes.Buffer
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(d.room, len(p))
	d.room -= n
	d.text.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

// TestFullDisk: nobody waits, it is told once, and when there is room again the
// log says what it lacks, on lines of their own.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{room: 10}
		var told bytes.Buffer
		l, err := Open("", d, slog.New(slog.NewTextHandler(&told, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.Write(Event{Event: "lost"})
		}
		synctest.Wait()
		if said := told.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the service goes on without it") || !strings.Contains(said, "no space left") {
			t.Errorf("it said %q", said)
		}
		d.mu.Lock()
		d.room = 1 << 20
		d.mu.Unlock()
		time.Sleep(2 * tellEvery)
		l.Write(Event{Event: "there"})
		l.Close()
		torn, rest, _ := strings.Cut(d.text.String(), "\n")
		if got := parse(t, rest); len(torn) != 10 || len(got) != 2 || got[0].Event != "audit.lost" || got[0].Lost != 3 || got[1].Event != "there" {
			t.Errorf("%q, %+v", torn, got)
		}
	})
}

// stuck is a disk that takes nothing until it is told to.
type stuck struct {
	release chan struct{}
	disk
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.release
	return s.disk.Write(p)
}

// TestCloseGivesUp: nobody reads what is written. Close says what is lost, and
// does not wait for ever; what comes later changes nothing.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{release: make(chan struct{}), disk: disk{room: 1 << 30}}
		var told bytes.Buffer
		l, err := Open("", s, slog.New(slog.NewTextHandler(&told, nil)))
		if err != nil {
			t.Fatal(err)
		}
		l.Write(Event{Event: "first"})
		synctest.Wait() // it is being written
		for range 4 {
			l.Write(Event{Event: "more"})
		}
		begun := time.Now()
		l.Close()
		if took := time.Since(begun); took != closeWait {
			t.Errorf("it took %v", took)
		}
		l.Close()
		l.Write(Event{Event: "after the end"})
		if l.Lost() != 5 {
			t.Errorf("%d are lost, want 5", l.Lost())
		}
		close(s.release)
		synctest.Wait() // the writer has ended
		if said := told.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "the audit log lacks events") || !strings.Contains(said, "lost=5") {
			t.Errorf("it said %q", said)
		}
		if got := parse(t, s.text.String()); len(got) != 1 || got[0].Event != "first" {
			t.Errorf("%+v", got)
		}
	})
}

// TestSlowDisk: more events than may wait are counted.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stuck{release: make(chan struct{}), disk: disk{room: 1 << 30}}
		l, err := Open("", s, nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Write(Event{Event: "first"})
		synctest.Wait() // it is being written
		for range queue + 7 {
			l.Write(Event{Event: "more"})
		}
		close(s.release)
		l.Close()
		var lost uint64
		for _, e := range parse(t, s.text.String()) {
			lost += e.Lost
		}
		if lost != 7 {
			t.Errorf("%d were lost, want 7", lost)
		}
	})
}
