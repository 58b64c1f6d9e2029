//go:build linux

package e2e

import (
	"context"
	"fmt"
	"math"
	"syscall"
	"testing"
	"time"

	"example.com/converge/e2e/internal/fault"
	"example.com/converge/pkg/watchtest"
)

// strikeKind is one kind of card of the deck from which the schedule is drawn.
type strikeKind int

const (
	kill    strikeKind = iota // kill -9 of the server that is used, and another start
	killRow                   // the same twice in a row
	roll                      // everybody to the other server, this one told to end
	swap                      // everybody to the other server, nobody told
	breakUp                   // some connections are cut at some byte
	stall                     // or stand still for a while
	hole                      // or swallow everything for a while
	tamper                    // or are tampered with
	slow                      // all are slow until the next card
	suspend                   // the agent or the server stands still
	strikes
)

func (k strikeKind) plural() string {
	return [...]string{"kills", "double kills", "rolls", "swaps", "cuts", "stalls", "holes", "tamperings", "delays", "suspensions"}[k]
}

// deck has each kind so many times.
var deck = [strikes]int{kill: 7, killRow: 1, roll: 2, swap: 3, breakUp: 5, stall: 2, hole: 2, tamper: 3, slow: 1, suspend: 1}

// In the long tier it is mostly kills, until there have been so many.
const (
	soakKills, soakKillRows = 12, 6
	leastKills              = 100
)

// kills is how many servers were killed.
func (c *chaos) kills() int { return c.struck[kill] + 2*c.struck[killRow] }

// schedule strikes until it is enough.
func (c *chaos) schedule() {
	c.t.Helper()
	// One session loses its connection in the way that takes longest to be
	// noticed: nobody says that it is lost. The others do not wait for it.
	w := c.workers[len(c.workers)-1]
	c.settle("the beginning")
	watchtest.Eventually(c.t, "a session to put into a hole", func() bool { return w.gate.Set(0, fault.Fault{Kind: fault.Swallow, Up: true}) })
	c.note("the last session of %q is in a hole for good", w.name)
	deck := deck
	if c.soak > 0 {
		deck[kill], deck[killRow] = soakKills, soakKillRows
	}
	for {
		var cards []strikeKind
		for kind, count := range deck {
			for range count {
				cards = append(cards, strikeKind(kind))
			}
		}
		c.rng.Shuffle(len(cards), func(i, j int) { cards[i], cards[j] = cards[j], cards[i] })
		for _, card := range cards {
			c.strike(card)
			c.struck[card]++
			if c.rng.IntN(3) > 0 {
				c.settle(card.plural())
			}
			c.moment(c.rng, 300*time.Millisecond)
			if c.ctx.Err() != nil {
				c.t.Fatal(context.Cause(c.ctx))
			}
		}
		if c.soak == 0 || time.Since(c.begin) > c.soak && c.kills() >= leastKills {
			return
		}
		c.t.Logf("so far: %s", c.result())
	}
}

// settle waits until everybody has got on.
func (c *chaos) settle(after string) {
	c.t.Helper()
	was := make([]int64, len(c.workers))
	for i, w := range c.workers {
		was[i] = w.progress()
	}
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	limit := time.After(stuck)
	for i, w := range c.workers {
		for w.paced && w.progress() == was[i] {
			select {
			case <-look.C:
			case <-c.ctx.Done():
				return
			case <-limit:
				c.lose(fmt.Errorf("%s has stood still since %s", w.name, after))
				return
			}
		}
	}
}

// somewhere is a number of bytes: most are small, so that frames and
// handshakes are hit as well as the middle of data.
func (c *chaos) somewhere() int64 {
	return int64(math.Exp2(c.rng.Float64()*16)) - 1
}

// pick returns one of the clients' gates, or the agent's.
func (c *chaos) pick(agentToo bool) (*fault.Gate, string) {
	n := len(c.workers)
	if agentToo {
		n += 2 // the agent's has most of the connections
	}
	if i := c.rng.IntN(n); i < len(c.workers) {
		return c.workers[i].gate, c.workers[i].name
	}
	return c.agentGate, "the agent"
}

