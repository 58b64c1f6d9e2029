package pipe

import (
	"os"
	"testing"

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

func size(t *testing.T, f *os.File) int {
	t.Helper()
	n, err := unix.FcntlInt(f.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
