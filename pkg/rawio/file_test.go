//go:build unix

package rawio_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/rawio"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

// TestFile moves more than a pipe holds.
func TestFile(t *testing.T) {
	pr, pw := pipe(t)
	r, w := rawio.File(pr), rawio.File(pw)
	if linux := runtime.GOOS == "linux"; (r != rawio.ReadWriter(pr)) != linux || (w != rawio.ReadWriter(pw)) != linux {
		t.Errorf("got %T and %T", r, w)
	}
	want := bytes.Repeat([]byte("0123456789abcde"), 100<<10)
	var writing sync.WaitGroup
	writing.Go(func() {
		if n, err := w.Write(want); n != len(want) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = w.Close()
	})
	got, err := io.ReadAll(r)
	writing.Wait()
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes of %d, %v", len(got), len(want), err)
	}
}

func TestFileErrors(t *testing.T) {
	pr, pw := pipe(t)
	r, w := rawio.File(pr), rawio.File(pw)
	check := func(what string, err, want error) {
		t.Helper()
		var path *fs.PathError
		if !errors.Is(err, want) || !errors.As(err, &path) {
			t.Errorf("%s: %v, want a file's that is %v", what, err, want)
		}
	}
	_ = r.SetReadDeadline(time.Unix(1, 0))
	_, err := r.Read(make([]byte, 1))
	check("deadline", err, os.ErrDeadlineExceeded)
	_ = r.SetReadDeadline(time.Time{})
	closed := make(chan error, 1)
	go func() {
		_, err := r.Read(make([]byte, 1))
		closed <- err
	}()
	_ = r.Close() // before or while it is read
	check("closed", <-closed, os.ErrClosed)
	_, err = w.Write([]byte("x"))
	check("no reader", err, syscall.EPIPE)
}

// TestFileOthers has files that block, or could: they stay what they are.
func TestFileOthers(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	blocking, _ := pipe(t)
	_ = blocking.Fd() // puts it into blocking mode
	gone, _ := pipe(t)
	_ = gone.Close()
	for name, f := range map[string]*os.File{"file": file, "blocking": blocking, "closed": gone} {
		if rawio.File(f) != rawio.ReadWriter(f) {
			t.Errorf("%s: something else became of it", name)
		}
	}
}
