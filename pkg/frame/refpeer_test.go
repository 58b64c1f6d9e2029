package frame

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"syscall"
	"time"
)

// heard is what one end of a connection was told, by the reference.
type heard struct {
	data   []byte
	pongs  []string
	closed bool
	code   int // of the close frame; 1005 without one in it
	reason string

	inMessage bool
}

// take adds a frame and says what is wrong with it.
func (h *heard) take(f refFrame) error {
	switch {
	case h.closed:
		return fmt.Errorf("opcode %X after the close frame", f.op)
	case f.op == 0 && !h.inMessage, f.op == 2 && h.inMessage:
		return fmt.Errorf("opcode %X, in a message %v", f.op, h.inMessage)
	}
	switch f.op {
	case 0, 2:
		h.data = append(h.data, f.payload...)
		h.inMessage = !f.fin
	case 9:
		return errors.New("a ping, and they are turned off")
	case 10:
		h.pongs = append(h.pongs, string(f.payload))
	case 8:
		d := refDecoded{}.closed(f.payload)
		if d.end != refClosed {
			return fmt.Errorf("a close frame with %q", f.payload)
		}
		h.closed, h.code, h.reason = true, d.code, d.reason
	}
	return nil
}

// isEnd tells the end of a connection, on a frame's border, from what is
// wrong. A reset is an end, too: what came before it has been read.
func isEnd(err error) bool {
	return err == io.EOF || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed)
}

// refPeer is one end of a connection: it hears and says at the same time.
type refPeer struct {
	conn net.Conn
	in   *bufio.Reader
	rnd  *rand.Rand
	// client says whether it masks; the other end then must not, and the
	// other way round.
	client bool
	heard
}

func newRefPeer(conn net.Conn, client bool, seed uint64) *refPeer {
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &refPeer{conn: conn, in: bufio.NewReaderSize(conn, 64<<10), client: client, rnd: rand.New(rand.NewPCG(seed, 1))}
}

// encode encodes frames, with random keys at a client.
func (p *refPeer) encode(frames ...refFrame) []byte {
	var out []byte
	for _, f := range frames {
		out = join(out, refEncode(f, refKey(p.rnd, p.client)))
	}
	return out
}

// join appends b to a, which costs nothing for the first, often a large one.
func join(a, b []byte) []byte {
	if a == nil {
		return b[:len(b):len(b)]
	}
	return append(a, b...)
}

// next reads one frame. At the end of the connection it is io.EOF.
func (p *refPeer) next() (refFrame, error) {
	f, err := refRead(p.in, !p.client)
	if isEnd(err) {
		return f, io.EOF
	}
	if err == nil {
		err = p.take(f)
	}
	return f, err
}

// hear reads until ready, and with nil to the end of the connection.
func (p *refPeer) hear(ready func() bool) error {
	for ready == nil || !ready() {
		if _, err := p.next(); err == io.EOF && ready == nil {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// say writes wire in pieces of the sizes that size gives.
func (p *refPeer) say(wire []byte, size func() int) error {
	for len(wire) > 0 {
		n := min(max(size(), 1), len(wire))
		if _, err := p.conn.Write(wire[:n]); err != nil {
			return err
		}
		wire = wire[n:]
	}
	return nil
}

// hangUp ends the sending direction, or both where there is only that.
func (p *refPeer) hangUp() {
	if half, ok := p.conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	} else {
		_ = p.conn.Close()
	}
}

// echo sends every data frame back, answers a close frame with its like, and
// stays to the end of the connection.
func (p *refPeer) echo() error {
	for {
		f, err := p.next()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case f.op > 2 && f.op != 8:
			continue
		}
		if _, err := p.conn.Write(p.encode(f)); isEnd(err) {
			return p.hear(nil)
		} else if err != nil {
			return err
		}
		if f.op == 8 {
			p.hangUp()
		}
	}
}

// isSubsequence says whether some is whole with entries left out.
func isSubsequence(some, whole []string) bool {
	for _, s := range some {
		at := slices.Index(whole, s)
		if at < 0 {
			return false
		}
		whole = whole[at+1:]
	}
	return true
}
