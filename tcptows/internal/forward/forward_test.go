package forward

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/frame"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what must not wait for ever.
const patience = time.Minute

// running is a Forwarder at work, with far ends in memory.
type running struct {
	address string
	far     chan *frame.Conn // of the connections dialled
	stop    func()           // ends Serve and checks that it liked it
}

// dialMemory makes a Dial that sends the far ends to far.
func dialMemory(far chan<- *frame.Conn) func(context.Context, *clientend.Events) (net.Conn, error) {
	return func(context.Context, *clientend.Events) (net.Conn, error) {
		near, remote := net.Pipe()
		far <- frame.Server(remote, nil, frame.Options{})
		return frame.Client(near, nil, frame.Options{}), nil
	}
}

// run serves f on a port of its own until the test ends. Without a Dial it
// gives f one.
func run(t *testing.T, f *Forwarder) *running {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{address: listener.Addr().String(), far: make(chan *frame.Conn, 100)}
	if f.Dial == nil {
		f.Dial = dialMemory(r.far)
	}
	f.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, listener) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if conn, err := net.Dial("tcp", r.address); err == nil {
			_ = conn.Close()
			t.Error("somebody still listens after Serve")
		}
	})
	t.Cleanup(r.stop)
	return r
}

// dial connects a local client.
func (r *running) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", r.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// accept returns the far end of a connection.
func (r *running) accept(t *testing.T) *frame.Conn {
	t.Helper()
	far := <-r.far
	t.Cleanup(func() { _ = far.Close() })
	return far
}

func noise(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return data
}

// wantAll reads to the end and wants data.
func wantAll(t *testing.T, r io.Reader, data []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes came, %v, not the %d that were written", len(got), err, len(data))
	}
}

func TestManyAtOnce(t *testing.T) {
	r := run(t, &Forwarder{})
	const count = 50
	var clients sync.WaitGroup
	defer clients.Wait()
	for range count {
		local := r.dial(t)
		far := r.accept(t)
		clients.Go(func() {
			_, _ = io.Copy(far, far)
			_ = far.Close()
		})
		clients.Go(func() {
			data := noise(100 << 10)
			clients.Go(func() {
				_, _ = local.Write(data)
				_ = local.CloseWrite()
			})
			wantAll(t, local, data)
		})
	}
}

// TestLocalHalfClose takes what the far end says after the local client has
// said all it has to.
func TestLocalHalfClose(t *testing.T) {
	r := run(t, &Forwarder{})
	local, data := r.dial(t), noise(1<<20)
	far := r.accept(t)
	_, _ = local.Write([]byte("question"))
	_ = local.CloseWrite()
	wantAll(t, far, []byte("question"))
	go func() {
		_, _ = far.Write(data)
		_ = far.Close()
	}()
	wantAll(t, local, data)
}

// TestFarEndsFirst has a local client that reads late and goes on sending:
// closing with unread input would reset the connection, and lose what was
// written last and is still on its way.
func TestFarEndsFirst(t *testing.T) {
	r := run(t, &Forwarder{})
	local, data := r.dial(t), noise(1<<20)
	far := r.accept(t)
	var others sync.WaitGroup
	others.Go(func() {
		piece := make([]byte, 64<<10)
		for {
			if _, err := local.Write(piece); err != nil {
				return
			}
		}
	})
	ended := make(chan struct{})
	others.Go(func() {
		_, _ = far.Write(data)
		_ = far.Close()
		close(ended)
	})
	select {
	case <-ended:
	case <-time.After(time.Second): // the kernel does not take all of it unread
	}
	wantAll(t, local, data)
	_ = local.Close()
	others.Wait()
}

func TestLocalReset(t *testing.T) {
	r := run(t, &Forwarder{})
	local := r.dial(t)
	far := r.accept(t)
	_ = local.SetLinger(0)
	_ = local.Close()
	if _, err := far.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the far end read %v, want a close frame", err)
	}
}

