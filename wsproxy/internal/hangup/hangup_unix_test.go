//go:build unix

package hangup

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds the wait for what must come.
const patience = time.Minute

// wantLost wants the channel to be closed when end has been called, and not
// before.
func wantLost(t *testing.T, w io.Writer, end func()) {
	t.Helper()
	broken, release := Watch(w)
	defer release()
	select {
	case <-broken:
		t.Fatal("lost before its reader went")
	default:
	}
	end()
	select {
	case <-broken:
	case <-time.After(patience):
		t.Error("nobody noticed that the reader went")
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	return r, w
}

func TestPipe(t *testing.T) {
	r, w := pipe(t)
	wantLost(t, w, func() { _ = r.Close() })
}

// TestFullPipe has a reader that was stopped, and then killed.
func TestFullPipe(t *testing.T) {
	r, w := pipe(t)
	_ = w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = w.Write(make([]byte, 1<<20))
	wantLost(t, w, func() { _ = r.Close() })
}

func TestSocket(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	wantLost(t, ours, func() { _ = theirs.Close() })
}

// TestGoneBefore starts to watch when it is too late.
func TestGoneBefore(t *testing.T) {
	r, w := pipe(t)
	_ = r.Close()
	broken, release := Watch(w)
	defer release()
	select {
	case <-broken:
	case <-time.After(patience):
		t.Error("nobody noticed that there is no reader")
	}
}

// TestNotLost watches what cannot lose a reader, or has not; input that waits
// on a socket is none of its business.
func TestNotLost(t *testing.T) {
	r, w := pipe(t)
	_, _ = w.Write([]byte("unread"))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	_, _ = theirs.Write([]byte("input"))
	_ = unix.Shutdown(fds[1], unix.SHUT_WR)
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, writer := range map[string]io.Writer{
		"pipe": w, "half a socket": ours, "file": file, "null": null, "no file": io.Discard,
	} {
		broken, release := Watch(writer)
		release() // waits for the watch, which has looked by then
		select {
		case <-broken:
			t.Errorf("%s: lost", name)
		default:
		}
	}
	_ = r.Close()
}
