package frame

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// rarely has pings, and so everything that goes with them, only when a test
// makes them come.
func rarely(t *testing.T) Options {
	t.Helper()
	p, err := NewPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return Options{Ping: time.Hour, Poller: p}
}

// parks reports whether connections are parked on this system.
func parks(opts Options) bool { return opts.Poller != nil }

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(limit) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// idle lets enough time pass and waits until the side is parked.
func (s *side) idle(t *testing.T) {
	t.Helper()
	for range 2 {
		s.mu.Lock()
		s.nextP, s.coolAt = 0, 0
		s.mu.Unlock()
		s.tick()
	}
	until(t, "parking", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.parked
	})
}

// pingless reads frames other than pings.
func pingless(t *testing.T, r io.Reader) (op byte, payload []byte) {
	t.Helper()
	for {
		h, payload, err := readFrame(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.op != opPing {
			return h.op, payload
		}
	}
}

// joinTCP is relayTCP with the session in hand.
func joinTCP(t *testing.T, opts Options) (s *Session, a, b *net.TCPConn, stats <-chan Stats) {
	t.Helper()
	a, peerA := tcpPair(t)
	b, peerB := tcpPair(t)
	done := make(chan Stats, 1)
	s = Join(Peer{Conn: peerA}, Peer{Conn: peerB}, opts, func(s Stats) { done <- s })
	t.Cleanup(s.Shutdown)
	return s, a, b, done
}

func TestParkedRelay(t *testing.T) {
	opts := rarely(t)
	if !parks(opts) {
		t.Log("connections are not parked on this system")
		return
	}
	s, a, b, stats := joinTCP(t, opts)
	for range 3 {
		s.a.idle(t)
		s.b.idle(t)
		mustWrite(t, a, fromClient(opBinary, []byte("question")))
		if op, got := pingless(t, b); op != opBinary || string(got) != "question" {
			t.Fatalf("b got %X %q", op, got)
		}
		s.a.idle(t)
		mustWrite(t, b, fromClient(opBinary, []byte("answer")))
		if op, got := pingless(t, a); op != opBinary || string(got) != "answer" {
			t.Fatalf("a got %X %q", op, got)
		}
		s.a.idle(t)
		mustWrite(t, a, fromClient(opPing, []byte("alive?")))
		if op, got := pingless(t, a); op != opPong || string(got) != "alive?" {
			t.Fatalf("a got %X %q", op, got)
		}
	}
	s.a.idle(t)
	s.b.idle(t)
	mustWrite(t, a, fromClient(opClose, closePayload(CloseNormal, "")))
	if op, _ := pingless(t, b); op != opClose {
		t.Errorf("b got %X", op)
	}
	_, _ = b.Close(), a.Close()
	if got := <-stats; got.AToB != 24 || got.BToA != 18 || got.End != "close frame" {
		t.Errorf("got %+v", got)
	}
}

// TestParkedRelayEnds in every way.
func TestParkedRelayEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(s *Session, a *net.TCPConn)
		code int
		why  string
	}{
		"vanished": {func(_ *Session, a *net.TCPConn) { _ = a.Close() }, CloseGoingAway, "connection "},
		"shutdown": {func(s *Session, _ *net.TCPConn) { s.Shutdown() }, CloseServiceRestart, "server shutdown"},
		"silent": {func(s *Session, _ *net.TCPConn) {
			s.a.mu.Lock()
			s.a.born = s.a.born.Add(-4 * time.Hour)
			s.a.mu.Unlock()
			s.a.tick()
		}, CloseGoingAway, "silent"},
	} {
		t.Run(name, func(t *testing.T) {
			opts := rarely(t)
			if !parks(opts) {
				return
			}
			s, a, b, stats := joinTCP(t, opts)
			s.a.idle(t)
			s.b.idle(t)
			test.end(s, a)
			op, got := pingless(t, b)
			if code, _, err := parseClose(got); op != opClose || code != test.code || err != nil {
				t.Errorf("b got %X %q, %v", op, got, err)
			}
			_, _ = b.Close(), a.Close()
			if got := <-stats; !strings.HasPrefix(got.End, test.why) {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// notes is a handler that writes down what it is told.
type notes struct {
	mu      sync.Mutex
	payload string
	ended   chan error
	closed  chan struct{}
}

func newNotes() *notes {
	return &notes{ended: make(chan error, 1), closed: make(chan struct{})}
}

func (n *notes) Payload(p []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.payload += string(p)
}

func (n *notes) got() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.payload
}

func (n *notes) Ended(err error) { n.ended <- err }
func (n *notes) Closed()         { close(n.closed) }

func openPort(t *testing.T, opts Options, early []byte) (*Port, *notes, *net.TCPConn) {
	t.Helper()
	raw, nc := tcpPair(t)
	p, n := NewPort(Peer{Conn: nc, Early: early}, opts), newNotes()
	p.Start(n)
	t.Cleanup(func() { p.Abort(); <-n.closed })
	return p, n, raw
}

func TestPort(t *testing.T) {
	for name, opts := range map[string]Options{"poller": rarely(t), "none": quiet} {
		t.Run(name, func(t *testing.T) {
			p, n, raw := openPort(t, opts, fromClient(opBinary, []byte("early ")))
			for _, word := range []string{"one ", "two"} {
				mustWrite(t, raw, fromClient(opBinary, []byte(word)))
				until(t, word, func() bool { return strings.HasSuffix(n.got(), word) })
				if err := p.Send([]byte("answer to "+word), patience); err != nil {
					t.Fatal(err)
				}
				if got := wantFrame(t, raw, opBinary); string(got) != "answer to "+word {
					t.Errorf("got %q", got)
				}
			}
			if got := n.got(); got != "early one two" {
				t.Errorf("heard %q", got)
			}
			p.CloseWith(4001, "enough")
			if reason := wantClose(t, raw, 4001); reason != "enough" {
				t.Errorf("reason %q", reason)
			}
			_ = raw.Close()
			<-n.ended
			<-n.closed
			if err := p.Send([]byte("x"), patience); err == nil {
				t.Error("a closed port sends")
			}
		})
	}
}

func TestPortEnds(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(p *Port, raw *net.TCPConn)
		want error
	}{
		"close frame": {func(_ *Port, raw *net.TCPConn) {
			_, _ = raw.Write(fromClient(opClose, closePayload(CloseNormal, "")))
		}, io.EOF},
		"another code": {func(_ *Port, raw *net.TCPConn) {
			_, _ = raw.Write(fromClient(opClose, closePayload(4000, "why")))
		}, &CloseError{4000, "why"}},
		"no close frame": {func(_ *Port, raw *net.TCPConn) { _ = raw.CloseWrite() }, io.ErrUnexpectedEOF},
		"violation": {func(_ *Port, raw *net.TCPConn) {
			_, _ = raw.Write(fromClient(opText, []byte("x")))
		}, &ProtocolError{Code: CloseUnsupported}},
		"abort":                      {func(p *Port, _ *net.TCPConn) { p.Abort() }, net.ErrClosed},
		"no answer to a close frame": {func(p *Port, _ *net.TCPConn) { p.CloseWith(CloseNormal, "") }, net.ErrClosed},
		"silence": {func(p *Port, _ *net.TCPConn) {
			s := &p.side
			until(t, "waiting", func() bool { return s.since.Load() != 0 })
			s.mu.Lock()
			if s.parked || s.poller == nil {
				s.since.Store(1)
				s.nextP = 1 << 62
				s.silence = 1
			}
			s.mu.Unlock()
			s.tick()
		}, ErrSilent},
	} {
		t.Run(name, func(t *testing.T) {
			p, n, raw := openPort(t, rarely(t), nil)
			if parks(Options{Poller: p.side.poller}) {
				until(t, "parking", func() bool {
					p.side.mu.Lock()
					defer p.side.mu.Unlock()
					return p.side.parked
				})
			}
			test.end(p, raw)
			err := <-n.ended
			var closed, wantClosed *CloseError
			var violation, wantViolation *ProtocolError
			switch {
			case errors.As(test.want, &wantClosed):
				if !errors.As(err, &closed) || *closed != *wantClosed {
					t.Errorf("ended with %v, want %v", err, test.want)
				}
			case errors.As(test.want, &wantViolation):
				if !errors.As(err, &violation) || violation.Code != wantViolation.Code {
					t.Errorf("ended with %v, want %v", err, test.want)
				}
			case !errors.Is(err, test.want):
				t.Errorf("ended with %v, want %v", err, test.want)
			}
			<-n.closed
		})
	}
}

// TestManyParked has no goroutine for each, and serves each.
func TestManyParked(t *testing.T) {
	opts := rarely(t)
	const many = 200
	before := runtime.NumGoroutine()
	var ports []*Port
	var heard []*notes
	var raws []*net.TCPConn
	for range many {
		p, n, raw := openPort(t, opts, nil)
		ports, heard, raws = append(ports, p), append(heard, n), append(raws, raw)
	}
	for range 3 {
		if parks(opts) {
			until(t, "parking of all", func() bool { return runtime.NumGoroutine() < before+many/10 })
		}
		for i, raw := range raws {
			heard[i].mu.Lock()
			heard[i].payload = ""
			heard[i].mu.Unlock()
			mustWrite(t, raw, fromClient(opBinary, []byte("x")))
		}
		for _, n := range heard {
			until(t, "what was sent", func() bool { return n.got() == "x" })
		}
	}
	for _, p := range ports {
		p.Abort()
	}
}
