package frame

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// CloseError is the peer's close frame with a code other than 1000 and 1001.
type CloseError struct {
	// Code is from RFC 6455, section 7.4.
	Code int
	// Reason is the peer's text: hostile until made printable.
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("websocket: closed by the peer with code %d", e.Code)
	}
	return fmt.Sprintf("websocket: closed by the peer with code %d: %s", e.Code, e.Reason)
}

// ErrSilent is the error of a connection whose peer answered no ping for
// three intervals.
var ErrSilent = errors.New("websocket: the peer is silent: connection lost")

// Conn is one end of a websocket connection whose handshake is done, as a
// stream of bytes: the payloads of all binary messages, whose borders mean
// nothing. It differs from a TCP connection in this:
//
//   - A close frame with code 1000, 1001 or none reads as io.EOF, with another
//     as *CloseError; the end of the connection without one reads as
//     io.ErrUnexpectedEOF, a reset as the network's error.
//   - A peer that answers no ping for three intervals reads as ErrSilent. A
//     Read that its own deadline ends starts the three intervals afresh.
//   - CloseWrite sends the close frame; the peer may, as Converge's ends and
//     relay do, go on sending until it is done and answer then. RFC 6455 does
//     not oblige it to (section 5.5.1).
//   - Close sends the close frame, for which a peer that takes nothing has
//     five seconds, and waits, a second at most, for the peer's, or if that
//     has come for its end, so that what was written last is not lost to a TCP
//     reset.
//   - A write that its deadline cut inside a frame has taken the whole chunk;
//     the rest of it goes out before the next one.
//   - Over TLS a write that its deadline cut is the last one: crypto/tls fails
//     all that follow. So there, and only there, two clauses of
//     nettest.TestConn are not met: FutureTimeout and ConcurrentMethods.
//   - A text frame, or anything that RFC 6455 forbids, fails the connection:
//     the peer gets the close code and Read a *ProtocolError.
//
// All methods may be called concurrently; Reads wait for each other, and so do
// Writes. Pings are answered while Read is being called.
type Conn struct {
	nc   net.Conn
	in   io.Reader
	opts Options
	send sender

	protocol string      // set by Dial
	answer   http.Header // the same

	rmu     sync.Mutex // held by Read
	parse   parser
	buf     []byte // readBuffer bytes, made by the first Read
	raw     []byte // bytes of buf that are not parsed yet
	segment []byte // parsed payload that is not read yet
	readErr error  // sticky
	late    error  // of a step behind payload, which is to be delivered first

	dmu      sync.Mutex
	user     time.Time // the deadline that the user set
	idleOver time.Time // when the peer's silence ends the connection

	wmu sync.Mutex // held by Write

	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

var _ net.Conn = (*Conn)(nil)

// Client makes the client's end of a connection over nc. in carries first
// what the handshake's reader already held and then nc's bytes; nil means nc.
func Client(nc net.Conn, in io.Reader, opts Options) *Conn { return newConn(nc, in, opts, false) }

// Server makes the server's end; see Client.
func Server(nc net.Conn, in io.Reader, opts Options) *Conn { return newConn(nc, in, opts, true) }

func newConn(nc net.Conn, in io.Reader, opts Options, server bool) *Conn {
	if in == nil {
		in = nc
	}
	c := &Conn{
		nc: nc, in: in, opts: opts,
		parse:  parser{wantMask: server, maxFrame: opts.maxFrame()},
		closed: make(chan struct{}),
	}
	c.send.init(nc, !server)
	c.send.keepAlive(opts.ping())
	return c
}

// Protocol returns the subprotocol that Dial's handshake agreed on, "" for
// none.
func (c *Conn) Protocol() string { return c.protocol }

// Answer returns the header of the answer to Dial's handshake, which is not to
// be changed; nil for a connection that Dial has not made.
func (c *Conn) Answer() http.Header { return c.answer }

// Read reads payload bytes. See Conn for its errors.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.segment) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.segment)
	c.segment = c.segment[n:]
	return n, nil
}

// fill parses until there is payload or an error. rmu is held.
func (c *Conn) fill() error {
	select {
	case <-c.closed:
		return net.ErrClosed
	default:
	}
	if c.late != nil {
		err := c.late
		c.late = nil
		return c.fail(err)
	}
	if c.readErr != nil {
		return c.readErr
	}
	if len(c.raw) == 0 {
		if c.buf == nil {
			c.buf = make([]byte, readBuffer)
		}
		n, err := c.readRaw()
		c.raw = c.buf[:n]
		if n == 0 {
			return err
		}
	}
	payload, err := c.step()
	c.segment = payload
	return c.fail(err)
}

// step parses a part of raw. Its error ends the reading and is to be handed to
// fail. rmu is held.
func (c *Conn) step() (payload []byte, err error) {
	n, ev, err := c.parse.next(c.raw)
	c.raw = c.raw[n:]
	if err != nil {
		return nil, err
	}
	switch ev.op {
	case opBinary:
		return ev.payload, nil
	case opPing:
		c.send.answer(ev.payload)
	case opClose:
		code, reason, err := parseClose(ev.payload)
		switch {
		case err != nil:
			return nil, err
		case code == CloseNormal || code == CloseGoingAway || code == CloseNoStatus:
			return nil, io.EOF
		}
		return nil, &CloseError{Code: code, Reason: reason}
	}
	return nil, nil
}

