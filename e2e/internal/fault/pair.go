package fault

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Kind is what a fault does.
type Kind int

// The kinds of faults.
const (
	// Cut ends the connection in an orderly way, both ways.
	Cut Kind = iota
	// Reset ends it with a reset; what is on its way is lost.
	Reset
	// Stall keeps that direction waiting for a while and then goes on.
	Stall
	// Swallow keeps the connection, takes everything and gives nothing, both
	// ways; after a while, if one is given, it is reset.
	Swallow
	// Tamper changes a bit. It is armed only where a resumable stream flows
	// already.
	Tamper
	kinds
)

func (k Kind) String() string {
	return [...]string{"cut", "reset", "stall", "swallow", "tamper"}[k]
}

// Fault is something that happens to one direction of a connection.
type Fault struct {
	Kind Kind
	// Up is the direction from the client.
	Up bool
	// After is how many more bytes of that direction pass unharmed.
	After int64
	// For is how long it lasts, where that has a meaning. 0 is without end.
	For time.Duration
	// Bit is which one of a byte is changed.
	Bit int
}

// pair is one connection and its other half.
type pair struct {
	gate           *Gate
	client, server *net.TCPConn
	done           chan struct{} // closed by end
	ended          sync.Once
	swallowed      atomic.Bool
	streaming      atomic.Bool // the handshake of a resumable stream is over
	counted        atomic.Bool // as one that was opened, or is none

	mu    sync.Mutex
	slow  time.Duration
	armed [2]*Fault // up, down; After counts down
}

func newPair(g *Gate, client, server *net.TCPConn) *pair {
	return &pair{gate: g, client: client, server: server, done: make(chan struct{})}
}

func direction(up bool) int {
	if up {
		return 0
	}
	return 1
}

func (p *pair) set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed[direction(f.Up)] = &f
}

// end closes both halves.
func (p *pair) end(reset bool) {
	p.ended.Do(func() {
		if reset {
			_ = p.client.SetLinger(0)
			_ = p.server.SetLinger(0)
		}
		close(p.done)
		_ = p.client.Close()
		_ = p.server.Close()
	})
}

func (p *pair) run() {
	var both sync.WaitGroup
	both.Go(func() { p.pump(p.server, p.client, true) })
	both.Go(func() { p.pump(p.client, p.server, false) })
	both.Wait()
	p.end(false)
}

// pump moves the bytes of one direction. An end of one direction is handed on
// and leaves the other; an error ends both.
func (p *pair) pump(dst, src *net.TCPConn, up bool) {
	buf := make([]byte, 32<<10)
	var head preface
	for {
		n, err := src.Read(buf)
		if n > 0 {
			rest := buf[:n]
			for len(rest) > 0 && err == nil {
				var part []byte
				part, rest = p.weather(rest, up)
				if up {
					p.using(len(part))
				} else {
					p.recognise(&head, part)
				}
				err = p.forward(dst, part)
			}
		}
		if errors.Is(err, io.EOF) && !p.swallowed.Load() {
			_ = dst.CloseWrite()
			return
		}
		if err != nil {
			p.end(!errors.Is(err, io.EOF))
			return
		}
	}
}

func (p *pair) forward(dst *net.TCPConn, part []byte) error {
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	if slow > 0 {
		p.wait(slow)
	}
	if p.swallowed.Load() {
		return nil
	}
	p.gate.Counts.Bytes.Add(int64(len(part)))
	_, err := dst.Write(part)
	return err
}

// wait is a while, or until the connection ends; 0 is only that.
func (p *pair) wait(d time.Duration) {
	if d == 0 {
		<-p.done
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.done:
	}
}

// weather returns how much of what came goes on now, and what is left. A
// fault that is due comes about between the two.
func (p *pair) weather(b []byte, up bool) (now, rest []byte) {
	p.mu.Lock()
	f := p.armed[direction(up)]
	if f == nil || f.After >= int64(len(b)) {
		if f != nil {
			f.After -= int64(len(b))
		}
		p.mu.Unlock()
		return b, nil
	}
	if f.After > 0 {
		now, rest = b[:f.After], b[f.After:]
		f.After = 0
		p.mu.Unlock()
		return now, rest
	}
	p.armed[direction(up)] = nil
	p.mu.Unlock()
	p.gate.Counts.Fired[f.Kind].Add(1)
	switch f.Kind {
	case Cut:
		p.end(false)
	case Reset:
		p.end(true)
	case Stall:
		p.wait(f.For)
	case Swallow:
		p.swallowed.Store(true)
		if f.For > 0 {
			p.gate.pairs.Go(func() {
				p.wait(f.For)
				p.end(true)
			})
		}
	case Tamper:
		b[0] ^= 1 << (f.Bit % 8)
	}
	return b, nil
}

// recognise looks at what the server sends, before the client has it: what the
// client sends from then on is no longer its hello.
func (p *pair) recognise(head *preface, b []byte) {
	if p.swallowed.Load() {
		return
	}
	switch head.see(b) {
	case welcome:
		p.streaming.Store(true)
	case resumed:
		p.counted.Store(true) // no session begins here
		p.streaming.Store(true)
		p.gate.Counts.Resumed.Add(1)
	case refused:
		p.gate.Counts.Refused.Add(1)
	}
}

// using is told how much the client sends.
func (p *pair) using(n int) {
	if n > 0 && p.streaming.Load() && p.counted.CompareAndSwap(false, true) {
		p.gate.Counts.Opened.Add(1)
	}
}
