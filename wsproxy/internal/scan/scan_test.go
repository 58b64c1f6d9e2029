package scan

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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a connection: with net.Pipe both ends of the handshake would wait for
// each other to read.
func pair(t *testing.T) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return near, far
}

func TestHostKey(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(signer)
	near, far := pair(t)
	var serving sync.WaitGroup
	serving.Go(func() {
		if _, _, _, err := ssh.NewServerConn(far, cfg); err == nil {
			t.Error("it logged in")
		}
		_ = far.Close()
	})
	key, err := HostKey(t.Context(), near)
	serving.Wait()
	if err != nil || string(key.Marshal()) != string(signer.PublicKey().Marshal()) {
		t.Errorf("got %v, %v", key, err)
	}
}

// Something else than an SSH server, and one that says nothing.
func TestNoServer(t *testing.T) {
	near, far := net.Pipe()
	var serving sync.WaitGroup
	serving.Go(func() {
		_, _ = io.CopyN(io.Discard, far, 4)
		_ = far.Close()
	})
	if key, err := HostKey(t.Context(), near); err == nil || key != nil {
		t.Errorf("got %v, %v", key, err)
	}
	serving.Wait()

	ctx, cancel := context.WithCancel(t.Context())
	near, far = net.Pipe()
	serving.Go(func() {
		_, _ = io.CopyN(io.Discard, far, 4)
		cancel()
		_, _ = io.Copy(io.Discard, far)
		_ = far.Close()
	})
	if key, err := HostKey(ctx, near); !errors.Is(err, context.Canceled) || key != nil {
		t.Errorf("got %v, %v", key, err)
	}
	serving.Wait()
}

// FuzzHostKey: whatever the other end says, nothing but a key of which it has
// proved that it holds it is taken, and it cannot prove that with words that
// were there before.
func FuzzHostKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, said []byte) {
		near, far := net.Pipe()
		var serving sync.WaitGroup
		defer serving.Wait()
		serving.Go(func() { _, _ = io.Copy(io.Discard, far) })
		serving.Go(func() {
			_, _ = far.Write(said)
			_ = far.Close()
		})
		if key, err := HostKey(t.Context(), near); err == nil || key != nil {
			t.Errorf("got %v, %v", key, err)
		}
	})
}
