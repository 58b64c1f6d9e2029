package resume

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countedConn counts the writes, which wait at a gate.
type countedConn struct {
	net.Conn
	writes atomic.Int32
	gate   chan struct{} // open when closed
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	<-c.gate
	return c.Conn.Write(p)
}

// openCounted opens a stream over one simulated connection.
func openCounted(t *testing.T) (client, server *Stream, conn *countedConn) {
	t.Helper()
	a := newAgent(t, HubConfig{})
	conn = &countedConn{gate: make(chan struct{})}
	close(conn.gate)
	client, server = a.open(Config{Dial: func(context.Context) (net.Conn, error) {
		near, far := simPipe(plan{capacity: 1 << 20})
		conn.Conn = near
		a.serve(far)
		return conn, nil
	}})
	synctest.Wait()
	return client, server, conn
}

// TestKeysAreNotDelayed: a Write of few bytes to an idle stream has reached
// the connection when it returns.
func TestKeysAreNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, conn := openCounted(t)
		for range 100 {
			before := conn.writes.Load()
			mustWrite(t, client, "k")
			if conn.writes.Load() != before+1 {
				t.Fatal("the key was left to another goroutine")
			}
			wantRead(t, server, "k")
		}
	})
}

// TestCoalescing: what is written while the network is busy goes out at once
// when it no longer is.
func TestCoalescing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, conn := openCounted(t)
		conn.gate = make(chan struct{})
		before := conn.writes.Load()
		_ = client.SetWriteDeadline(time.Now().Add(time.Second)) // so that Write leaves it to another goroutine
		mustWrite(t, client, "first ")
		synctest.Wait()
		for range 50 {
			mustWrite(t, client, string(bytes.Repeat([]byte("x"), 1000)))
		}
		close(conn.gate)
		got := make([]byte, 6+50*1000)
		if _, err := io.ReadFull(server, got); err != nil || got[6] != 'x' {
			t.Fatal(err)
		}
		if n := conn.writes.Load() - before; n != 2 {
			t.Errorf("it took %d writes, want 2", n)
		}
	})
}

// TestBackPressure: a reader that does not read stops the writer, and nothing
// else: the other direction flows, pings are answered, and nothing is lost.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := openCounted(t)
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		_ = client.SetWriteDeadline(time.Now().Add(time.Minute))
		n, err := client.Write(sent)
		if n != MinBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%d bytes were taken, %v, want %d", n, err, MinBuffer)
		}
		_ = client.SetWriteDeadline(time.Time{})
		go func() {
			_, _ = server.Write(sent)
			_ = server.CloseWrite()
		}()
		got, err := io.ReadAll(client)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("the other direction: %d bytes, %v", len(got), err)
		}
		time.Sleep(10 * time.Minute)
		if !client.Attached() {
			t.Error("the connection did not last")
		}
		go func() {
			_, _ = client.Write(sent[n:])
			_ = client.CloseWrite()
		}()
		got, err = io.ReadAll(server)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("in the end: %d bytes, %v", len(got), err)
		}
	})
}

// TestLongFatPath: the window grows until the path is full.
func TestLongFatPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{Dial: func(context.Context) (net.Conn, error) {
			near, far := simPipe(plan{capacity: 8 << 20, latency: 25 * time.Millisecond})
			a.serve(far)
			return near, nil
		}})
		start := time.Now()
		go func() {
			_, _ = client.Write(make([]byte, size))
			_ = client.CloseWrite()
		}()
		n, err := io.Copy(io.Discard, struct{ io.Reader }{server})
		if n != size || err != nil {
			t.Fatalf("%d bytes came, %v", n, err)
		}
		// 4 MiB in 50 ms are 80 MiB/s.
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("%d bytes took %v", size, took)
		}
	})
}

// alone is the owner of a stream that has no connection.
type alone struct{}

func (alone) changed(*Stream) {}
func (alone) spawn(func())    {}
func (alone) closing(*Stream) {}

// scripted is a connection from which a script is read.
type scripted struct {
	net.Conn
	io.Reader
}

func (s scripted) Read(p []byte) (int, error) { return s.Reader.Read(p) }

