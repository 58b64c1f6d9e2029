package clientend

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// link is the remote end of a stream without a network: what Join writes is
// read from sent, what is written to told is what Join reads.
type link struct {
	net.Conn // for the methods that Join does not use
	in       *io.PipeReader
	out      *io.PipeWriter
	sent     *io.PipeReader
	told     *io.PipeWriter

	// hang, if not nil, is what Close and CloseWrite wait for.
	hang   chan struct{}
	closed chan struct{}
	once   sync.Once
}

func newLink() *link {
	l := &link{closed: make(chan struct{})}
	l.in, l.told = io.Pipe()
	l.sent, l.out = io.Pipe()
	return l
}

func (l *link) Read(p []byte) (int, error)  { return l.in.Read(p) }
func (l *link) Write(p []byte) (int, error) { return l.out.Write(p) }

func (l *link) Close() error {
	l.once.Do(func() {
		close(l.closed)
		_ = l.in.CloseWithError(net.ErrClosed)
		_ = l.out.CloseWithError(net.ErrClosed)
	})
	if l.hang != nil {
		<-l.hang
	}
	return nil
}

// halfLink can end one direction.
type halfLink struct{ *link }

func (l halfLink) CloseWrite() error {
	if l.hang != nil {
		<-l.hang
	}
	return l.out.Close()
}

// near is a local end without deadlines, as standard input and output are.
type near struct {
	in  *io.PipeWriter // what is typed
	out *io.PipeReader // what is shown
	Local
}

func newNear() *near {
	n := &near{}
	var in *io.PipeReader
	var out *io.PipeWriter
	in, n.in = io.Pipe()
	n.out, out = io.Pipe()
	n.Local = Local{In: struct{ io.Reader }{in}, Out: struct{ io.Writer }{out}}
	return n
}

// end lets everything end that Join may leave behind.
func (n *near) end() {
	_ = n.in.Close()
	_ = n.out.Close()
}

// start runs Join; the result comes with the time that Join took.
func start(ctx context.Context, remote net.Conn, local Local) <-chan result {
	done := make(chan result, 1)
	began := time.Now()
	go func() {
		err := Join(ctx, remote, local)
		done <- result{err, time.Since(began)}
	}()
	return done
}

type result struct {
	err  error
	took time.Duration
}

// want checks an end without an error and when it came.
func want(t *testing.T, got result, took time.Duration) {
	t.Helper()
	if got.err != nil || got.took != took {
		t.Errorf("Join returned %v after %v, want nil after %v", got.err, got.took, took)
	}
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Errorf("writing %q: %v", text, err)
	}
}

func expect(t *testing.T, r io.Reader, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(r, buf); err != nil || string(buf) != text {
		t.Errorf("read %q, %v, want %q", buf, err, text)
	}
}

func TestJoinRemoteEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLink(), newNear()
		defer n.end()
		done := start(t.Context(), halfLink{l}, n.Local)
		write(t, n.in, "up")
		expect(t, l.sent, "up")
		write(t, l.told, "down")
		expect(t, n.out, "down")
		_ = l.told.Close()
		want(t, <-done, 0) // although In is open
		<-l.closed
	})
}

func TestJoinDrainsAfterInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLink(), newNear()
		defer n.end()
		done := start(t.Context(), halfLink{l}, n.Local)
		write(t, n.in, "up")
		expect(t, l.sent, "up")
		_ = n.in.Close()
		if _, err := l.sent.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the remote end was told %v, want EOF", err)
		}
		time.Sleep(3 * time.Second)
		write(t, l.told, "late")
		expect(t, n.out, "late")
		_ = l.told.Close()
		want(t, <-done, 3*time.Second)
	})
}

// TestJoinEndsInTime has one remote end for each way not to end.
func TestJoinEndsInTime(t *testing.T) {
	for name, test := range map[string]struct {
		half bool // the stream has a CloseWrite
		hang bool // it hangs, and Close does
		// unread says that nobody empties Out, which is full.
		unread bool
		took   time.Duration
	}{
		"silent":                {half: true, took: DrainWait - closeWait},
		"no half-close":         {took: DrainWait - closeWait},
		"hanging":               {half: true, hang: true, took: DrainWait},
		"hanging, no half":      {hang: true, took: DrainWait},
		"unread output":         {half: true, unread: true, took: DrainWait},
		"hanging and unread":    {half: true, hang: true, unread: true, took: DrainWait},
		"no half-close, unread": {unread: true, took: DrainWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, n := newLink(), newNear()
				defer n.end()
				if test.hang {
					l.hang = make(chan struct{})
					defer close(l.hang)
				}
				var remote net.Conn = l
				if test.half {
					remote = halfLink{l}
				}
				done := start(t.Context(), remote, n.Local)
				if test.unread {
					write(t, l.told, "nobody reads this")
				}
				_ = n.in.Close()
				want(t, <-done, test.took)
			})
		})
	}
}

