package resume

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// faultKind is what a simulated relay does with one direction.
type faultKind int

const (
	faultNone   faultKind = iota
	faultCut              // ends the whole connection
	faultStall            // passes nothing more, and says nothing
	faultHold             // passes the rest much later
	faultFlip             // changes a byte
	faultDrop             // leaves a byte out
	faultRepeat           // passes the last bytes twice
	faultKinds
)

// fault strikes when a number of bytes have passed a direction.
type fault struct {
	kind faultKind
	at   int
	hold time.Duration
}

// wrapping is a connection that wraps what it carries: it writes over what it
// is given, and gives what comes in pieces of any size.
type wrapping struct {
	net.Conn
	rnd *rand.Rand
}

func (w wrapping) WriteOver(buf []byte, start int) (int, error) {
	defer clear(buf)
	return w.Conn.Write(buf[start:])
}

func (w wrapping) WriteTo(to io.Writer) (written int64, err error) {
	buf := make([]byte, 128<<10)
	for {
		n, err := w.Conn.Read(buf[:1+w.rnd.IntN(len(buf)>>w.rnd.IntN(14))])
		m, werr := to.Write(buf[:n])
		clear(buf[:n]) // nothing of it may be kept
		written += int64(m)
		switch {
		case err == io.EOF:
			return written, nil
		case err != nil:
			return written, err
		case werr != nil:
			return written, werr
		}
	}
}

// direction is one direction of a simulated connection.
type direction struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	chunks   []chunk
	buffered int
	capacity int
	latency  time.Duration
	passed   int
	fault    fault
	mute     bool // the reader does not learn of the writer's end
	ended    bool // the writer has closed
	gone     bool // the reader has closed
	broken   bool
	cut      func() // ends both directions
}

type chunk struct {
	data []byte
	at   time.Time
}

func (d *direction) changeLocked() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *direction) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	d.changeLocked()
}

// pushLocked passes p on, with what the fault makes of it.
func (d *direction) pushLocked(p []byte) {
	p = append([]byte(nil), p...)
	at := time.Now().Add(d.latency)
	before := d.passed
	d.passed += len(p)
	if d.fault.kind != faultNone && before+len(p) > d.fault.at {
		i := max(0, d.fault.at-before)
		switch d.fault.kind {
		case faultCut:
			p = p[:i]
			d.broken = true
		case faultStall:
			p = p[:i]
		case faultHold:
			at = at.Add(d.fault.hold)
		case faultFlip:
			p[i] ^= 0x10
		case faultDrop:
			p = append(p[:i], p[i+1:]...)
		case faultRepeat:
			p = append(p[:i:i], append(p[max(0, i-40):i:i], p[i:]...)...)
		}
		switch d.fault.kind {
		case faultFlip, faultDrop, faultRepeat:
			d.fault.kind = faultNone
		}
	}
	if len(p) > 0 {
		d.chunks = append(d.chunks, chunk{p, at})
		d.buffered += len(p)
	}
}

func (d *direction) write(p []byte, by func() time.Time) (int, error) {
	written := 0
	for {
		d.mu.Lock()
		limit := by()
		switch {
		case d.ended:
			d.mu.Unlock()
			return written, net.ErrClosed
		case d.gone && !d.mute, d.broken:
			d.mu.Unlock()
			return written, io.ErrClosedPipe
		case isPast(limit):
			d.mu.Unlock()
			return written, os.ErrDeadlineExceeded
		}
		n := max(0, min(len(p)-written, d.capacity-d.buffered))
		if n > 0 {
			d.pushLocked(p[written : written+n])
			written += n
			d.changeLocked()
		}
		broken, changed := d.broken, d.changed
		d.mu.Unlock()
		if broken {
			d.cut()
			return written, io.ErrClosedPipe
		}
		if written == len(p) {
			return written, nil
		}
		waitFor(changed, limit)
	}
}

func (d *direction) read(p []byte, by func() time.Time) (int, error) {
	for {
		d.mu.Lock()
		limit := by()
		now := time.Now()
		switch {
		case d.gone:
			d.mu.Unlock()
			return 0, net.ErrClosed
		case isPast(limit):
			d.mu.Unlock()
			return 0, os.ErrDeadlineExceeded
		case len(d.chunks) > 0 && !d.chunks[0].at.After(now):
			n := copy(p, d.chunks[0].data)
			d.chunks[0].data = d.chunks[0].data[n:]
			if len(d.chunks[0].data) == 0 {
				d.chunks = d.chunks[1:]
			}
			d.buffered -= n
			d.changeLocked()
			d.mu.Unlock()
			return n, nil
		case len(d.chunks) == 0 && (d.broken || d.ended && !d.mute):
			d.mu.Unlock()
			return 0, io.EOF
		}
		if len(d.chunks) > 0 && (limit.IsZero() || d.chunks[0].at.Before(limit)) {
			limit = d.chunks[0].at
		}
		changed := d.changed
		d.mu.Unlock()
		waitFor(changed, limit)
	}
}

func isPast(t time.Time) bool { return !t.IsZero() && !t.After(time.Now()) }

func waitFor(changed <-chan struct{}, limit time.Time) {
	if limit.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

// simConn is one end of a simulated connection.
type simConn struct {
	in, out         *direction
	mu              sync.Mutex
	readBy, writeBy time.Time
}

var _ net.Conn = (*simConn)(nil)

// plan is how a simulated connection behaves.
type plan struct {
	up, down fault // from the client and to it
	latency  time.Duration
	capacity int
	mute     bool
}

// simPipe makes a connection.
func simPipe(p plan) (client, agent *simConn) {
	make := func(f fault) *direction {
		return &direction{changed: make(chan struct{}), capacity: max(1, p.capacity), latency: p.latency, fault: f, mute: p.mute}
	}
	up, down := make(p.up), make(p.down)
	cut := func() {
		up.set(func() { up.broken = true })
		down.set(func() { down.broken = true })
	}
	up.cut, down.cut = cut, cut
	return &simConn{in: down, out: up}, &simConn{in: up, out: down}
}

func (c *simConn) Read(p []byte) (int, error) {
	return c.in.read(p, func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.readBy })
}

func (c *simConn) Write(p []byte) (int, error) {
	return c.out.write(p, func() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.writeBy })
}

func (c *simConn) Close() error {
	c.in.set(func() { c.in.gone = true })
	c.out.set(func() { c.out.ended = true })
	return nil
}

func (c *simConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *simConn) SetReadDeadline(t time.Time) error {
	c.in.set(func() { c.mu.Lock(); c.readBy = t; c.mu.Unlock() })
	return nil
}

func (c *simConn) SetWriteDeadline(t time.Time) error {
	c.out.set(func() { c.mu.Lock(); c.writeBy = t; c.mu.Unlock() })
	return nil
}

type simAddr struct{}

func (simAddr) Network() string { return "sim" }
func (simAddr) String() string  { return "sim" }

func (c *simConn) LocalAddr() net.Addr  { return simAddr{} }
func (c *simConn) RemoteAddr() net.Addr { return simAddr{} }
