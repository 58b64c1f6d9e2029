package spool

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/build"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// log is a Source that a test writes to.
type log struct {
	mu      sync.Mutex
	text    []byte
	there   bool
	over    bool
	gone    bool
	opens   int
	follows int // that are under way
	changed chan struct{}
	grown   chan struct{}
}

var (
	errNone = errors.New("none yet")
	errLost = errors.New("lost")
)

func newLog() *log { return &log{changed: make(chan struct{}), grown: make(chan struct{})} }

func (l *log) set(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
	close(l.changed)
	l.changed = make(chan struct{})
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) write(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, text...)
	close(l.grown)
	l.grown = make(chan struct{})
}

func (l *log) Ready() (bool, bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.there, l.over, l.changed
}
func (l *log) Gone(err error) bool    { return errors.Is(err, errLost) }
func (l *log) Missing(err error) bool { return errors.Is(err, errNone) }

func (l *log) Open(ctx context.Context, offset int64, follow bool) (io.ReadCloser, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens++
	switch {
	case l.gone:
		return nil, errLost
	case !l.there:
		return nil, errNone
	case !follow:
		return io.NopCloser(bytes.NewReader(l.text[offset:])), nil
	}
	l.follows++
	return &stream{l, ctx, offset}, nil
}

// stream never ends by itself.
type stream struct {
	l   *log
	ctx context.Context
	at  int64
}

func (s *stream) Read(p []byte) (int, error) {
	for {
		s.l.mu.Lock()
		grown := s.l.grown
		n := copy(p, s.l.text[min(s.at, int64(len(s.l.text))):])
		s.l.mu.Unlock()
		if n > 0 {
			s.at += int64(n)
			return n, nil
		}
		select {
		case <-grown:
		case <-s.ctx.Done():
			return 0, s.ctx.Err()
		}
	}
}

func (s *stream) Close() error {
	s.l.set(func() { s.l.follows-- })
	return nil
}

func open(t *testing.T, l *log, most int64) *Spool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	s := New(Options{
		Source: l, Path: path, Most: most, Note: "[cut]",
		Append: func() (*os.File, error) { return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600) },
	})
	t.Cleanup(s.Close)
	return s
}

func reader(t *testing.T, s *Spool, offset int64, follow bool) *Reader {
	t.Helper()
	r, err := s.Reader(t.Context(), offset, follow)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func next(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%q, %v", got, err)
	}
}

// TestShared: one copy for all readers, none while nobody reads, and it goes on
// where it was.
func TestShared(t *testing.T) {
	l := newLog()
	s := open(t, l, 1<<20)
	a, b := reader(t, s, 0, true), reader(t, s, 2, true)
	l.set(func() { l.there = true })
	l.write("hello ")
	next(t, a, "hello ")
	next(t, b, "llo ")
	if l.opens != 1 {
		t.Errorf("%d streams", l.opens)
	}
	_ = a.Close()
	_ = b.Close()
	for { // the stream is given up
		l.mu.Lock()
		n, changed := l.follows, l.changed
		l.mu.Unlock()
		if n == 0 {
			break
		}
		<-changed
	}
	l.write("world")
	c := reader(t, s, 0, true)
	next(t, c, "hello world")
	l.set(func() { l.text = append(l.text, "!"...); l.over = true })
	if text, err := io.ReadAll(c); string(text) != "!" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if gone, err := s.Finish(t.Context()); gone || err != nil {
		t.Error(gone, err)
	}
	if text, err := io.ReadAll(reader(t, s, -6, true)); string(text) != "world!" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestNow: without following, what is there now.
func TestNow(t *testing.T) {
	l := newLog()
	s := open(t, l, 1<<20)
	if text, err := io.ReadAll(reader(t, s, 0, false)); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	l.set(func() { l.there = true; l.text = []byte("one two") })
	r := reader(t, s, -3, false)
	if text, err := io.ReadAll(r); string(text) != "two" || err != nil || r.Offset() != 4 {
		t.Errorf("%q at %d, %v", text, r.Offset(), err)
	}
}

// TestTooLong: what is kept is bounded, and says so.
func TestTooLong(t *testing.T) {
	l := newLog()
	s := open(t, l, 10)
	l.set(func() { l.there, l.text = true, []byte(strings.Repeat("x", 8)) })
	r := reader(t, s, 0, true)
	next(t, r, "xxxxxxxx")
	l.write("yyyyyyyy")
	next(t, r, "yy[cut]")
	l.set(func() { l.over = true })
	if text, err := io.ReadAll(r); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestGone: a log that was deleted before anybody copied it.
func TestGone(t *testing.T) {
	l := newLog()
	s := open(t, l, 10)
	l.set(func() { l.there, l.over, l.gone = true, true, true })
	if gone, err := s.Finish(t.Context()); !gone || err != nil {
		t.Error(gone, err)
	}
	if _, err := s.Reader(t.Context(), 0, false); !IsGone(err) {
		t.Error(err)
	}
}

// TestRestart: of a log that begins again nothing of the former one stays, neither
// in the file nor for those who read, who are told.
func TestRestart(t *testing.T) {
	l := newLog()
	s := open(t, l, 1<<20)
	l.set(func() { l.there, l.text = true, []byte("a former run\n") })
	follows, waits := reader(t, s, 0, true), reader(t, s, 0, true)
	next(t, follows, "a former run\n")
	l.set(func() { l.text = []byte("again\n") })
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*Reader{follows, waits} {
		if n, err := r.Read(make([]byte, 8)); n != 0 || !errors.Is(err, build.ErrAnew) {
			t.Fatalf("%d bytes, %v", n, err)
		}
		next(t, r, "again\n")
	}
	l.set(func() { l.text = append(l.text, "end\n"...); l.over = true })
	if text, err := io.ReadAll(follows); string(text) != "end\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if gone, err := s.Finish(t.Context()); gone || err != nil {
		t.Error(gone, err)
	}
	if text, err := os.ReadFile(s.o.Path); string(text) != "again\nend\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}

// TestClosed: readers that wait end with the copy, with their context, and by
// Close.
func TestClosed(t *testing.T) {
	l := newLog()
	l.there = true
	s := open(t, l, 10)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Reader(ctx, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	other, last := reader(t, s, 0, true), reader(t, s, 0, true)
	ends := make(chan error, 3)
	for _, r := range []*Reader{r, other, last} {
		go func() {
			_, err := io.ReadAll(r)
			ends <- err
		}()
	}
	cancel()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = r.Close()
	_ = other.Close()
	if err := <-ends; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.Close()
	if err := <-ends; err != nil {
		t.Error(err)
	}
}
