package resume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestModel runs whole streams, both ends with their goroutines and timers in
// simulated time, over connections that fail at random, and compares every
// byte and every end with what they must be. RESUME_SCHEDULES says how many
// schedules are run, RESUME_SEED which is the first.
func TestModel(t *testing.T) {
	first := fromEnv(t, "RESUME_SEED", 1)
	signer := newSigner(t)
	var counts tally
	for seed := first; seed < first+fromEnv(t, "RESUME_SCHEDULES", 2000); seed++ {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runSchedule(t, seed, signer, &counts) })
		})
		if t.Failed() {
			t.Fatalf("run it alone with RESUME_SEED=%d RESUME_SCHEDULES=1", seed)
		}
	}
	t.Logf("%+v", counts)
	if counts.schedules >= 1000 && (counts.resumed < counts.schedules/2 || counts.expired == 0 || counts.closed == 0) {
		t.Errorf("the schedules test too little: %+v", counts)
	}
}

func fromEnv(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// tally counts what the schedules did.
type tally struct{ schedules, connections, resumed, expired, closed int }

// ending is how an end of a stream ends.
type ending int

const (
	endHalf  ending = iota // CloseWrite, then read to the end, then Close
	endClose               // Close right after the last Write
)

// side is what one end does.
type side struct {
	stream *Stream
	seed   uint64
	total  int
	ending ending
	pauses bool
	writes int // the largest
	reads  int

	// What it found, for the peer's expectations.
	written int
	werr    error
	got     int
	rerr    error
	cerr    error
}

// content is the byte at an offset of a direction.
func content(seed uint64, offset int) byte {
	x := (seed + uint64(offset)) * 0x9E3779B97F4A7C15
	return byte(x >> 56)
}

func (s *side) run(t *testing.T, peer *side, rnd *rand.Rand) {
	var both sync.WaitGroup
	writeRnd := rand.New(rand.NewPCG(rnd.Uint64(), 1))
	readRnd := rand.New(rand.NewPCG(rnd.Uint64(), 2))
	both.Go(func() {
		buf := make([]byte, s.writes)
		for s.written < s.total {
			p := buf[:min(s.total-s.written, 1+writeRnd.IntN(s.writes))]
			for i := range p {
				p[i] = content(s.seed, s.written+i)
			}
			n, err := s.stream.Write(p)
			s.written += n
			if err != nil {
				s.werr = err
				return
			}
			if s.pauses && writeRnd.IntN(4) == 0 {
				time.Sleep(time.Duration(writeRnd.IntN(8000)) * time.Millisecond)
			}
		}
		if s.ending == endClose {
			s.cerr = s.stream.Close()
			return
		}
		s.werr = s.stream.CloseWrite()
	})
	both.Go(func() {
		buf := make([]byte, s.reads)
		for {
			n, err := s.stream.Read(buf[:1+readRnd.IntN(s.reads)])
			for i := range n {
				if buf[i] != content(peer.seed, s.got+i) {
					t.Errorf("byte %d of the stream is wrong", s.got+i)
					break
				}
			}
			s.got += n
			if err != nil {
				s.rerr = err
				return
			}
			if s.pauses && readRnd.IntN(8) == 0 {
				time.Sleep(time.Duration(readRnd.IntN(5000)) * time.Millisecond)
			}
		}
	})
	both.Wait()
	if s.ending == endHalf {
		s.cerr = s.stream.Close()
	}
	_ = s.stream.Close() // where a Write failed before it was due
}

// network makes the connections of one schedule.
type network struct {
	hub    *Hub
	rnd    *rand.Rand
	faults int // how many connections are faulty
	down   time.Time
	outage time.Duration
	conns  int
	wg     sync.WaitGroup
	opened chan *Stream
}

var errNoAgent = errors.New("no such agent")

func (n *network) dial(ctx context.Context) (net.Conn, error) {
	n.conns++
	p := plan{latency: time.Duration(n.rnd.IntN(60)) * time.Millisecond, capacity: 512 + n.rnd.IntN(200<<10)}
	if n.conns > 1 && n.outage > 0 {
		if n.down.IsZero() {
			n.down = time.Now()
		}
		if time.Since(n.down) < n.outage {
			return nil, errNoAgent
		}
	}
	if n.conns <= n.faults {
		if n.conns > 1 {
			switch n.rnd.IntN(6) {
			case 0:
				return nil, errNoAgent
			case 1: // a server that does not answer
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		strike := func() fault {
			f := fault{kind: faultKind(n.rnd.IntN(int(faultKinds))), at: n.rnd.IntN(1 << (4 + n.rnd.IntN(14))), hold: time.Duration(n.rnd.IntN(100)) * time.Second}
			// Client does not try its first connection twice, and who tampers
			// with a handshake may forge a refusal.
			if n.conns == 1 || f.kind >= faultFlip {
				f.at += 400
			}
			return f
		}
		p.up, p.down, p.mute = strike(), strike(), n.rnd.IntN(3) == 0
	}
	client, agent := simPipe(p)
	near, far := net.Conn(client), net.Conn(agent)
	if n.rnd.IntN(2) == 0 {
		near = wrapping{near, rand.New(rand.NewPCG(n.rnd.Uint64(), 3))}
	}
	if n.rnd.IntN(2) == 0 {
		far = wrapping{far, rand.New(rand.NewPCG(n.rnd.Uint64(), 4))}
	}
	n.wg.Go(func() {
		s, isNew, err := n.hub.Accept(far)
		if err == nil && isNew {
			n.opened <- s
		}
	})
	return near, nil
}

func runSchedule(t *testing.T, seed uint64, signer ssh.Signer, counts *tally) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	hub, err := NewHub(HubConfig{Signer: signer, Buffer: MinBuffer << rnd.IntN(3)})
	if err != nil {
		t.Fatal(err)
	}
	wires := &network{hub: hub, rnd: rand.New(rand.NewPCG(seed, 9)), faults: rnd.IntN(7), opened: make(chan *Stream, 1)}
	doomed := wires.faults > 0 && rnd.IntN(20) == 0
	if doomed {
		wires.outage = DefaultWindow + time.Minute
	}
	linger := time.Hour
	client, err := Client(t.Context(), Config{Dial: wires.dial, Buffer: MinBuffer << rnd.IntN(3), Linger: linger})
	if err != nil {
		t.Fatal(err)
	}
	agent := <-wires.opened
	agent.Keep() // or its last words would not wait for the client

	sides := [2]*side{{stream: client}, {stream: agent}}
	for i, s := range sides {
		s.seed = seed*2 + uint64(i)
		s.total = rnd.IntN(1 << (6 + rnd.IntN(14)))
		s.writes, s.reads = 1+rnd.IntN(64<<10), 1+rnd.IntN(64<<10)
		s.pauses = rnd.IntN(2) == 0
		if rnd.IntN(4) == 0 {
			s.ending = endClose
		}
	}
	var both sync.WaitGroup
	for i, s := range sides {
		peer, r := sides[1-i], rand.New(rand.NewPCG(seed, uint64(20+i)))
		both.Go(func() { s.run(t, peer, r) })
	}
	both.Wait()
	// What the agent's Close left to the Hub has to arrive too, so the client's
	// Close above was the last thing to happen, or the Hub ends the rest.
	ctx, cancel := context.WithTimeout(t.Context(), 2*DefaultWindow)
	defer cancel()
	_ = hub.Close(ctx)
	wires.wg.Wait()

	counts.schedules++
	counts.connections += wires.conns
	if wires.conns > 1 {
		counts.resumed++
	}
	failed := false
	for _, s := range sides {
		failed = failed || errors.Is(s.rerr, ErrExpired) || errors.Is(s.werr, ErrExpired) || errors.Is(s.cerr, ErrUnsent) ||
			errors.Is(s.rerr, ErrGone) || errors.Is(s.werr, ErrGone)
	}
	if failed {
		counts.expired++
	}
	if sides[0].ending == endClose || sides[1].ending == endClose {
		counts.closed++
	}
	if failed && !doomed {
		t.Errorf("the stream was lost: %s", outcome(sides))
	}
	for i, s := range sides {
		peer := sides[1-i]
		if s.got > peer.written {
			t.Errorf("side %d has read more than was written: %s", i, outcome(sides))
		}
		if failed {
			continue
		}
		switch {
		case s.ending == endClose && peer.ending == endClose:
			// Either may have closed before the other's bytes came.
		case s.ending == endClose:
			if !errors.Is(s.rerr, io.EOF) && !isClosed(s.rerr) {
				t.Errorf("side %d: the read ended with %v", i, s.rerr)
			}
		default: // it reads to the end: everything must have come
			if s.got != peer.written || !errors.Is(s.rerr, io.EOF) {
				t.Errorf("side %d: not everything came: %s", i, outcome(sides))
			}
		}
		if s.werr != nil && (peer.ending != endClose || !errors.Is(s.werr, io.ErrClosedPipe)) {
			t.Errorf("side %d: the write ended with %v: %s", i, s.werr, outcome(sides))
		}
		if s.cerr != nil {
			t.Errorf("side %d: the close ended with %v: %s", i, s.cerr, outcome(sides))
		}
	}
	if stats := hub.Stats(); stats != (Stats{}) {
		t.Errorf("the Hub is left with %+v", stats)
	}
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }

func outcome(sides [2]*side) string {
	text := ""
	for i, s := range sides {
		text += fmt.Sprintf("\n  side %d: wrote %d of %d (%v), read %d (%v), close: %v", i, s.written, s.total, s.werr, s.got, s.rerr, s.cerr)
	}
	return text
}
