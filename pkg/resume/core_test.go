package resume

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// pure is two cores and what is under way between them: no keys, no clock.
type pure struct {
	t     *testing.T
	ends  [2]core
	wires [2][]byte // frames to each end
	wrote [2]int
	read  [2]int
}

// transmit fills a batch of one end's frames.
func (p *pure) transmit(from, size int) {
	frames := p.ends[from].fill(make([]byte, 0, size))
	p.wires[1-from] = append(p.wires[1-from], frames...)
}

// deliver hands one frame to an end.
func (p *pure) deliver(to int) {
	if len(p.wires[to]) == 0 {
		return
	}
	h, err := parseHeader(p.wires[to])
	if err != nil {
		p.t.Fatalf("a frame that was sent cannot be read: %v", err)
	}
	err = p.ends[to].receive(h, p.wires[to][headerSize:h.size()-tagSize])
	if err != nil {
		p.t.Fatalf("end %d: %v", to, err)
	}
	p.wires[to] = p.wires[to][h.size():]
}

// cut loses what is under way and resumes.
func (p *pure) cut() {
	p.wires = [2][]byte{}
	for i := range p.ends {
		if err := p.ends[i].resume(p.ends[1-i].received); err != nil {
			p.t.Fatalf("end %d: %v", i, err)
		}
	}
}

func (p *pure) write(end, n int) {
	b := make([]byte, min(n, p.ends[end].window))
	for i := range b {
		b[i] = content(uint64(end), p.wrote[end]+i)
	}
	p.wrote[end] += p.ends[end].write(b)
}

func (p *pure) readSome(end, n int) {
	b := make([]byte, min(n, p.ends[end].in.len()))
	n = p.ends[end].read(b)
	for i := range n {
		if b[i] != content(uint64(1-end), p.read[end]+i) {
			p.t.Fatalf("end %d: byte %d is wrong", end, p.read[end]+i)
		}
	}
	p.read[end] += n
}

func (p *pure) check() {
	p.t.Helper()
	for i := range p.ends {
		c, peer := &p.ends[i], &p.ends[1-i]
		switch {
		case c.acked > c.sent || c.sent > c.high || c.high > c.tail():
			p.t.Fatalf("end %d: acked %d, sent %d, high %d, tail %d", i, c.acked, c.sent, c.high, c.tail())
		case c.out.len() > c.window || c.window > c.limit:
			p.t.Fatalf("end %d: %d bytes in a window of %d of %d", i, c.out.len(), c.window, c.limit)
		case c.in.len() > c.inLimit:
			p.t.Fatalf("end %d: %d bytes unread, %d are allowed", i, c.in.len(), c.inLimit)
		case c.acked > peer.consumed() || peer.received > c.high:
			p.t.Fatalf("end %d: acked %d of %d, received %d of %d", i, c.acked, peer.consumed(), peer.received, c.high)
		}
	}
}

// TestCore takes random steps with two cores, checks what must hold after each
// and that everything arrives in the end.
func TestCore(t *testing.T) {
	for seed := range uint64(100) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		p := &pure{t: t}
		buffers := [2]int{MinBuffer << rnd.IntN(3), MinBuffer << rnd.IntN(3)}
		for i := range p.ends {
			p.ends[i] = newCore(buffers[i], buffers[1-i])
		}
		cuts := rnd.IntN(30)
		for range 400 {
			end := rnd.IntN(2)
			switch n := rnd.IntN(100); {
			case n < 30:
				p.write(end, 1+rnd.IntN(1<<rnd.IntN(18)))
			case n < 35:
				p.ends[end].grow()
			case n < 55:
				p.transmit(end, []int{directSize, batchSize}[rnd.IntN(2)])
			case n < 80:
				p.deliver(end)
			case n < 95:
				p.readSome(end, 1+rnd.IntN(1<<rnd.IntN(18)))
			case n < 97:
				p.ends[end].pingDue = true
			case cuts > 0:
				p.cut()
				cuts--
			}
			p.check()
		}
		for i := range p.ends {
			p.ends[i].end()
		}
		for i := 0; !p.done(); i++ {
			if i == 1000 {
				t.Fatalf("seed %d: it never ends: %+v", seed, p.ends)
			}
			for end := range p.ends {
				p.transmit(end, batchSize)
				p.deliver(end)
				p.readSome(end, 1<<20)
				p.ends[end].ackDue = p.ends[end].untold() // as the timer does
			}
			p.check()
		}
		if p.read[0] != p.wrote[1] || p.read[1] != p.wrote[0] {
			t.Fatalf("seed %d: wrote %v, read %v", seed, p.wrote, p.read)
		}
		for i := range p.ends {
			p.ends[i].release()
		}
	}
}