// TestStop ends everything that a connection can be at.
func TestStop(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		r := run(t, &Forwarder{})
		local, far := r.dial(t), r.accept(t)
		go r.stop()
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the far end read %v, want a close frame", err)
		}
		_ = far.Close()
		wantAll(t, local, nil)
		r.stop()
	})
	t.Run("nobody reads", func(t *testing.T) {
		r := run(t, &Forwarder{})
		_, far := r.dial(t), r.accept(t)
		var reader sync.WaitGroup
		defer reader.Wait()
		reader.Go(func() { _, _ = io.Copy(io.Discard, far) })
		_ = far.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			if _, err := far.Write(make([]byte, 64<<10)); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		r.stop()
	})
	t.Run("dialling", func(t *testing.T) {
		dialling := make(chan struct{})
		r := run(t, &Forwarder{Dial: func(ctx context.Context, _ *clientend.Events) (net.Conn, error) {
			close(dialling)
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		r.dial(t)
		<-dialling
		r.stop()
	})
}

// TestCannotConnect tells an ssh client why, though it goes on sending, and
// another client nothing.
func TestCannotConnect(t *testing.T) {
	failing := func(context.Context, *clientend.Events) (net.Conn, error) {
		return nil, errors.New("there is no agent \x1b[1mnone")
	}
	t.Run("ssh", func(t *testing.T) {
		r := run(t, &Forwarder{Dial: failing})
		local := r.dial(t)
		_, _ = local.Write(append([]byte("SSH-2.0-Test\r\n"), make([]byte, 100<<10)...))
		got, err := io.ReadAll(local)
		packet, ok := bytes.CutPrefix(got, []byte("SSH-2.0-Converge\r\n"))
		if err != nil || !ok {
			t.Fatalf("read %q, %v", got, err)
		}
		if text := parseDisconnect(t, packet); text != "there is no agent ?[1mnone" {
			t.Errorf("the text is %q", text)
		}
	})
	t.Run("raw", func(t *testing.T) {
		r := run(t, &Forwarder{Dial: failing, Raw: true})
		wantAll(t, r.dial(t), nil)
	})
}

// broken is a listener that fails as often as it has errors, and then accepts
// what is sent to conns.
type broken struct {
	errs   chan error
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (b *broken) Accept() (net.Conn, error) {
	select {
	case err := <-b.errs:
		return nil, &net.OpError{Op: "accept", Err: err}
	default:
	}
	select {
	case conn := <-b.conns:
		return conn, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

func (b *broken) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

func (b *broken) Addr() net.Addr { return &net.TCPAddr{} }

func newBroken(errs ...error) *broken {
	b := &broken{errs: make(chan error, len(errs)), conns: make(chan net.Conn), closed: make(chan struct{})}
	for _, err := range errs {
		b.errs <- err
	}
	return b
}

// TestAcceptFails goes on after a lack of descriptors, and without spinning.
func TestAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var errs []error
		for range 12 {
			errs = append(errs, syscall.EMFILE)
		}
		listener := newBroken(errs...)
		far := make(chan *frame.Conn, 1)
		f := &Forwarder{Dial: dialMemory(far), Logger: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Serve(ctx, listener) }()
		began := time.Now()
		local, theirs := net.Pipe()
		listener.conns <- theirs
		if waited := time.Since(began); waited < 3*time.Second || waited > 10*time.Second {
			t.Errorf("12 failures took %v", waited)
		}
		remote := <-far
		_, _ = local.Write([]byte("x"))
		if _, err := io.ReadFull(remote, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		cancel()
		_ = remote.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = local.Close()
	})
}

func TestStopWhileAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := newBroken(syscall.EMFILE, syscall.EMFILE, syscall.EMFILE)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- (&Forwarder{Logger: slog.New(slog.DiscardHandler)}).Serve(ctx, listener)
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestListenerClosed(t *testing.T) {
	listener := newBroken()
	_ = listener.Close()
	err := (&Forwarder{Logger: slog.New(slog.DiscardHandler)}).Serve(t.Context(), listener)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "cannot go on") {
		t.Errorf("Serve: %v", err)
	}
}
