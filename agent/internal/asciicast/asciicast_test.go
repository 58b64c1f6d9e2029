package asciicast

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var start = time.Date(2026, 11, 21, 9, 30, 5, 0, time.FixedZone("CET", 3600))

// sink is a file in memory.
type sink struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	fails  int           // the length at which writing fails; 0 is never
	gate   chan struct{} // a token lets a write through; nil is open
	delay  time.Duration // of each write; for a synctest bubble
	closed int
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		<-s.gate
	}
	time.Sleep(s.delay)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 && s.buf.Len()+len(p) > s.fails {
		n, _ := s.buf.Write(p[:s.fails-s.buf.Len()])
		return n, errors.New("disk full")
	}
	return s.buf.Write(p)
}

func (s *sink) Truncate(n int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Truncate(int(n))
	return nil
}

func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	return nil
}

func (s *sink) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// failures counts what Options.Failed is told.
type failures struct {
	mu   sync.Mutex
	list []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, err)
}

func (f *failures) all() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list
}

type line struct {
	at   float64
	kind string
	data string
}

// parse reads a recording as a player would, and fails at the first line that
// is not whole.
func parse(t *testing.T, text string) (header map[string]any, lines []line) {
	t.Helper()
	if !strings.HasSuffix(text, "\n") {
		t.Errorf("the last line has no end: %.200q", text[max(0, len(text)-200):])
	}
	scanner := bufio.NewScanner(strings.NewReader(text))
	scanner.Buffer(nil, 16<<20)
	for scanner.Scan() {
		if header == nil {
			if err := json.Unmarshal(scanner.Bytes(), &header); err != nil {
				t.Fatalf("%q: %v", scanner.Text(), err)
			}
			continue
		}
		var e []any
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil || len(e) != 3 {
			t.Fatalf("%.200q: %v", scanner.Text(), err)
		}
		lines = append(lines, line{e[0].(float64), e[1].(string), e[2].(string)})
	}
	return header, lines
}

func TestRecording(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		r := New(s, Header{
			Cols: 80, Rows: 24, Start: start, Title: `shell "1"`, Term: "xterm-256color", Shell: "/bin/bash",
		}, Options{})
		r.Output([]byte("hello\r\n\x1b[1m<b>\x00"))
		time.Sleep(1500 * time.Millisecond)
		r.Resize(100, 30)
		r.Mark("somebody came")
		r.Output([]byte("grün \xff ende \xe2\x82"))
		time.Sleep(time.Second)
		r.Output([]byte("\xac\xc3"))
		r.Close()
		r.Output([]byte("after the end"))
		r.Resize(1, 1)
		r.Close()
		header, lines := parse(t, s.text())
		for key, want := range map[string]any{
			"version": 2.0, "width": 80.0, "height": 24.0, "timestamp": float64(start.Unix()), "title": `shell "1"`,
		} {
			if header[key] != want {
				t.Errorf("header: %s is %v", key, header[key])
			}
		}
		env, _ := header["env"].(map[string]any)
		if env["TERM"] != "xterm-256color" || env["SHELL"] != "/bin/bash" || len(env) != 2 {
			t.Errorf("env: %v", env)
		}
		want := []line{
			{0, "o", "hello\r\n\x1b[1m<b>\x00"},
			{1.5, "r", "100x30"},
			{1.5, "m", "somebody came"},
			{1.5, "o", "grün \ufffd ende "},
			{2.5, "o", "€"},
			{2.5, "o", "\ufffd"},
		}
		if len(lines) != len(want) {
			t.Fatalf("%v", lines)
		}
		for i, l := range lines {
			if l != want[i] {
				t.Errorf("line %d: %v, not %v", i, l, want[i])
			}
		}
		if s.closed != 1 {
			t.Errorf("closed %d times", s.closed)
		}
	})
}

// A full disk ends the recording, once and with whole lines, and nothing else.
func TestDiskFull(t *testing.T) {
	s := &sink{fails: 2000}
	var f failures
	r := New(s, Header{Cols: 80, Rows: 24, Start: start}, Options{Failed: f.add})
	for range 200 {
		r.Output([]byte(strings.Repeat("x", 100)))
	}
	r.Close()
	if list := f.all(); len(list) != 1 || !strings.Contains(list[0].Error(), "disk full") {
		t.Errorf("warnings: %v", list)
	}
	if _, lines := parse(t, s.text()); len(lines) == 0 || len(s.text()) > 2000 {
		t.Errorf("%d lines", len(lines))
	}
	if s.closed != 1 {
		t.Errorf("closed %d times", s.closed)
	}
}