// FuzzFrames reads whatever a relay might make of a connection's frames: only
// a beginning of what was sent may come out.
func FuzzFrames(f *testing.F) {
	key, public, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	// The keys of all runs are the same, so that the corpus has good frames.
	secret, err := agree(key, public[:], nil, suiteGMAC)
	if err != nil {
		f.Fatal(err)
	}
	secret.root = make([]byte, 32)
	genuine, _, err := secret.connection(nil)
	if err != nil {
		f.Fatal(err)
	}
	text := "what was sent, and no more"
	var frames []byte
	for _, part := range []string{text[:4], text[4:5], text[5:]} {
		frame := header{kind: typeData, length: len(part)}.append(nil)
		frame = append(append(frame, part...), make([]byte, tagSize)...)
		genuine.seal(frame)
		frames = append(frames, frame...)
	}
	f.Add(frames)
	f.Add(frames[:40])
	f.Add(frames[32:])
	f.Add(append(bytes.Clone(frames), frames...))
	f.Fuzz(func(t *testing.T, script []byte) {
		in, out, err := secret.connection(nil)
		if err != nil {
			t.Fatal(err)
		}
		near, far := net.Pipe()
		defer near.Close()
		defer far.Close()
		s := newStream(alone{}, time.Hour, secret, [tokenSize]byte{}, newCore(MinBuffer, MinBuffer), true)
		s.mu.Lock()
		err = s.attachLocked(scripted{near, bytes.NewReader(script)}, out, in, 0, time.Time{})
		l := s.link
		s.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		s.lose(l, l.read())
		s.fail(io.EOF)
		got, err := io.ReadAll(s)
		if err != nil || len(got) > len(text) || string(got) != text[:len(got)] {
			t.Errorf("%q came out, %v", got, err)
		}
		if bytes.HasPrefix(script, frames) && len(got) != len(text) {
			t.Errorf("%q came out of genuine frames", got)
		}
		_ = s.Close()
	})
}

// TestParked: what an old connection's reader still holds, authentic as it is,
// is not taken once the stream has been told that the connection is lost.
func TestParked(t *testing.T) {
	_, key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	secret := &secrets{root: key[:], suite: suiteGMAC}
	s := newStream(alone{}, time.Hour, secret, [tokenSize]byte{}, newCore(MinBuffer, MinBuffer), false)
	attach := func() *link {
		near, far := net.Pipe()
		t.Cleanup(func() { _, _ = near.Close(), far.Close() })
		out, in, err := secret.connection(nil)
		if err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err := s.attachLocked(near, out, in, 0, time.Time{}); err != nil {
			t.Fatal(err)
		}
		return s.link
	}
	data := header{kind: typeData, length: 3}
	old := attach()
	if err := s.receive(old, data, []byte("one")); err != nil {
		t.Fatal(err)
	}
	offset, err := s.park(1)
	if offset != 3 || err != nil {
		t.Fatalf("parked at %d, %v", offset, err)
	}
	wantError(t, "a frame after parking", s.receive(old, data, []byte("two")), errSuperseded)
	present := attach()
	wantError(t, "a frame of the old connection", s.receive(old, data, []byte("two")), errSuperseded)
	if err := s.receive(present, data, []byte("two")); err != nil {
		t.Fatal(err)
	}
	wantRead(t, s, "onetwo")
	_, err = s.park(1)
	wantError(t, "the same attempt again", err, errUsed)
	s.fail(io.EOF)
	_ = s.Close()
}

// TestAcknowledgedInTime: what was read is acknowledged, also where nothing
// goes back, and its memory is free.
func TestAcknowledgedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _ := openCounted(t)
		held := func() int {
			client.mu.Lock()
			defer client.mu.Unlock()
			return client.core.out.memory()
		}
		mustWrite(t, client, "x")
		synctest.Wait()
		if held() == 0 {
			t.Error("what was not read was acknowledged")
		}
		wantRead(t, server, "x")
		time.Sleep(ackDelay)
		synctest.Wait()
		if n := held(); n != 0 {
			t.Errorf("%d bytes of memory are held for what was read", n)
		}
	})
}
