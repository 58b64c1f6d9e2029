package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// relayPipe relays between two pipes without buffers, for fake time.
func relayPipe(opts Options) *relayed {
	a, peerA := net.Pipe()
	b, peerB := net.Pipe()
	return startRelay(a, b, Peer{Conn: peerA}, Peer{Conn: peerB}, opts)
}

func TestRelayStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayPipe(quiet)
		defer r.stop()
		start := time.Now()
		mustWrite(t, r.a, fromClient(opBinary, []byte("nobody takes this")))
		wantClose(t, r.a, CloseGoingAway)
		if took := time.Since(start); took < stallWait || took > stallWait+2*closeWait {
			t.Errorf("took %v", took)
		}
		if got := <-r.stats; got.End != "stalled" || got.AToB != 0 {
			t.Errorf("got %+v", got)
		}
		_, _ = r.a.Close(), r.b.Close()
	})
}

// TestRelayIdle leaves a relay idle for longer than any of its deadlines.
func TestRelayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayPipe(Options{})
		defer r.stop()
		a, b := Client(r.a, nil, Options{}), Client(r.b, nil, Options{Ping: -1})
		got := make(chan string, 2)
		for _, conn := range []*Conn{a, b} {
			go func() {
				text, err := io.ReadAll(conn)
				got <- fmt.Sprintf("%s %v", text, err)
			}()
		}
		mustWrite(t, a, []byte("hello"))
		mustWrite(t, b, []byte("hello"))
		time.Sleep(24 * time.Hour) // fake time
		mustWrite(t, a, []byte(" again"))
		mustWrite(t, b, []byte(" again"))
		_, _ = a.CloseWrite(), b.CloseWrite()
		for range 2 {
			if got := <-got; got != "hello again <nil>" {
				t.Errorf("got %q", got)
			}
		}
		_, _ = a.Close(), b.Close()
		if got := <-r.stats; got.AToB != 11 || got.BToA != 11 {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRelaySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayPipe(Options{})
		defer r.stop()
		b := Client(r.b, nil, Options{})
		pings := async(func() error { _, err := io.Copy(io.Discard, r.a); return err }) // a never answers
		start := time.Now()
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("b: %v", err)
		}
		if took := time.Since(start); took != 3*DefaultPing {
			t.Errorf("took %v", took)
		}
		_ = b.Close()
		if got := <-r.stats; got.End != "silent" {
			t.Errorf("got %+v", got)
		}
		_ = r.a.Close()
		<-pings
	})
}

// TestRelaySuspendedIsNotSilent is about a peer that takes nothing, and so
// cannot answer pings, while something is being written to it.
func TestRelaySuspendedIsNotSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, nc := net.Pipe()
		var s side
		s.init(Peer{Conn: nc}, Options{Ping: time.Second / 3})
		if err := s.send.begin(); err != nil {
			t.Fatal(err)
		}
		s.keep()
		go func() { _, _ = io.Copy(io.Discard, raw) }() // pings
		read := async(func() error { _, _, err := s.read(); return err })
		time.Sleep(time.Minute)
		select {
		case err := <-read:
			t.Fatalf("read ended: %v", err)
		default:
		}
		s.send.end()
		if err := <-read; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		s.finish()
		_ = raw.Close()
	})
}

// TestRelayPingsOfWriterOnly is TestConnPingsOfWriterOnly for a relay.
func TestRelayPingsOfWriterOnly(t *testing.T) {
	r := relayPipe(quiet)
	defer r.stop()
	sent := async(func() error {
		for range 300 {
			if _, err := r.a.Write(fromClient(opPing, []byte("?"))); err != nil {
				return err
			}
		}
		_, err := r.a.Write(fromClient(opBinary, []byte("data")))
		return err
	})
	if got := wantFrame(t, r.b, opBinary); string(got) != "data" {
		t.Errorf("b got %q", got)
	}
	await(t, "a", sent)
	if got := wantFrame(t, r.a, opPong); string(got) != "?" {
		t.Errorf("a got %q", got)
	}
	_, _ = r.a.Close(), r.b.Close()
	<-r.stats
}

// TestRelayLinger has an end that goes on for too long after the other's
// close frame.
func TestRelayLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := relayPipe(quiet)
		defer r.stop()
		sent := async(func() error { _, err := r.a.Write(fromClient(opClose, nil)); return err })
		if got := wantFrame(t, r.b, opClose); len(got) != 0 {
			t.Errorf("b got %q", got)
		}
		<-sent
		time.Sleep(lingerWait - time.Second)
		mustWrite(t, r.b, fromClient(opBinary, []byte("late")))
		if got := wantFrame(t, r.a, opBinary); !bytes.Equal(got, []byte("late")) {
			t.Errorf("a got %q", got)
		}
		wantClose(t, r.a, CloseGoingAway)
		if got := <-r.stats; got != (Stats{BToA: 4, End: "close frame"}) {
			t.Errorf("got %+v", got)
		}
		_, _ = r.a.Close(), r.b.Close()
	})
}