// The same with the kernel's full disk.
func TestDevFull(t *testing.T) {
	if runtime.GOOS != "linux" {
		return // only Linux has one
	}
	w, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var f failures
	r := New(w, Header{Start: start}, Options{Failed: f.add})
	r.Output([]byte("text"))
	r.Close()
	r.Close()
	if list := f.all(); len(list) != 1 || !strings.Contains(list[0].Error(), "no space left") {
		t.Errorf("warnings: %v", list)
	}
}

func TestLimit(t *testing.T) {
	s := &sink{}
	var f failures
	r := New(s, Header{Start: start}, Options{Failed: f.add, Limit: 1000})
	for range 100 {
		r.Output([]byte(strings.Repeat("x", 100)))
	}
	r.Close()
	if list := f.all(); len(list) != 1 || !errors.Is(list[0], ErrLimit) {
		t.Errorf("warnings: %v", list)
	}
	if _, lines := parse(t, s.text()); len(lines) == 0 || len(s.text()) > 1000 {
		t.Errorf("%d bytes in %d lines", len(s.text()), len(lines))
	}
}

// A slow disk slows the output down but loses nothing; one that hangs ends the
// recording after the patience, and nobody waits again.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{delay: 10 * time.Millisecond}
		var f failures
		r := New(s, Header{Start: start}, Options{Failed: f.add, Patience: time.Minute})
		chunk := bytes.Repeat([]byte("slow "), 6000)
		for range 100 {
			r.Output(chunk)
		}
		r.Output([]byte("last words"))
		r.Close()
		_, lines := parse(t, s.text())
		total := 0
		for _, l := range lines {
			total += len(l.data)
		}
		if want := 100*len(chunk) + len("last words"); total != want || len(f.all()) > 0 {
			t.Errorf("%d of %d bytes, warnings: %v", total, want, f.all())
		}
	})
}

func TestHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sink{gate: make(chan struct{})}
		var f failures
		r := New(s, Header{Start: start}, Options{Failed: f.add, Patience: 3 * time.Second})
		chunk := bytes.Repeat([]byte("x"), 64<<10)
		begun := time.Now()
		for range 1000 {
			r.Output(chunk)
		}
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("the output was held up for %v", took)
		}
		r.Close()
		if took := time.Since(begun); took != 6*time.Second {
			t.Errorf("the end came after %v", took)
		}
		if list := f.all(); len(list) != 1 || !errors.Is(list[0], ErrSlow) {
			t.Errorf("warnings: %v", list)
		}
		close(s.gate) // the goroutine was left to the write
		synctest.Wait()
		if s.closed != 1 {
			t.Errorf("closed %d times", s.closed)
		}
	})
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := Prepare(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	name := Name(start, "a/b c", 3)
	if name != "20261121T083005Z-a_b_c-3.cast" {
		t.Errorf("name %q", name)
	}
	for range 3 {
		r, err := Create(dir, name, Header{Start: start}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	for _, name := range []string{name, "20261121T083005Z-a_b_c-3-2.cast", "20261121T083005Z-a_b_c-3-3.cast"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", name, info.Mode())
		}
	}
	if info, err := os.Stat(dir); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v %v", info.Mode(), err)
	}
	file := filepath.Join(dir, name)
	if err := Prepare(file); err == nil || !strings.Contains(err.Error(), "cannot record to the folder "+file) {
		t.Errorf("a file for a folder: %v", err)
	}
	if _, err := Create(file, name, Header{}, Options{}); err == nil {
		t.Error("a recording in a file")
	}
}

// Many goroutines may use a recorder, and close it in between.
func TestConcurrent(t *testing.T) {
	s := &sink{}
	r := New(s, Header{Start: start}, Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 100 {
				r.Output([]byte("output"))
				r.Resize(80+i, 24)
				r.Mark("mark")
			}
			r.Close()
		})
	}
	wg.Wait()
	r.Close()
	parse(t, s.text())
}
