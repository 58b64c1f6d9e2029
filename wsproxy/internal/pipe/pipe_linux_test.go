package pipe

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWiden(t *testing.T) {
	for _, test := range []struct{ name, end string }{{"read end", "r"}, {"write end", "w"}} {
		t.Run(test.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			f := map[string]*os.File{"r": r, "w": w}[test.end]
			Widen(f)
			Widen(f)
			if got := size(t, r); got != Size {
				t.Errorf("it holds %d, want %d", got, Size)
			}
		})
	}
}

// TestWidenNeverNarrows has a pipe that holds more already.
func TestWidenNeverNarrows(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 2*Size); err != nil {
		t.Fatal(err)
	}
	Widen(w)
	if got := size(t, r); got != 2*Size {
		t.Errorf("it holds %d, want %d", got, 2*Size)
	}
}

// TestReopen has pipes in blocking mode, as a shell makes them, and leaves that
// to them: the shell has the same ones.
func TestReopen(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	_, _ = r.Fd(), w.Fd() // puts them into blocking mode
	in, ok := In(r)
	if !ok {
		t.Fatal("the pipe cannot be read without blocking")
	}
	out, ok := Out(w)
	if !ok {
		t.Fatal("the pipe cannot be written without blocking")
	}
	defer in.(io.Closer).Close()
	defer out.(io.Closer).Close()
	for _, f := range []*os.File{r, w} {
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("the first has flags %#x, %v", flags, err)
		}
	}
	past := in.(interface{ SetReadDeadline(time.Time) error })
	if err := past.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("with nothing there it reads %v", err)
	}
	_ = past.SetReadDeadline(time.Time{})
	if _, err := io.WriteString(out, "word"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "word" {
		t.Errorf("read %q, %v", got, err)
	}
	_, _ = w.Close(), out.(io.Closer).Close()
	if n, err := in.Read(got); n != 0 || err != io.EOF {
		t.Errorf("at the end it reads %d, %v", n, err)
	}
}

// TestReopenBroken has a pipe that nobody reads any more.
func TestReopenBroken(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_ = r.Close()
	out, _ := Out(w)
	if _, err := io.WriteString(out, "word"); !errors.Is(err, unix.EPIPE) {
		t.Errorf("a write returns %v", err)
	}
}

func size(t *testing.T, f *os.File) int {
	t.Helper()
	n, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
