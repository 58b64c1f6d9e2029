package resume

import (
	"errors"
	"fmt"
)

// ErrProtocol is wrapped when the far end, authenticated as it is, does what
// the protocol forbids: the stream ends.
var ErrProtocol = errors.New("the far end broke the stream's protocol")

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s: update the older of the two programs", ErrProtocol, fmt.Sprintf(format, args...))
}

// core is the state of one end of a stream without its connections: what was
// written and is not acknowledged, what was received and is not read, and what
// is to be sent next. It is pure: no locks, no clock, no network, no keys.
//
// An offset counts the bytes of one direction; an end and a close occupy one
// offset each, behind the data, so that they are replayed as data is.
type core struct {
	// Sending. acked ≤ sent ≤ high ≤ tail.
	out    ring   // data that is not acknowledged
	acked  uint64 // the peer's user has consumed up to here
	sent   uint64 // handed to the present connection up to here
	high   uint64 // the highest sent ever was: a peer cannot have more
	asked  uint64 // where an acknowledgement was last asked for
	window int    // how much out may hold now
	limit  int    // and at most
	dry    bool   // the newest acknowledgement was flagged so, and did not widen the window
	ended  bool   // an end was written
	closed bool   // a close was written

	// Receiving.
	in         ring   // data that is not read
	received   uint64 // the next offset that is expected
	inLimit    int    // how much in may hold: the peer was told
	told       uint64 // consumed, as the peer knows it
	ask        uint64 // the first offset at which the peer wants to know; 0 is none
	askLast    uint64 // and the last
	discards   bool   // nobody reads any more
	peerEnded  bool
	peerClosed bool

	// What is due besides data.
	ackDue, pingDue, pongDue, closedDue bool

	closedSent bool // a closed was handed to a connection: all is over
	closedSeen bool // the peer has everything: all is over
	alive      bool // a pong or an acknowledgement of something new has come
}

// newCore makes the state of a new stream of which this end holds up to
// ownLimit bytes in each direction and the peer as many as peerLimit.
func newCore(ownLimit, peerLimit int) core {
	limit := min(ownLimit, peerLimit)
	return core{window: min(minBlock, limit), limit: limit, inLimit: ownLimit}
}

// write takes as much of p as there is room for.
func (c *core) write(p []byte) int {
	n := max(0, min(len(p), c.window-c.out.len()))
	c.out.append(p[:n])
	return n
}

// grow widens a full window where that helps: when everything is sent, so that
// it is not the network that is behind, and the peer has consumed what it got,
// so that it is not the reader either.
func (c *core) grow() bool {
	if c.window >= c.limit || !c.dry || c.sent < c.out.end || c.out.len() < c.window {
		return false
	}
	c.window = min(2*c.window, c.limit)
	c.dry = false // let it show whether that was enough
	return true
}

// end puts an end behind the data, once.
func (c *core) end() { c.ended = c.ended || !c.closed }

// close puts a close behind the data and drops what was received and will be.
func (c *core) close() {
	c.closed, c.discards = true, true
	c.in.discard(c.in.end)
	c.consumedMore()
}

// tail is the offset behind everything that is written.
func (c *core) tail() uint64 {
	t := c.out.end
	if c.ended {
		t++
	}
	if c.closed {
		t++
	}
	return t
}

// inFlight is how much is sent or waits to be and is not acknowledged.
func (c *core) inFlight() int { return c.out.len() }

// consumed is the offset up to which the user has read.
func (c *core) consumed() uint64 {
	if c.in.len() > 0 {
		return c.in.start
	}
	return c.received
}

// consumedMore is to be called when consumed has risen.
func (c *core) consumedMore() {
	done := c.consumed()
	if c.ask == 0 || done < c.ask {
		return
	}
	c.ackDue = true
	c.ask = 0
	if c.askLast > done {
		c.ask = c.askLast
	}
}

// untold reports whether the user has consumed more than the peer knows.
func (c *core) untold() bool { return c.consumed() > c.told }

// pending reports whether there is something to send.
func (c *core) pending() bool {
	if c.peerClosed { // it takes nothing any more
		return c.closedDue
	}
	return c.sent < c.tail() || c.ackDue || c.pingDue || c.pongDue
}

