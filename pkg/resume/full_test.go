package resume

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestFull: an agent without room takes back those that it has, and tells new
// ones why it does not take them.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		var serving sync.WaitGroup
		defer serving.Wait()
		full := false
		dial := func(ctx context.Context) (net.Conn, error) {
			if !full {
				return a.dial(ctx)
			}
			near, far := net.Pipe()
			serving.Go(func() { _, _ = a.Resume(far) })
			return near, nil
		}
		client, server := a.open(Config{Dial: dial})
		full = true
		cutLink(client)
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
		_, err := Client(t.Context(), Config{Dial: dial, Pin: a.pin()})
		wantError(t, "a new stream", err, ErrFull)
		if stats := a.Stats(); stats.Sessions != 1 {
			t.Errorf("the Hub has %+v", stats)
		}
	})
}

// TestRefusalDoesNotEnd: that there is no room is no word about a stream that
// is there.
func TestRefusalDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		tries := 0
		client, server := a.open(Config{Dial: func(ctx context.Context) (net.Conn, error) {
			if tries++; tries != 2 {
				return a.dial(ctx)
			}
			near, far := net.Pipe()
			go func() {
				_, _, _ = readMessage(far)
				_ = refuse(far, refusedFull, nil)
				_ = far.Close()
			}()
			return near, nil
		}})
		cutLink(client)
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
	})
}

// TestStrangersLinger: a closed end waits for its client as long as that is
// worth while.
func TestStrangersLinger(t *testing.T) {
	for keep, want := range map[bool]time.Duration{false: handshakeWait, true: DefaultWindow} {
		synctest.Test(t, func(t *testing.T) {
			a := newAgent(t, HubConfig{})
			server := a.stalled(t, keep)
			began := time.Now()
			mustWrite(t, server, "last words")
			mustClose(t, server.Close())
			<-server.Done()
			if took := time.Since(began); took != want {
				t.Errorf("kept %v: it lingered for %v, want %v", keep, took, want)
			}
		})
	}
}

// TestHubCloseCuts: neither a client in the middle of a handshake nor a
// connection that does not close makes Close late.
func TestHubCloseCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		near, far := net.Pipe()
		accepted := make(chan error, 1)
		go func() {
			_, _, err := a.Accept(far)
			accepted <- err
		}()
		release := make(chan struct{})
		client, _ := a.open(Config{Dial: func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			a.serve(stuckConn{far, release})
			return near, nil
		}})
		mustWrite(t, client, "x")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		err := a.Hub.Close(ctx)
		if took := time.Since(began); took > time.Second+closeWait || !errors.Is(err, errStuck) {
			t.Errorf("Close took %v: %v", took, err)
		}
		if err := <-accepted; err == nil {
			t.Error("a stranger was accepted")
		}
		close(release)
		_ = near.Close()
	})
}

// stuckConn closes when it may.
type stuckConn struct {
	net.Conn
	release chan struct{}
}

func (c stuckConn) Close() error {
	<-c.release
	return c.Conn.Close()
}

// TestCopies: what ReadFrom and WriteTo move is all there, in whatever pieces.
func TestCopies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{})
		const size = 10 << 20
		go func() {
			n, err := client.ReadFrom(io.LimitReader(pattern{}, size))
			if n != size || err != nil {
				t.Errorf("ReadFrom: %d, %v", n, err)
			}
			mustClose(t, client.CloseWrite())
		}()
		var got counted
		n, err := server.WriteTo(&got)
		if n != size || err != nil || int(got) != size {
			t.Errorf("WriteTo: %d of %d, %v", n, got, err)
		}
		_, err = client.ReadFrom(io.MultiReader(io.LimitReader(pattern{}, 1), errReader{}))
		wantError(t, "a source that fails", err, errEnded)
		_, err = server.ReadFrom(errReader{})
		wantError(t, "a source that fails", err, io.ErrNoProgress)
		mustWrite(t, server, "x")
		_, err = client.WriteTo(errWriter{})
		wantError(t, "a sink that fails", err, io.ErrShortBuffer)
	})
}

type pattern struct{}

func (pattern) Read(p []byte) (int, error) { return len(p), nil }

type counted int

func (c *counted) Write(p []byte) (int, error) { *c += counted(len(p)); return len(p), nil }

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

type errWriter struct{}

func (errWriter) Write([]byte) (int, error) { return 0, io.ErrShortBuffer }