// readRaw reads from the network under the earlier of the user's deadline and
// the silence limit. A timeout of the user's is not sticky.
func (c *Conn) readRaw() (int, error) {
	for {
		c.dmu.Lock()
		if limit := c.opts.silence(); limit > 0 {
			c.idleOver = time.Now().Add(limit)
		}
		_ = c.nc.SetReadDeadline(earlier(c.user, c.idleOver))
		c.dmu.Unlock()
		select {
		case <-c.closed: // Close has set a deadline that must not be undone
			return 0, net.ErrClosed
		default:
		}
		n, err := c.in.Read(c.buf)
		if n > 0 {
			return n, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.dmu.Lock()
			now := time.Now()
			userOver := !c.user.IsZero() && !c.user.After(now)
			silent := !c.idleOver.IsZero() && !c.idleOver.After(now)
			c.dmu.Unlock()
			switch {
			case c.isClosed():
				return 0, net.ErrClosed
			case userOver:
				return 0, err
			case silent:
				c.readErr = ErrSilent
				return 0, ErrSilent
			}
			continue // the deadline was moved meanwhile
		}
		switch {
		case c.isClosed():
			err = net.ErrClosed
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		c.readErr = err
		return 0, err
	}
}

// earlier returns the earlier of two deadlines, of which a zero one is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// fail makes an error of step, if it is one, sticky, and tells the peer of its
// violation. rmu is held.
func (c *Conn) fail(err error) error {
	if err == nil {
		return nil
	}
	c.readErr = err
	var protocol *ProtocolError
	if errors.As(err, &protocol) {
		c.send.endBy(time.Now().Add(closeWrite)) // Read must not wait for long
		_ = c.send.close(protocol.Code, protocol.Text)
	}
	return err
}

// Write writes p in frames of at most 129 KiB, header included.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	if len(p) == 0 {
		return 0, nil
	}
	var buf *[]byte
	if len(p) <= bufferSize-maxHeader {
		buf = getBuffer()
		defer putBuffer(buf)
	} else {
		buf = getPumpBuffer(false)
		defer putPumpBuffer(buf)
	}
	written := 0
	for written < len(p) {
		// Masking is done on a copy: p is the caller's.
		n := copy((*buf)[maxHeader:], p[written:])
		taken, err := c.send.data((*buf)[:maxHeader+n], maxHeader)
		if taken {
			written += n
		}
		if err != nil {
			if c.isClosed() {
				err = net.ErrClosed
			}
			return written, err
		}
	}
	return written, nil
}

// CloseWrite says that no more is written, by a close frame with code 1000.
// Like a Write it may have to wait for the network, and has the deadline of
// one; a call that the deadline ended may be tried again.
func (c *Conn) CloseWrite() error { return c.send.close(CloseNormal, "") }

// Close is CloseWith(CloseNormal, "").
func (c *Conn) Close() error { return c.CloseWith(CloseNormal, "") }

// CloseWith sends a close frame with the code and the reason (123 bytes at
// most), waits up to a second for the peer's and closes the connection. Reads
// and Writes under way end with net.ErrClosed. Only the first call does
// anything; the others return what it returned.
func (c *Conn) CloseWith(code int, reason string) error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.dmu.Lock()
		_ = c.nc.SetReadDeadline(time.Unix(1, 0)) // wakes a Read
		c.dmu.Unlock()
		c.send.endBy(time.Now().Add(closeWrite))
		err := c.send.close(code, reason)
		c.rmu.Lock()
		if c.late != nil {
			c.readErr, c.late = c.late, nil
		}
		if err == nil {
			c.drain()
		}
		c.buf, c.raw, c.segment = nil, nil, nil
		c.rmu.Unlock()
		c.closeErr = c.nc.Close()
		c.send.stop()
	})
	return c.closeErr
}

// drain reads what still comes: until the peer's close frame or, after its
// last words, until its end. Unread input would make a plain close throw away
// what is still on its way to the peer. rmu is held.
func (c *Conn) drain() {
	ended := c.readErr != nil // nothing more is looked at
	if ended && !c.hadLastWords() {
		return
	}
	half, ok := c.nc.(interface{ CloseWrite() error })
	switch {
	case ok:
		_ = half.CloseWrite()
	case ended:
		return // the peer would not see that its end is waited for
	}
	if c.buf == nil {
		c.buf = make([]byte, readBuffer)
	}
	_ = c.nc.SetReadDeadline(time.Now().Add(closeWait))
	for {
		for !ended && len(c.raw) > 0 {
			n, ev, err := c.parse.next(c.raw)
			if err != nil || ev.op == opClose {
				return
			}
			c.raw = c.raw[n:]
		}
		n, err := c.in.Read(c.buf)
		if err != nil {
			return
		}
		c.raw = c.buf[:n]
	}
}

// hadLastWords tells a peer that ended the conversation from a connection
// that broke. rmu is held.
func (c *Conn) hadLastWords() bool {
	return c.readErr == io.EOF || errors.As(c.readErr, new(*CloseError)) || errors.As(c.readErr, new(*ProtocolError))
}

func (c *Conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// LocalAddr returns the address of the connection underneath.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the address of the connection underneath.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// SetDeadline sets both deadlines; see net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read. A Read that it ends may be tried again.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.dmu.Lock()
	defer c.dmu.Unlock()
	if c.isClosed() { // Close wakes a Read with a deadline that must stand
		return net.ErrClosed
	}
	c.user = t
	return c.nc.SetReadDeadline(earlier(t, c.idleOver))
}

// SetWriteDeadline bounds Write and CloseWrite.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.isClosed() {
		return net.ErrClosed
	}
	c.send.setDeadline(t)
	return nil
}
