// Package wsconn makes a net.Conn of a websocket (RFC 6455): a byte stream
// over binary messages, with the deadlines, the addresses and the errors that
// users of a net.Conn expect. It is the only package that imports
// nhooyr.io/websocket. It knows neither ids nor authentication, logs nothing,
// and leaves it to its callers who may connect.
//
// # Layers
//
//	Read  ← reader goroutine ← nhooyr ← link ← TCP or TLS
//	Write →                    nhooyr → link → TCP or TLS
//
// An operation of nhooyr's that is interrupted ends the connection, so none
// ever is: a reader goroutine that is always at work serves Read, and takes
// pings and close frames in passing; and nhooyr writes into the buffer of a
// link, which never makes it wait, while Write waits for that buffer to drain.
// Deadlines end only these waits of ours.
package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"nhooyr.io/websocket"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// MaxFrame is the largest message that Write makes, in bytes; what is longer
// becomes several messages.
const MaxFrame = 32 << 10

// Defaults of Options.
const (
	DefaultKeepAlive = 20 * time.Second
	DefaultMissed    = 3
)

// ErrKeepAlive ends a connection whose peer answered no ping for so long that
// it counts as dead.
var ErrKeepAlive = errors.New("the websocket peer no longer answers pings: the network or the peer is down")

// Options say how a connection behaves. The zero value is useful.
type Options struct {
	// MaxMessage limits a message from the peer, in bytes; one that is longer
	// ends the connection with close code 1009. What fits within the limit
	// may have been read by then. 0 means unlimited, which costs no memory:
	// messages are a stream and never held as a whole.
	MaxMessage int64
	// KeepAlive is the mean time between pings, each 25 % earlier or later at
	// most; 0 means DefaultKeepAlive, and a negative one turns pings off.
	KeepAlive time.Duration
	// Missed is how many times in a row the time for a ping may come without
	// a byte from the peer since the last one, until the connection ends with
	// ErrKeepAlive; 0 means DefaultMissed. Time during which Read leaves data
	// lying does not count, for the answer may lie behind it. A peer that
	// stops reading for long must send pings of its own, as both ends of this
	// package do.
	Missed int
	// Subprotocols are those to offer, or to choose from, in order of
	// preference. What was agreed on is Conn.Subprotocol.
	Subprotocols []string
}

// withDefaults fills the zero values in.
func (o Options) withDefaults() Options {
	if o.KeepAlive == 0 {
		o.KeepAlive = DefaultKeepAlive
	}
	if o.Missed <= 0 {
		o.Missed = DefaultMissed
	}
	return o
}

// Conn is a websocket as a net.Conn. Its methods may be called concurrently.
// It passes golang.org/x/net/nettest.TestConn. It must be closed.
//
// Each Write of at most MaxFrame bytes is one binary message; the bounds of
// messages mean nothing to Read. There is no half-close, for RFC 6455 has
// none: Close ends both directions.
//
// Read returns io.EOF after the peer closed with 1000 or 1001, *CloseError
// after any other close frame, io.ErrUnexpectedEOF where the connection ended
// without one, ErrKeepAlive after missed pings, and an error that wraps
// os.ErrDeadlineExceeded at a deadline. A text message, a message over
// Options.MaxMessage and a violation of the protocol end the connection with
// close codes 1003, 1009 and 1002. What arrived before the end is read first.
//
// Write returns when the kernel has its bytes, and reports what it could not
// send. One that a deadline ends leaves the connection whole: its count says
// how many bytes will still be sent. Each direction holds at most about
// 100 KiB, none while it is idle.
type Conn struct {
	ws   *websocket.Conn
	link *link
	opts Options

	subprotocol   string
	local, remote net.Addr

	readDeadline, writeDeadline deadline

	readMu sync.Mutex // held by Read
	rest   []byte     // of chunk, not yet read
	chunk  *buffer    // what the reader handed over last

	writeMu sync.Mutex // held by Write, so that writes do not mix

	chunks   chan *buffer // from the reader to Read
	ended    chan struct{}
	endOnce  sync.Once
	readErr  error // why the reader ended; set before ended is closed
	readDone chan struct{}

	closing   chan struct{} // closed by the first CloseWith
	closeOnce sync.Once

	stalled atomic.Bool // the reader waits for Read
	alive   keepAlive
}

var _ net.Conn = (*Conn)(nil)

