package front

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// listener marks the connections that come when there is no room for them.
// They are heard before they are refused: clients take an answer without a
// request, or a reset in place of an answer, for a broken server.
type listener struct {
	net.Listener
	budget   *Budget
	turnWait time.Duration
	once     sync.Once
	done     chan struct{} // closed by Close
}

func newListener(l net.Listener, budget *Budget, turnWait time.Duration) *listener {
	return &listener{Listener: l, budget: budget, turnWait: turnWait, done: make(chan struct{})}
}

// Accept leaves connections to the kernel's queue while too many are being
// turned away.
func (l *listener) Accept() (net.Conn, error) {
	l.budget.wait(l.done)
	conn, err := l.Listener.Accept()
	if err != nil || !l.budget.full() {
		return conn, err
	}
	turned := &turnedAway{Conn: conn, until: time.Now().Add(l.turnWait)}
	_ = turned.SetDeadline(time.Time{})
	return turned, nil
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// turnedAway is a connection whose request will be refused. No deadline of it
// is later than until.
type turnedAway struct {
	net.Conn
	until time.Time
}

func (c *turnedAway) capped(t time.Time) time.Time {
	if t.IsZero() || t.After(c.until) {
		return c.until
	}
	return t
}

func (c *turnedAway) SetDeadline(t time.Time) error      { return c.Conn.SetDeadline(c.capped(t)) }
func (c *turnedAway) SetReadDeadline(t time.Time) error  { return c.Conn.SetReadDeadline(c.capped(t)) }
func (c *turnedAway) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(c.capped(t)) }

// turnedKey is the key of what turnedAway connections have in their context.
type turnedKey struct{}

// connContext is for http.Server.ConnContext.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if _, ok := conn.(*turnedAway); ok {
		return context.WithValue(ctx, turnedKey{}, true)
	}
	return ctx
}
