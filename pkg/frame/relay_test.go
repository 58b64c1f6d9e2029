package frame

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// relayed is a running relay and the raw client ends of its two sides.
type relayed struct {
	a, b  net.Conn
	stop  context.CancelFunc
	stats <-chan Stats
}

func startRelay(a, b net.Conn, peerA, peerB Peer, opts Options) *relayed {
	ctx, cancel := context.WithCancel(context.Background())
	stats := make(chan Stats, 1)
	go func() { stats <- Relay(ctx, peerA, peerB, opts) }()
	return &relayed{a: a, b: b, stop: cancel, stats: stats}
}

// relayTCP relays between two loopback TCP connections.
func relayTCP(t *testing.T, opts Options) *relayed {
	t.Helper()
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	r := startRelay(a, b, Peer{Conn: peerA}, Peer{Conn: peerB}, opts)
	t.Cleanup(r.stop)
	return r
}

// end waits for the relay and checks what it counted.
func (r *relayed) end(t *testing.T, want Stats) {
	t.Helper()
	select {
	case got := <-r.stats:
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatal("the relay does not end")
	}
}

// exchange sends data both ways at once, ends both ways and compares.
func exchange(t *testing.T, a, b *Conn, size int) {
	t.Helper()
	run := func(conn *Conn, out []byte, in *[]byte) <-chan error {
		return async(func() error {
			sent := async(func() error {
				if _, err := conn.Write(out); err != nil {
					return err
				}
				return conn.CloseWrite()
			})
			var err error
			*in, err = io.ReadAll(conn)
			return errors.Join(err, <-sent)
		})
	}
	dataA, dataB := randomBytes(t, size), randomBytes(t, size)
	var gotA, gotB []byte
	doneA, doneB := run(a, dataA, &gotA), run(b, dataB, &gotB)
	await(t, "a", doneA)
	await(t, "b", doneB)
	sameBytes(t, "a to b", gotB, dataA)
	sameBytes(t, "b to a", gotA, dataB)
}

func TestRelayBothWays(t *testing.T) {
	const size = 8 << 20
	for name, wrap := range map[string]func(client, server net.Conn) (net.Conn, net.Conn){
		"tcp": func(client, server net.Conn) (net.Conn, net.Conn) { return client, server },
		"tls": tlsWrap(),
	} {
		t.Run(name, func(t *testing.T) {
			a, peerA := tcpPair(t)
			b, peerB := tcpPair(t)
			ncA, relayA := wrap(a, peerA)
			ncB, relayB := wrap(b, peerB)
			r := startRelay(a, b, Peer{Conn: relayA}, Peer{Conn: relayB}, Options{})
			defer r.stop()
			connA, connB := Client(ncA, nil, Options{}), Client(ncB, nil, Options{})
			exchange(t, connA, connB, size)
			_, _ = connA.Close(), connB.Close()
			r.end(t, Stats{AToB: size, BToA: size, End: "close frame"})
		})
	}
}

// meet returns a handler that relays its first two visitors to each other.
func meet(stats chan<- Stats) http.HandlerFunc {
	first, done := make(chan Peer), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		peer, err := Accept(w, r, "")
		if err != nil {
			return
		}
		select {
		case first <- peer:
			<-done
		case other := <-first:
			stats <- Relay(context.Background(), other, peer, quiet)
			close(done)
		}
	}
}

func TestRelayOverHTTP(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			const size = 8 << 20
			stats := make(chan Stats, 1)
			url, tr := newServer(t, secure, meet(stats))
			a, err := Dial(t.Context(), url, tr, nil, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer a.Close()
			b, err := Dial(t.Context(), url, tr, nil, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			exchange(t, a, b, size)
			if got := <-stats; got.AToB != size || got.BToA != size {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestRelayEarlyFrames has frames in the segments of both handshakes.
func TestRelayEarlyFrames(t *testing.T) {
	stats := make(chan Stats, 1)
	url, _ := newServer(t, false, meet(stats))
	a, toA := rawClient(t, url, append(fromClient(opBinary, []byte("from a")), fromClient(opPing, []byte("a"))...))
	b, toB := rawClient(t, url, append(fromClient(opBinary, []byte("from b")), fromClient(opPing, []byte("b"))...))
	for name, end := range map[string]struct {
		r    io.Reader
		data string
	}{"a": {toA, "from b"}, "b": {toB, "from a"}} {
		got := map[byte]string{}
		for range 2 {
			h, payload, err := readFrame(end.r)
			if err != nil {
				t.Fatal(err)
			}
			got[h.op] = string(payload)
		}
		if got[opPong] != name || got[opBinary] != end.data {
			t.Errorf("%s got %q", name, got)
		}
	}
	_, _ = a.Close(), b.Close()
	if got := <-stats; got.AToB != 6 || got.BToA != 6 {
		t.Errorf("got %+v", got)
	}
}

// TestRelayFragments sends messages in fragments of all sizes, most of them
// tiny, with pings between them.
func TestRelayFragments(t *testing.T) {
	r := relayTCP(t, quiet)
	rnd := rand.New(rand.NewPCG(3, 4))
	var input, want []byte
	pings := 0
	op := byte(opBinary)
	for range 60_000 {
		part := randomBytes(t, rnd.IntN(4))
		if rnd.IntN(500) == 0 {
			part = randomBytes(t, rnd.IntN(100_000))
		}
		fin := rnd.IntN(4) == 0
		input = append(input, rawFrame(fin, true, op, part)...)
		want = append(want, part...)
		op = opContinuation
		if fin {
			op = opBinary
		}
		if rnd.IntN(100) == 0 {
			input = append(input, fromClient(opPing, []byte("p"))...)
			pings++
		}
	}
	input = append(input, rawFrame(true, true, op, nil)...)
	input = append(input, fromClient(opClose, nil)...)
	sent := async(func() error { _, err := r.a.Write(input); return err })
	conn := Client(r.b, nil, quiet)
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "payload", got, want)
	await(t, "sending", sent)
	_ = conn.CloseWrite()
	pongs := 0
	for {
		h, _, err := readFrame(r.a)
		if err != nil || h.op == opClose {
			break
		}
		pongs++
	}
	if pongs == 0 || pongs > pings {
		t.Errorf("%d pongs for %d pings", pongs, pings)
	}
	_, _ = r.a.Close(), conn.Close()
	r.end(t, Stats{AToB: int64(len(want)), End: "close frame"})
}

// TestRelayBackPressure has an end that does not read for a while: what the
// other can send is bounded by the kernel's buffers, and nothing is lost.
func TestRelayBackPressure(t *testing.T) {
	const size = 32 << 20
	a1, peerA := tcpPair(t)
	b1, peerB := tcpPair(t)
	smallBuffers(a1, peerA, b1, peerB)
	r := startRelay(a1, b1, Peer{Conn: peerA}, Peer{Conn: peerB}, Options{})
	defer r.stop()
	a, b := Client(r.a, nil, Options{}), Client(r.b, nil, Options{})
	data := randomBytes(t, size)
	_ = a.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	n, err := a.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n > size/4 {
		t.Fatalf("without a reader %d bytes were taken: %v", n, err)
	}
	_ = a.SetWriteDeadline(time.Time{})
	sent := async(func() error {
		if _, err := a.Write(data[n:]); err != nil {
			return err
		}
		return a.CloseWrite()
	})
	got, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "a", sent)
	sameBytes(t, "data", got, data)
	_, _ = b.Close(), a.Close()
	r.end(t, Stats{AToB: size, End: "close frame"})
}
