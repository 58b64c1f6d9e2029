package frame

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
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
		peer, err := Accept(w, r)
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

func TestRelayCloseFrame(t *testing.T) {
	r := relayTCP(t, quiet)
	mustWrite(t, r.a, append(fromClient(opBinary, []byte("last")), fromClient(opClose, closePayload(4001, "I am done"))...))
	b := Client(r.b, nil, quiet)
	got, err := io.ReadAll(b)
	var closed *CloseError
	if string(got) != "last" || !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "I am done" {
		t.Fatalf("b got %q, %v", got, err)
	}
	// The other direction goes on.
	data := randomBytes(t, 3<<20)
	sent := async(func() error {
		if _, err := b.Write(data); err != nil {
			return err
		}
		return b.send.close(4002, "me too")
	})
	var answer []byte
	for {
		h, payload, err := readFrame(r.a)
		if err != nil {
			t.Fatal(err)
		}
		if h.op == opClose {
			if code, reason, err := parseClose(payload); code != 4002 || reason != "me too" || err != nil {
				t.Errorf("a got the close frame %d %q %v", code, reason, err)
			}
			break
		}
		answer = append(answer, payload...)
	}
	await(t, "b", sent)
	sameBytes(t, "answer", answer, data)
	_, _ = r.a.Close(), b.Close()
	r.end(t, Stats{AToB: 4, BToA: int64(len(data)), End: "close frame"})
}

// TestRelayVanished loops over an end that goes without a close frame. Every
// other time it leaves unread what the other sent, so that its system resets
// the connection: what had left it by then must be delivered nevertheless.
func TestRelayVanished(t *testing.T) {
	for i := range 40 {
		r := relayTCP(t, quiet)
		size := 200_000
		mustWrite(t, r.b, fromClient(opBinary, randomBytes(t, 30_000)))
		if i%2 == 0 {
			for left := 30_000; left > 0; {
				left -= len(wantFrame(t, r.a, opBinary))
			}
		} else {
			size = 20_000 // less than a window, so that all has left
			if _, err := io.ReadFull(r.a, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		data := randomBytes(t, size)
		mustWrite(t, r.a, fromClient(opBinary, data))
		_ = r.a.Close()
		var got []byte
		for {
			h, payload, err := readFrame(r.b)
			if err != nil {
				t.Fatal(err)
			}
			if h.op == opClose {
				if code, _, err := parseClose(payload); code != CloseGoingAway || err != nil {
					t.Errorf("b got close code %d, %v", code, err)
				}
				break
			}
			got = append(got, payload...)
		}
		sameBytes(t, "last bytes", got, data)
		_ = r.b.Close()
		stats := <-r.stats
		if stats.AToB != int64(len(data)) || (stats.End != "connection ended" && stats.End != "connection broken") {
			t.Errorf("got %+v", stats)
		}
	}
}

func TestRelayViolations(t *testing.T) {
	for _, test := range violations {
		if test.client {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			r := relayTCP(t, quiet)
			mustWrite(t, r.a, append(fromClient(opBinary, []byte("good")), test.input...))
			reason := wantClose(t, r.a, test.code)
			if got := wantFrame(t, r.b, opBinary); string(got) != "good" {
				t.Errorf("b got %q", got)
			}
			wantClose(t, r.b, CloseInternalError)
			_, _ = r.a.Close(), r.b.Close()
			r.end(t, Stats{AToB: 4, End: reason})
		})
	}
}

func TestRelayShutdown(t *testing.T) {
	r := relayTCP(t, quiet)
	mustWrite(t, r.a, fromClient(opBinary, []byte("x")))
	wantFrame(t, r.b, opBinary)
	r.stop()
	wantClose(t, r.a, CloseServiceRestart)
	wantClose(t, r.b, CloseServiceRestart)
	_, _ = r.a.Close(), r.b.Close()
	r.end(t, Stats{AToB: 1, End: "server shutdown"})
}

// TestRelayShutdownStuck shuts down while an end takes nothing.
func TestRelayShutdownStuck(t *testing.T) {
	r := relayTCP(t, quiet)
	sent := async(func() error {
		_, err := io.Copy(r.a, endless{})
		return err
	})
	wantFrame(t, r.b, opBinary) // it flows, and then is stuck
	start := time.Now()
	r.stop()
	<-r.stats
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
	if err := <-sent; err == nil {
		t.Error("the writer ended without an error")
	}
}

// endless is a stream of frames.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, fromClient(opBinary, make([]byte, 1000))), nil
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
		s.init(Peer{Conn: nc}, Options{})
		if err := s.send.begin(); err != nil {
			t.Fatal(err)
		}
		read := async(func() error { _, err := s.read(make([]byte, 1), time.Second); return err })
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
		_, _ = raw.Close(), nc.Close()
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
