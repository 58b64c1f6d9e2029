package wsconn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"nhooyr.io/websocket"

	"example.com/converge/pkg/transport"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// end records why the connection can no longer be read; the first reason
// stays.
func (c *Conn) end(err error) {
	c.endOnce.Do(func() {
		c.readErr = err
		close(c.ended)
	})
}

// readLoop is the reader. It lives until the connection ends, and then takes
// nhooyr's part of it down.
func (c *Conn) readLoop() {
	defer close(c.readDone)
	for {
		kind, message, err := c.ws.Reader(context.Background())
		if err == nil && kind != websocket.MessageBinary {
			c.end(errors.New("the peer sent a text message where only binary ones are understood"))
			c.goodbye(UnsupportedData, "only binary messages are understood")
			return
		}
		if err == nil {
			err = c.readMessage(message)
		}
		switch {
		case errors.Is(err, errTooBig):
			c.end(fmt.Errorf("the peer sent a message of more than %d bytes", c.opts.MaxMessage))
			c.goodbye(MessageTooBig, fmt.Sprintf("a message may hold %d bytes", c.opts.MaxMessage))
			return
		case err != nil:
			c.end(c.explain(err))
			_ = c.ws.CloseNow() // what there is to say is in readErr
			return
		}
	}
}

// errTooBig is a message over Options.MaxMessage.
var errTooBig = errors.New("message too big")

// readMessage hands one message over to Read, piece by piece.
func (c *Conn) readMessage(message io.Reader) error {
	for total := int64(0); ; {
		piece := newBuffer()
		into := piece.bytes[:MaxFrame]
		if limit := c.opts.MaxMessage; limit > 0 {
			// One byte more than allowed shows that there is more.
			into = into[:min(int64(len(into)), limit-total+1)]
		}
		n, err := message.Read(into)
		if err != nil {
			n = 0 // of a frame that broke off, nhooyr gives bytes still masked
		}
		total += int64(n)
		if c.opts.MaxMessage > 0 && total > c.opts.MaxMessage {
			n, err = n-1, errTooBig
		}
		piece.bytes = into[:n]
		c.handOver(piece)
		if err == io.EOF {
			// The end of the message, or of the connection: nhooyr does not
			// tell them apart here, but does when asked for the next message.
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// handOver waits until Read takes the piece, or nobody will any more.
func (c *Conn) handOver(piece *buffer) {
	if len(piece.bytes) > 0 {
		c.stalled.Store(true)
		select {
		case c.chunks <- piece:
			piece = nil
		case <-c.closing:
		}
		c.link.received.Add(1) // the wait was ours, not the peer's
		c.stalled.Store(false)
	}
	if piece != nil {
		piece.free()
	}
}

// explain makes the error of Read from nhooyr's.
func (c *Conn) explain(err error) error {
	var frame websocket.CloseError
	if errors.As(err, &frame) {
		switch frame.Code {
		case websocket.StatusNormalClosure, websocket.StatusGoingAway:
			return io.EOF
		}
		return &CloseError{Code: int(frame.Code), Reason: transport.Printable(frame.Reason)}
	}
	switch cause := c.link.readError(); {
	case isDone(c.closing):
		return net.ErrClosed
	case cause == nil:
		return fmt.Errorf("the peer violates the websocket protocol: %s", transport.Printable(err.Error()))
	case errors.Is(cause, io.EOF):
		return fmt.Errorf("the connection ended without a close frame: %w", io.ErrUnexpectedEOF)
	default:
		return fmt.Errorf("the connection broke: %w", cause)
	}
}
