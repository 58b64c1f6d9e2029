package wsconn

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"nhooyr.io/websocket"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// Close codes for CloseWith (RFC 6455 §7.4.1 and IANA's registry).
const (
	NormalClosure   = 1000
	GoingAway       = 1001
	ProtocolError   = 1002
	UnsupportedData = 1003
	PolicyViolation = 1008
	MessageTooBig   = 1009
	InternalError   = 1011
	ServiceRestart  = 1012
	TryAgainLater   = 1013
)

// noStatus is what stands for a close frame without a code.
const noStatus = 1005

// maxReason is the length of the longest reason, in bytes: a control frame
// holds 125, of which the code takes two (RFC 6455 §5.5).
const maxReason = 123

// CloseError is a close frame of the peer with a code other than 1000 and
// 1001.
type CloseError struct {
	// Code is the close code; 1005 means that the frame had none.
	Code int
	// Reason is the peer's text, made printable; it may be empty.
	Reason string
}

// Error gives the peer's own sentence where it sent one.
func (e *CloseError) Error() string {
	switch {
	case e.Reason != "":
		return fmt.Sprintf("the peer closed the websocket: %s (close code %d)", e.Reason, e.Code)
	case e.Code == noStatus:
		return "the peer closed the websocket without giving a close code"
	}
	return fmt.Sprintf("the peer closed the websocket with close code %d", e.Code)
}

// Close is CloseWith(NormalClosure, "").
func (c *Conn) Close() error { return c.CloseWith(NormalClosure, "") }

// CloseWith ends the connection: pending calls return net.ErrClosed, what was
// written is sent, then a close frame with code and reason, which is cut to
// 123 bytes. It waits for the peer's close frame and for its own goroutines,
// one second at most, and reports nothing about them: who must know that the
// peer has everything needs an answer of the peer's. Only the first call of
// Close or CloseWith does something; others wait for it and return nil. A code
// that may not be sent (RFC 6455 §7.4) is an error, and 1011 is sent instead.
func (c *Conn) CloseWith(code int, reason string) error {
	var err error
	if !sendable(code) {
		err = fmt.Errorf("closing a websocket: %d is not a close code that may be sent", code)
		code = InternalError
	}
	c.closeOnce.Do(func() {
		close(c.closing)
		c.readDeadline.set(time.Time{})
		c.writeDeadline.set(time.Time{})
		c.alive.stop()
		abort := time.AfterFunc(closeTime, c.link.abort)
		defer abort.Stop()
		c.goodbye(code, reason)
		<-c.readDone
		<-c.link.done
		c.alive.running.Wait()
	})
	return err
}

// goodbye performs the close handshake, for at most closeTime. The reader
// calls it, or goes on reading meanwhile.
func (c *Conn) goodbye(code int, reason string) {
	abort := time.AfterFunc(closeTime, c.link.abort)
	defer abort.Stop()
	// Its error says that the peer was faster, or gone.
	_ = c.ws.Close(websocket.StatusCode(code), cut(reason))
}

// sendable reports whether a close frame may hold code.
func sendable(code int) bool {
	switch code {
	case 1004, noStatus, 1006:
		return false
	}
	return 1000 <= code && code <= 1014 || 3000 <= code && code <= 4999
}

// cut shortens a reason to what a close frame holds, in whole characters.
func cut(reason string) string {
	reason = strings.ToValidUTF8(reason, "?")
	if len(reason) <= maxReason {
		return reason
	}
	end := maxReason
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