func (c *chaos) strike(kind strikeKind) {
	c.t.Helper()
	for _, g := range append(c.gates(), c.agentGate) {
		g.Slow(0)
	}
	switch kind {
	case kill:
		c.killServer()
	case killRow:
		c.killServer()
		c.killServer()
	case roll, swap:
		c.move(kind)
	case breakUp:
		for range 1 + c.rng.IntN(4) {
			c.arm(fault.Fault{Kind: fault.Kind(c.rng.IntN(2))}, true) // Cut, Reset
		}
	case stall:
		for range 1 + c.rng.IntN(4) {
			c.arm(fault.Fault{Kind: fault.Stall, For: 50*time.Millisecond + span(c.rng, 3*time.Second)}, true)
		}
	case hole:
		for range 1 + c.rng.IntN(3) {
			c.arm(fault.Fault{Kind: fault.Swallow, For: 50*time.Millisecond + span(c.rng, 3*time.Second)}, true)
		}
	case tamper:
		// Not on the agent's side: what the server and the agent have to say to
		// each other is theirs to protect, by TLS.
		for range 1 + c.rng.IntN(4) {
			c.arm(fault.Fault{Kind: fault.Tamper, Bit: c.rng.IntN(8)}, false)
		}
	case slow:
		by := time.Millisecond + span(c.rng, 30*time.Millisecond)
		c.note("everything is slower by %v", by)
		for _, g := range append(c.gates(), c.agentGate) {
			g.Slow(by)
		}
	case suspend:
		p, what := c.agent.process, "the agent"
		if c.rng.IntN(2) == 0 {
			p, what = c.servers[c.active].process, "server "+c.servers[c.active].name
		}
		c.note("%s is suspended", what)
		p.signal(syscall.SIGSTOP)
		c.moment(c.rng, 2*time.Second)
		p.signal(syscall.SIGCONT)
	}
}

// arm sets a fault on some connection, somewhere.
func (c *chaos) arm(f fault.Fault, agentToo bool) {
	g, name := c.pick(agentToo)
	f.Up, f.After = c.rng.IntN(2) == 0, c.somewhere()
	n := c.rng.IntN(16)
	armed := g.Set(n, f)
	c.note("%s of %s, connection %d, up %v, after %d bytes, for %v: %v", f.Kind, name, n, f.Up, f.After, f.For, armed)
}

// killServer kills the server and starts it again. In between either somebody
// accepts connections and drops them, as a proxy does, or nobody does.
func (c *chaos) killServer() {
	c.t.Helper()
	r := c.servers[c.active]
	shut := c.rng.IntN(2) == 0
	gates := append(c.gates(), c.agentGate)
	c.note("kill -9 of server %s, gates shut: %v", r.name, shut)
	if shut {
		for _, g := range gates {
			g.Shut()
		}
	}
	r.kill(c.t)
	c.moment(c.rng, 1500*time.Millisecond)
	c.raise(r)
	for _, g := range gates {
		if err := g.Raise(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.back()
	c.note("server %s is back", r.name)
}

// move leads everybody to the other server. A server that is rolled is told to
// end and sends those away that it has; else their connections are cut, first
// the clients' or the agent's or all at once.
func (c *chaos) move(kind strikeKind) {
	c.t.Helper()
	old := c.servers[c.active]
	c.active = 1 - c.active
	next := c.servers[c.active]
	reset, order := c.rng.IntN(2) == 0, c.rng.IntN(3)
	c.note("%s from server %s to %s, in order %d, resets %v", kind.plural(), old.name, next.name, order, reset)
	agentMoves := func() {
		c.agentGate.Lead(next.addr)
		if kind == swap {
			c.agentGate.CutAll(reset)
		}
	}
	clientsMove := func() {
		for _, g := range c.gates() {
			g.Lead(next.addr)
			if kind == swap {
				g.CutAll(reset)
			}
		}
	}
	switch order {
	case 0:
		agentMoves()
		clientsMove()
	case 1:
		agentMoves()
		c.moment(c.rng, time.Second)
		clientsMove()
	case 2:
		clientsMove()
		c.moment(c.rng, time.Second)
		agentMoves()
	}
	if kind == roll {
		old.signal(syscall.SIGTERM)
	}
	c.back()
	if kind == roll {
		if code := old.wait(c.t); code != 0 {
			c.lose(fmt.Errorf("server %s ended with exit code %d when told to", old.name, code))
		}
		c.raise(old)
	}
}

// makeStateKey makes what servers have in common that stand for each other.
func makeStateKey(t *testing.T, file string) {
	t.Helper()
	runCommand(t, nil, tool("server"), "--make-state-key", file).must(t)
}
