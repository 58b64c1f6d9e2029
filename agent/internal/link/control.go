package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

const fullText = "too many clients are connected to the agent"

// control is the control connection of one registration. Answers go to the
// one that the question came from: a restarted server counts its clients anew.
type control struct {
	conn    *wsconn.Conn
	version int           // of the protocol, as agreed
	renew   time.Duration // of the ticket; 0 if there is none
	parking chan *rendezvous.Parking
	mu      sync.Mutex // serialises messages
}

// send writes a message, unless ctx has ended. A server that does not take it
// in time is as good as gone: the connection is closed.
func (c *control) send(ctx context.Context, wait time.Duration, m rendezvous.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := time.Now().Add(wait)
	err := c.conn.SetWriteDeadline(limit)
	if ctx.Err() != nil { // asked after that deadline is set: goodbye sets another
		return
	}
	if err == nil {
		err = rendezvous.Send(c.conn, m)
	}
	if err != nil || !time.Now().Before(limit) {
		_ = c.conn.Close()
	}
}

// goodbye frees the id and closes, once the agent's context has ended.
func (c *control) goodbye(wait time.Duration) {
	// What is being sent has no longer than that either.
	_ = c.conn.SetWriteDeadline(time.Now().Add(wait))
	c.send(context.Background(), wait, rendezvous.Message{Bye: &rendezvous.Bye{Text: "the agent has ended"}})
	_ = c.conn.Close()
}

// listen handles what the server says until the connection ends.
func (l *Link) listen(ctx context.Context, c *control) error {
	for {
		m, err := rendezvous.Receive(c.conn)
		switch {
		case err != nil:
			return err
		case m.Refused != nil:
			return refusal(m.Refused)
		case m.Bye != nil:
			return errors.New("the server said goodbye")
		case m.Dial != nil:
			l.answer(ctx, c, m.Dial)
		case m.Ticket != nil:
			l.ticket = m.Ticket.Value
		case m.Parking != nil:
			select {
			case c.parking <- m.Parking:
			default: // more than was asked for
			}
		}
	}
}

// renew asks for a newer ticket time and again, until ctx ends: earlier than
// the server wants it, at random, for a thousand agents have registered at once
// where it was restarted.
func (l *Link) renew(ctx context.Context, c *control) {
	for {
		timer := time.NewTimer(c.renew/2 + rand.N(c.renew/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		c.send(ctx, l.sendWait, rendezvous.Message{Renew: &rendezvous.Renew{}})
	}
}

// answer dials back for a client, unless there are too many.
func (l *Link) answer(ctx context.Context, c *control, d *rendezvous.Dial) {
	fail := func(text string) {
		c.send(ctx, l.sendWait, rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: text}})
	}
	client, exit, ok := l.enter(d)
	if !ok {
		fail(fullText)
		return
	}
	l.clients.Go(func() {
		defer exit()
		conn, err := l.dialBack(ctx, d.Client, d.Token)
		if err != nil {
			l.log.Warn("cannot dial back for a client", "client", d.Client, "session", d.Session, "err", err)
			fail("the agent could not connect back")
			return
		}
		l.cfg.Serve(conn, client)
	})
}

// dialBack opens the data connection that the server gave a token for.
func (l *Link) dialBack(ctx context.Context, client uint64, token string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.dialWait)
	defer cancel()
	header := l.cfg.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set(rendezvous.ClientHeader, strconv.FormatUint(client, 10))
	header.Set(rendezvous.TokenHeader, token)
	return frame.Dial(ctx, l.cfg.Server.DataURL(), l.cfg.Transport, header, frame.Options{Ping: l.cfg.KeepAlive})
}