func TestJoinOrderedEnds(t *testing.T) {
	for name, test := range map[string]struct {
		unread, hang bool
		took         time.Duration
	}{
		"at once":       {},
		"unread output": {unread: true, took: closeWait},
		"hanging":       {hang: true, took: closeWait},
	} {
		for _, why := range []string{"context", "broken"} {
			t.Run(name+", "+why, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, n := newLink(), newNear()
					defer n.end()
					if test.hang {
						l.hang = make(chan struct{})
						defer close(l.hang)
					}
					broken := make(chan struct{})
					n.Broken = broken
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					done := start(ctx, halfLink{l}, n.Local)
					if test.unread {
						write(t, l.told, "nobody reads this")
					}
					synctest.Wait()
					if why == "context" {
						cancel()
					} else {
						close(broken)
					}
					want(t, <-done, test.took)
					<-l.closed
				})
			})
		}
	}
}

// TestJoinBrokenWhileDraining does not wait for the rest.
func TestJoinBrokenWhileDraining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLink(), newNear()
		defer n.end()
		broken := make(chan struct{})
		n.Broken = broken
		done := start(t.Context(), halfLink{l}, n.Local)
		_ = n.in.Close()
		time.Sleep(time.Second)
		close(broken)
		want(t, <-done, time.Second)
	})
}

func TestJoinRemoteErrors(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		says string // empty: no error
	}{
		"end":    {err: io.EOF},
		"closed": {err: net.ErrClosed},
		"broken": {err: io.ErrUnexpectedEOF, says: "connect again"},
		"reset":  {err: &net.OpError{Op: "read", Err: syscall.ECONNRESET}, says: "connect again"},
		"other":  {err: errors.New("text frame"), says: "the connection ended: text frame"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, n := newLink(), newNear()
				defer n.end()
				done := start(t.Context(), halfLink{l}, n.Local)
				write(t, l.told, "last words")
				_ = l.told.CloseWithError(test.err)
				expect(t, n.out, "last words")
				checkSays(t, <-done, test.says, 0)
			})
		})
	}
}

func checkSays(t *testing.T, got result, says string, took time.Duration) {
	t.Helper()
	if says == "" {
		want(t, got, took)
		return
	}
	if got.err == nil || !strings.Contains(got.err.Error(), says) || got.took != took {
		t.Errorf("Join returned %v after %v, want %q after %v", got.err, got.took, says, took)
	}
}

// TestJoinWriteFails lets the remote end's read explain a failed write, if it
// does so in time.
func TestJoinWriteFails(t *testing.T) {
	for name, test := range map[string]struct {
		read error
		says string
		took time.Duration
	}{
		"read explains": {read: errors.New("server restart"), says: "server restart"},
		"read is mute":  {says: "cannot send", took: DrainWait - closeWait},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, n := newLink(), newNear()
				defer n.end()
				done := start(t.Context(), halfLink{l}, n.Local)
				_ = l.sent.CloseWithError(syscall.EPIPE)
				write(t, n.in, "lost")
				synctest.Wait()
				if test.read != nil {
					_ = l.told.CloseWithError(test.read)
				}
				checkSays(t, <-done, test.says, test.took)
			})
		})
	}
}

// TestJoinInputFails must not tell the remote end that all is well.
func TestJoinInputFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, n := newLink(), newNear()
		defer n.end()
		done := start(t.Context(), halfLink{l}, n.Local)
		_ = n.in.CloseWithError(syscall.EISDIR)
		_, err := l.sent.Read(make([]byte, 1))
		if err != net.ErrClosed {
			t.Errorf("the remote end was told %v, want a closed connection", err)
		}
		checkSays(t, <-done, "cannot read", 0)
	})
}

func TestJoinOutputFails(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		says string
	}{
		"no reader": {err: &os.PathError{Op: "write", Path: "stdout", Err: syscall.EPIPE}},
		"reset":     {err: &net.OpError{Op: "write", Err: syscall.ECONNRESET}},
		"full disk": {err: syscall.ENOSPC, says: "cannot write"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, n := newLink(), newNear()
				defer n.end()
				done := start(t.Context(), halfLink{l}, n.Local)
				_ = n.out.CloseWithError(test.err)
				write(t, l.told, "lost")
				checkSays(t, <-done, test.says, 0)
			})
		})
	}
}

// TestJoinLeavesNothing joins a local end with deadlines, as tcptows does:
// after Join nobody reads it any more.
func TestJoinLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink()
		mine, theirs := net.Pipe()
		defer mine.Close()
		defer theirs.Close()
		done := start(t.Context(), halfLink{l}, Local{In: theirs, Out: theirs})
		synctest.Wait()
		_ = l.told.Close()
		want(t, <-done, 0)
		if err := theirs.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.WriteString(mine, "not for Join") }()
		expect(t, theirs, "not for Join")
	})
}

// TestJoinWakesWriter ends with a connection as Out that nobody reads.
func TestJoinWakesWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink()
		mine, theirs := net.Pipe()
		defer mine.Close()
		defer theirs.Close()
		ctx, cancel := context.WithCancel(t.Context())
		done := start(ctx, halfLink{l}, Local{In: theirs, Out: theirs})
		write(t, l.told, "nobody reads this")
		synctest.Wait()
		cancel()
		want(t, <-done, 0)
	})
}
