package resume

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/pin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newSigner makes a host key.
func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// agent is a Hub that connections can be made to, as through a relay.
type agent struct {
	*Hub
	t       testing.TB
	signer  ssh.Signer
	streams chan *Stream // the new ones
	serving sync.WaitGroup
}

func newAgent(t testing.TB, cfg HubConfig) *agent {
	t.Helper()
	if cfg.Signer == nil {
		cfg.Signer = newSigner(t)
	}
	hub, err := NewHub(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{Hub: hub, t: t, signer: cfg.Signer, streams: make(chan *Stream, 64)}
	t.Cleanup(a.close)
	return a
}

// close ends the agent without waiting for clients.
func (a *agent) close() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = a.Hub.Close(ctx)
	a.serving.Wait()
}

// serve gives a connection to the Hub.
func (a *agent) serve(conn net.Conn) {
	a.serving.Go(func() {
		stream, isNew, err := a.Accept(conn)
		if err == nil && isNew {
			a.streams <- stream
		}
	})
}

func (a *agent) pin() pin.Pin { return pin.Of(a.signer.PublicKey()) }

// dial makes a connection to the agent through nothing.
func (a *agent) dial(context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	a.serve(far)
	return near, nil
}

// open opens a stream to the agent and returns both ends of it.
func (a *agent) open(cfg Config) (client, server *Stream) {
	a.t.Helper()
	if cfg.Dial == nil {
		cfg.Dial = a.dial
	}
	if cfg.Pin.IsZero() {
		cfg.Pin = a.pin()
	}
	client, err := Client(context.Background(), cfg)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { client.fail(net.ErrClosed); _ = client.Close() })
	return client, <-a.streams
}

// cutLink makes a stream lose its present connection.
func cutLink(s *Stream) {
	s.mu.Lock()
	l := s.link
	s.mu.Unlock()
	if l != nil {
		_ = l.conn.Close()
	}
}

func mustWrite(t testing.TB, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func wantRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("%s: got %v, want %v", what, err, want)
	}
}
