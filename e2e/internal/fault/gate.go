package fault

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// dialWait bounds reaching the target, which is on this machine.
const dialWait = 10 * time.Second

// Gate listens on an address and relays to a target. Its methods may be called
// concurrently.
type Gate struct {
	address string
	// Counts tell what has happened so far.
	Counts Counts

	accepting sync.WaitGroup
	pairs     sync.WaitGroup

	mu       sync.Mutex
	listener net.Listener // nil while it is shut
	target   string
	live     []*pair // in the order of their coming
	slow     time.Duration
	closed   bool
}

// Counts are the events of a gate.
type Counts struct {
	// Accepted connections, and bytes that went through both ways.
	Accepted, Bytes atomic.Int64
	// Opened is how many connections began a resumable stream and were used by
	// the client for it, Resumed how many went on with one, and Refused how
	// many were refused to.
	Opened, Resumed, Refused atomic.Int64
	// Fired is how often each kind of fault came about.
	Fired [kinds]atomic.Int64
}

// Open listens on an address, such as 127.0.0.1:0. Whoever opens a gate must
// Close it.
func Open(address, target string) (*Gate, error) {
	g := &Gate{address: address, target: target}
	if err := g.Raise(); err != nil {
		return nil, err
	}
	return g, nil
}

// Address is where the gate listens.
func (g *Gate) Address() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.address
}

// Lead sends newcomers to another target.
func (g *Gate) Lead(target string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.target = target
}

// Shut makes the gate refuse newcomers, as a machine does on which nobody
// listens.
func (g *Gate) Shut() {
	g.mu.Lock()
	listener := g.listener
	g.listener = nil
	g.mu.Unlock()
	if listener != nil {
		_ = listener.Close()
	}
	g.accepting.Wait()
}

// Raise undoes Shut.
func (g *Gate) Raise() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil || g.closed {
		return nil
	}
	listener, err := net.Listen("tcp", g.address)
	if err != nil {
		return fmt.Errorf("cannot open the gate: %w", err)
	}
	g.listener, g.address = listener, listener.Addr().String()
	g.accepting.Go(func() { g.accept(listener) })
	return nil
}

func (g *Gate) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // it was shut
		}
		g.Counts.Accepted.Add(1)
		g.pairs.Go(func() { g.serve(conn.(*net.TCPConn)) })
	}
}

// serve relays one connection to its end.
func (g *Gate) serve(client *net.TCPConn) {
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	conn, err := net.DialTimeout("tcp", target, dialWait)
	if err != nil {
		// As a proxy does that finds nobody behind it.
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	p := newPair(g, client, conn.(*net.TCPConn))
	g.mu.Lock()
	p.slow = g.slow
	moved := g.target != target || g.closed
	if !moved {
		g.live = append(g.live, p)
	}
	g.mu.Unlock()
	if moved { // nobody would find it to cut it
		p.end(true)
		return
	}
	p.run()
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.live {
		if g.live[i] == p {
			g.live = append(g.live[:i], g.live[i+1:]...)
			break
		}
	}
}

// Live is how many connections there are.
func (g *Gate) Live() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.live)
}

// CutAll ends every connection at once: by a reset, or by an orderly end.
func (g *Gate) CutAll(reset bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.live {
		p.end(reset)
	}
}

// Slow delays everything that goes through, each way and from now on; 0 ends
// that.
func (g *Gate) Slow(by time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.slow = by
	for _, p := range g.live {
		p.mu.Lock()
		p.slow = by
		p.mu.Unlock()
	}
}

// Set arms a fault for the n-th of the live connections, counted from the
// newest and on from the first again. It reports whether there is one that
// will do. A second fault takes the place of one that has not come about.
func (g *Gate) Set(n int, f Fault) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	var fit []*pair
	for _, p := range g.live {
		if f.Kind != Tamper || p.streaming.Load() {
			fit = append(fit, p)
		}
	}
	if len(fit) == 0 {
		return false
	}
	fit[len(fit)-1-n%len(fit)].set(f)
	return true
}

// Close ends everything and waits for it.
func (g *Gate) Close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.Shut()
	g.CutAll(true)
	g.pairs.Wait()
}
