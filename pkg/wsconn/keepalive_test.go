package wsconn

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLiveness(t *testing.T) {
	type call struct {
		received uint64
		stalled  bool
		dead     bool
	}
	for name, calls := range map[string][]call{
		"silent from the start":   {{0, false, false}, {0, false, false}, {0, false, false}, {0, false, true}},
		"silent after a while":    {{5, false, false}, {9, false, false}, {9, false, false}, {9, false, false}, {9, false, true}},
		"a byte now and then":     {{1, false, false}, {1, false, false}, {1, false, false}, {2, false, false}, {2, false, false}, {2, false, false}, {3, false, false}},
		"nobody reads":            {{1, true, false}, {1, true, false}, {1, true, false}, {1, true, false}, {1, true, false}},
		"silent after the reader": {{1, true, false}, {1, true, false}, {1, false, false}, {1, false, false}, {1, false, true}},
	} {
		var l liveness
		for i, c := range calls {
			if got := l.dead(c.received, c.stalled, 3); got != c.dead {
				t.Errorf("%s: call %d gave %v", name, i, got)
			}
		}
	}
}

func TestJitter(t *testing.T) {
	for at, want := range map[float64]time.Duration{0: 15 * time.Second, 0.5: 20 * time.Second, 1: 25 * time.Second} {
		if got := jitter(20*time.Second, at); got != want {
			t.Errorf("jitter at %v is %v", at, got)
		}
	}
	if got := (Options{}).withDefaults(); got.KeepAlive != 20*time.Second || got.Missed != 3 || got.MaxMessage != 0 {
		t.Errorf("the defaults are %+v", got)
	}
}

func TestDeadPeer(t *testing.T) {
	both(t, Options{KeepAlive: 5 * time.Millisecond}, func(t *testing.T, peer *rawPeer, conn *Conn) {
		// The peer's kernel takes the pings, but nobody answers them.
		wantEnd(t, conn, isError(ErrKeepAlive))
		closesInTime(t, conn)
	}, nil)
}

func TestPeerThatAnswers(t *testing.T) {
	// So many misses are allowed that a slow machine makes no difference.
	opts := Options{KeepAlive: 2 * time.Millisecond, Missed: 10_000}
	both(t, opts, func(t *testing.T, peer *rawPeer, conn *Conn) {
		var last []byte
		for range 20 {
			first, payload, err := peer.receive()
			if err != nil || first != fin|ping || bytes.Equal(payload, last) {
				t.Fatalf("%#x %q after %q, %v", first, payload, last, err)
			}
			last = payload
			peer.send(peer.frame(fin|pong, payload))
		}
		peer.send(peer.frame(fin|binaryFrame, []byte("alive")))
		wantRead(t, conn, "alive")
	}, nil)
}

// While nobody reads, the peer's answers may lie behind its data.
func TestStalledReaderKeepsThePeer(t *testing.T) {
	// The timer never fires; the test lets the time come.
	both(t, Options{KeepAlive: time.Hour, Missed: 3}, func(t *testing.T, peer *rawPeer, conn *Conn) {
		var ticks sync.WaitGroup
		waitStalled := func(want bool) {
			for start := time.Now(); conn.stalled.Load() != want; runtime.Gosched() {
				if time.Since(start) > patience {
					t.Fatalf("the reader is not stalled: %v", !want)
				}
			}
		}
		peer.send(peer.frame(fin|binaryFrame, []byte("data")))
		waitStalled(true)
		ticks.Go(conn.tick) // this one waits for the pong
		if first, _, err := peer.receive(); first != fin|ping || err != nil {
			t.Errorf("instead of a ping: %#x, %v", first, err)
		}
		for range 10 {
			conn.tick()
		}
		wantRead(t, conn, "data")
		waitStalled(false)
		for range 3 { // that something was read, and two misses
			conn.tick()
		}
		peer.send(peer.frame(fin|binaryFrame, []byte("more")))
		wantRead(t, conn, "more")
		if isDone(conn.ended) {
			t.Error("the peer counts as dead too early")
		}
		waitStalled(false)
		for range 4 {
			conn.tick()
		}
		wantEnd(t, conn, isError(ErrKeepAlive))
		conn.Close()
		ticks.Wait()
	}, nil)
}

// A peer that asks for answers and reads none is made to wait, until nhooyr
// gives up; it takes no memory.
func TestPingFlood(t *testing.T) {
	t.Parallel() // those five seconds
	peer, conn := serve(t, quiet, false).dialRaw(t)
	flood := bytes.Repeat(peer.frame(fin|ping, []byte(strings.Repeat("x", 125))), 1000)
	for {
		if _, err := peer.Write(flood); err != nil {
			break
		}
		conn.link.mu.Lock()
		unsent := conn.link.unsentLocked()
		conn.link.mu.Unlock()
		if unsent > hardLimit+MaxFrame {
			t.Fatal("the buffer grows without bounds")
		}
	}
	if _, err := io.Copy(io.Discard, conn); err == nil {
		t.Error("the connection ended without an error")
	}
}