// newConn starts the goroutines of a connection. l must be what ws reads and
// writes.
func newConn(ws *websocket.Conn, l *link, opts Options) *Conn {
	ws.SetReadLimit(-1) // the reader counts for itself
	c := &Conn{
		ws: ws, link: l, opts: opts.withDefaults(),
		subprotocol: ws.Subprotocol(),
		local:       l.raw.LocalAddr(),
		remote:      l.raw.RemoteAddr(),
		chunks:      make(chan *buffer),
		ended:       make(chan struct{}),
		readDone:    make(chan struct{}),
		closing:     make(chan struct{}),
	}
	go c.readLoop()
	c.startKeepAlive()
	return c
}

// Subprotocol returns the subprotocol that both sides agreed on, or "".
func (c *Conn) Subprotocol() string { return c.subprotocol }

// LocalAddr returns the address of this end of the TCP connection.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end of the TCP connection,
// which is a proxy's where there is one in between.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines, for pending calls too; see net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of Read; the zero time means none. The
// connection survives a Read that it ends, and no data is lost.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.setDeadline(&c.readDeadline, t)
}

// SetWriteDeadline sets the deadline of Write; the zero time means none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.setDeadline(&c.writeDeadline, t)
}

func (c *Conn) setDeadline(d *deadline, t time.Time) error {
	if isDone(c.closing) {
		return c.opError("set", net.ErrClosed)
	}
	d.set(t)
	if isDone(c.closing) { // closed meanwhile: leave no timer behind
		d.set(time.Time{})
	}
	return nil
}

// Read reads what the peer sent, as soon as there is any of it.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	expired := c.readDeadline.expired()
	switch {
	case isDone(c.closing):
		return 0, c.opError("read", net.ErrClosed)
	case isDone(expired):
		return 0, c.opError("read", os.ErrDeadlineExceeded)
	case len(p) == 0:
		return 0, nil
	}
	if len(c.rest) == 0 {
		select {
		case c.chunk = <-c.chunks:
			c.rest = c.chunk.bytes
		case <-c.ended:
			return 0, c.readErr
		case <-expired:
			return 0, c.opError("read", os.ErrDeadlineExceeded)
		case <-c.closing:
			return 0, c.opError("read", net.ErrClosed)
		}
	}
	n := copy(p, c.rest)
	if c.rest = c.rest[n:]; len(c.rest) == 0 {
		c.chunk.free()
		c.chunk, c.rest = nil, nil
	}
	return n, nil
}

// Write sends p.
func (c *Conn) Write(p []byte) (int, error) {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	n := 0
	for n < len(p) {
		if err := c.waitSent(highWater); err != nil {
			return n, err
		}
		piece := p[n:min(len(p), n+MaxFrame)]
		// It waits for nothing: the link has room.
		if err := c.ws.Write(context.Background(), websocket.MessageBinary, piece); err != nil {
			return n, c.opError("write", c.writeError(err))
		}
		n += len(piece)
	}
	if n == 0 {
		return 0, c.waitSent(0)
	}
	err := c.link.flush(c.writeDeadline.expired(), c.closing)
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return n, nil // all is taken over, as a kernel's buffer would
	}
	return n, c.opError("write", c.writeError(err))
}

// waitSent waits until at most limit bytes are unsent, the deadline passes or
// the connection ends.
func (c *Conn) waitSent(limit int) error {
	expired := c.writeDeadline.expired()
	var err error
	switch {
	case isDone(c.closing):
		err = net.ErrClosed
	case isDone(expired):
		err = os.ErrDeadlineExceeded
	case isDone(c.ended):
		err = io.ErrClosedPipe
	default:
		err = c.link.wait(limit, expired, c.closing)
	}
	if err != nil {
		return c.opError("write", c.writeError(err))
	}
	return nil
}

// opError is what package net's connections return: a net.Error, whose
// Timeout is true at a deadline.
func (c *Conn) opError(op string, err error) error {
	if already, ok := err.(*net.OpError); ok {
		return already
	}
	return &net.OpError{Op: op, Net: "websocket", Source: c.local, Addr: c.remote, Err: err}
}

// writeError explains why nothing can be sent by why the connection ended,
// where it has: that is the cause, and the failed write its consequence.
// net.ErrClosed is left to mean that this end was closed.
func (c *Conn) writeError(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case isDone(c.closing):
		return net.ErrClosed
	case isDone(c.ended) && c.readErr != io.EOF:
		return c.readErr
	case isDone(c.ended), errors.Is(err, net.ErrClosed):
		return fmt.Errorf("the peer has closed it: %w", io.ErrClosedPipe)
	}
	return err
}

// isDone reports whether a channel that is only ever closed has been.
func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