func (p *pure) done() bool {
	for i := range p.ends {
		if c := &p.ends[i]; c.acked != c.tail() || !c.peerEnded || c.pending() {
			return false
		}
	}
	return true
}

// TestCoreRefuses is what a peer that has the key must not do.
func TestCoreRefuses(t *testing.T) {
	tests := []struct {
		name string
		do   func(c *core) error
		text string
	}{
		{"acknowledge what was not sent", func(c *core) error {
			return c.receive(header{kind: typeAck, acked: 11}, nil)
		}, "acknowledges 11"},
		{"take an acknowledgement back", func(c *core) error {
			_ = c.receive(header{kind: typeAck, acked: 5}, nil)
			return c.receive(header{kind: typeAck, acked: 4}, nil)
		}, "acknowledges 4"},
		{"send more than it may", func(c *core) error {
			for range MinBuffer / maxData {
				if err := c.receive(header{kind: typeData, length: maxData}, make([]byte, maxData)); err != nil {
					return nil
				}
			}
			return c.receive(header{kind: typeData, length: 1}, make([]byte, 1))
		}, "more than the 65536 bytes"},
		{"send behind its end", func(c *core) error {
			_ = c.receive(header{kind: typeEnd}, nil)
			return c.receive(header{kind: typeData, length: 1}, make([]byte, 1))
		}, "behind the end"},
		{"end twice", func(c *core) error {
			_ = c.receive(header{kind: typeEnd}, nil)
			return c.receive(header{kind: typeEnd}, nil)
		}, "ends twice"},
		{"close twice", func(c *core) error {
			_ = c.receive(header{kind: typeClose}, nil)
			return c.receive(header{kind: typeClose}, nil)
		}, "closes twice"},
		{"confirm a close that is not sent", func(c *core) error {
			return c.receive(header{kind: typeClosed}, nil)
		}, "was not sent"},
		{"resume behind what was sent", func(c *core) error { return c.resume(11) }, "received 11"},
		{"resume before what it has consumed", func(c *core) error {
			_ = c.receive(header{kind: typeAck, acked: 5}, nil)
			return c.resume(4)
		}, "received 4"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newCore(MinBuffer, MinBuffer)
			c.write(make([]byte, 10))
			c.fill(make([]byte, 0, batchSize))
			err := test.do(&c)
			if !errors.Is(err, ErrProtocol) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want ErrProtocol with %q", err, test.text)
			}
			c.release()
		})
	}
}

// TestWindow: it grows where the far end waits for more, and only there.
func TestWindow(t *testing.T) {
	full := func() *core {
		c := newCore(4*MinBuffer, 2*MinBuffer)
		if n := c.write(make([]byte, 10*MinBuffer)); n != MinBuffer {
			t.Fatalf("the first window takes %d bytes", n)
		}
		return &c
	}
	c := full()
	if c.grow() {
		t.Error("it grew although nothing was sent")
	}
	for c.sent < c.out.end {
		c.fill(make([]byte, 0, batchSize))
	}
	if c.grow() {
		t.Error("it grew although the far end said nothing")
	}
	ack := func(to uint64, flags byte) {
		t.Helper()
		if err := c.receive(header{kind: typeAck, flags: flags, acked: to}, nil); err != nil {
			t.Fatal(err)
		}
		c.write(make([]byte, 10*MinBuffer)) // it is full again
		for c.sent < c.out.end {
			c.fill(make([]byte, 0, batchSize))
		}
	}
	ack(0, flagDry)
	if c.grow() {
		t.Error("it grew although nothing was consumed")
	}
	ack(1000, 0)
	if c.grow() {
		t.Error("it grew although the reader is behind")
	}
	ack(2000, flagDry)
	if !c.grow() || c.window != 2*MinBuffer {
		t.Errorf("it did not grow: the window is %d", c.window)
	}
	ack(2000, flagDry)
	if c.grow() {
		t.Error("it grew twice for one acknowledgement")
	}
	ack(3000, flagDry)
	if c.grow() {
		t.Error("it grew above what the far end holds")
	}
	c.release()
}
