package frame

import (
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// Handler is told what happens on a Port, in calls that never overlap.
type Handler interface {
	// Payload gets what the peer sent; p is valid during the call.
	Payload(p []byte)
	// Ended is called once, when nothing more comes, with an error as Conn's
	// Read returns it, or net.ErrClosed after CloseWith and Abort.
	Ended(err error)
	// Closed is the last call, when the connection is closed.
	Closed()
}

// Port is the server's end of a websocket on which little happens: with a
// Poller it has neither a goroutine nor a buffer while nothing comes. Its
// methods may be called concurrently.
type Port struct {
	side side
	h    Handler
	err  error // from ended to stopped
	over bool  // ended or claimed; side.handling is held
}

// NewPort makes a port, which owns the connection. Start it.
func NewPort(peer Peer, opts Options) *Port {
	p := new(Port)
	p.side.init(peer, opts)
	p.side.quiet = true
	p.side.cold.Store(true)
	p.side.sink = (*portSink)(p)
	return p
}

// Start begins the reading. Call it once.
func (p *Port) Start(h Handler) {
	p.h = h
	p.side.start()
}

// Send writes b, a few KiB, as one message and takes no longer than limit.
// After an error the port is of no use: Abort it. Calls must not overlap.
func (p *Port) Send(b []byte, limit time.Duration) error {
	buf := make([]byte, maxHeader+len(b))
	copy(buf[maxHeader:], b)
	p.side.send.setDeadline(time.Now().Add(limit))
	_, err := p.side.send.data(buf, maxHeader)
	return err
}

// CloseWith sends a close frame and closes the connection when the peer has
// answered, or in a second. It waits for the write only.
func (p *Port) CloseWith(code int, reason string) {
	p.side.within(closeWait)
	_ = p.side.send.close(code, reason)
}

// Shutdown closes with 1012.
func (p *Port) Shutdown() { p.side.restart() }

// Abort ends the connection without a word.
func (p *Port) Abort() { p.side.within(0) }

// portSink is a Port as a sink.
type portSink Port

func (p *portSink) payload(buf []byte, from int) bool {
	p.h.Payload(buf[from:])
	return true
}

func (p *portSink) ended(err error) {
	p.over = true
	var frame *closed
	var protocol *ProtocolError
	switch {
	case errors.As(err, &frame):
		switch frame.code {
		case CloseNormal, CloseGoingAway, CloseNoStatus:
			err = io.EOF
		default:
			err = &CloseError{Code: frame.code, Reason: frame.reason}
		}
	case errors.As(err, &protocol):
		(*Port)(p).CloseWith(protocol.Code, protocol.Text)
	case errors.Is(err, os.ErrDeadlineExceeded):
		if err = net.ErrClosed; !p.side.ending() {
			err = ErrSilent
		}
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	p.err = err
	p.h.Ended(err)
}

func (p *portSink) stopped() {
	p.side.finish()
	p.h.Closed()
}