// fill appends the frames that are to be sent to buf, up to its capacity, with
// room for each one's tag.
func (c *core) fill(buf []byte) []byte {
	h := header{acked: c.consumed()}
	if h.acked == c.received {
		h.flags = flagDry
	}
	room := cap(buf)
	add := func(kind frameType, flags byte, data int) []byte {
		h := h
		h.kind, h.length = kind, data
		h.flags |= flags
		buf = h.append(buf)
		start := len(buf)
		buf = buf[:start+data+tagSize]
		return buf[start : start+data]
	}
	if c.peerClosed {
		if c.closedDue {
			add(typeClosed, 0, 0)
			c.closedDue, c.closedSent = false, true
		}
		return buf
	}
	if c.pongDue {
		add(typePong, 0, 0)
	}
	if c.pingDue {
		add(typePing, 0, 0)
	}
	c.pongDue, c.pingDue = false, false
	for c.sent < c.out.end {
		left := int(c.out.end - c.sent)
		n := min(left, maxData, room-len(buf)-overhead)
		if n <= 0 || n < left && n < maxData/4 {
			break // no room, or not worth a frame
		}
		var flags byte
		if c.sent+uint64(n)-c.asked >= uint64(c.window/4) {
			flags = flagAsk
			c.asked = c.sent + uint64(n)
		}
		c.out.read(add(typeData, flags, n), c.sent)
		c.sent += uint64(n)
	}
	if c.ended && c.sent == c.out.end && room-len(buf) >= overhead {
		add(typeEnd, 0, 0)
		c.sent++
	}
	if c.closed && c.sent+1 == c.tail() && room-len(buf) >= overhead {
		add(typeClose, 0, 0)
		c.sent++
	}
	if c.ackDue && len(buf) == 0 {
		add(typeAck, 0, 0)
	}
	c.ackDue = false
	c.told = h.acked
	c.high = max(c.high, c.sent)
	return buf
}

// receive takes one authenticated frame.
func (c *core) receive(h header, data []byte) error {
	if h.acked < c.acked || h.acked > c.sent {
		return protocolError("it acknowledges %d, with %d to %d in flight", h.acked, c.acked, c.sent)
	}
	if h.acked > c.acked {
		c.alive = true
		c.dry = h.flags&flagDry != 0
		c.acked = h.acked
		c.out.discard(min(max(c.acked, c.out.start), c.out.end))
	}
	switch h.kind {
	case typeData:
		return c.receiveData(h, data)
	case typePing:
		c.pongDue = true
	case typePong:
		c.alive = true
	case typeEnd:
		if c.peerEnded {
			return protocolError("it ends twice")
		}
		c.peerEnded = true
		c.received++
	case typeClose:
		if c.peerClosed {
			return protocolError("it closes twice")
		}
		c.peerClosed, c.peerEnded, c.closedDue = true, true, true
		c.received++
		c.out.discard(c.out.end) // nobody will read it
	case typeClosed:
		if !c.closed || c.sent < c.tail() {
			return protocolError("it acknowledges a close that was not sent")
		}
		c.closedSeen = true
	}
	return nil
}

func (c *core) receiveData(h header, data []byte) error {
	if c.peerEnded {
		return protocolError("it sends data behind the end")
	}
	if c.in.len()+len(data) > c.inLimit {
		return protocolError("it sends more than the %d bytes that it may", c.inLimit)
	}
	c.received += uint64(len(data))
	if c.discards {
		c.in.skip(len(data))
	} else {
		c.in.append(data)
	}
	if h.flags&flagAsk != 0 {
		if c.ask == 0 {
			c.ask = c.received
		}
		c.askLast = c.received
	}
	c.consumedMore()
	return nil
}

// read moves received data to p.
func (c *core) read(p []byte) int {
	n := min(len(p), c.in.len())
	c.in.read(p[:n], c.in.start)
	c.in.discard(c.in.start + uint64(n))
	c.consumedMore()
	return n
}

// resume prepares for a new connection to a peer that has received everything
// up to an offset. The old connection must be parked.
func (c *core) resume(received uint64) error {
	if received < c.acked || received > c.high {
		return protocolError("it has received %d, with %d to %d in flight", received, c.acked, c.high)
	}
	c.sent, c.asked = received, received
	c.pingDue, c.pongDue = false, false
	c.ackDue = true // it tells the peer that this end has the key
	return nil
}

// bound is how many bytes of memory the state may hold while there is no
// connection: nothing arrives, and the window stays.
func (c *core) bound() int { return c.in.memory() + max(c.out.memory(), c.window) }

// trim gives back the memory of what is empty.
func (c *core) trim() {
	c.out.trim()
	c.in.trim()
}

// release drops everything, once nobody reads or writes any more.
func (c *core) release() {
	c.out.discard(c.out.end)
	c.in.discard(c.in.end)
	c.trim()
}
