package link

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"time"

	"example.com/converge/pkg/rendezvous"
)

// Limits of parking.
const (
	// firstPark and nextPark bound the random wait before a connection is
	// parked, after a registration and after a client: a thousand agents come
	// back to a restarted server at once, clients come one after the other.
	firstPark, nextPark = 2 * time.Second, 100 * time.Millisecond
	// longestParkPause is the mean pause after many connections that ended
	// without a client.
	longestParkPause = time.Minute
)

// park keeps one data connection parked with the server, which gives it to the
// next client without asking, until ctx ends. What goes wrong with it is worth
// a line only for who looks closely: clients are dialled back for all the same.
func (l *Link) park(ctx context.Context, c *control) {
	pause := newBackoff(firstPause, longestParkPause)
	wait := rand.N(l.firstPark)
	for {
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		start := time.Now()
		err := l.parkOnce(ctx, c)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			pause = newBackoff(firstPause, longestParkPause)
			wait = rand.N(l.nextPark)
		default:
			l.log.Debug("cannot keep a connection parked", "err", err)
			pause.held(start, false)
			wait = pause.next()
		}
	}
}

// parkOnce parks a connection and returns nil when a client has taken it.
func (l *Link) parkOnce(ctx context.Context, c *control) error {
	select {
	case <-c.parking: // leave that came too late
	default:
	}
	c.send(ctx, l.sendWait, rendezvous.Message{Park: &rendezvous.Park{}})
	timer := time.NewTimer(l.dialWait)
	defer timer.Stop()
	var leave *rendezvous.Parking
	select {
	case leave = <-c.parking:
	case <-timer.C:
		return errors.New("the server gave no leave to park")
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := l.dialBack(ctx, leave.Client, leave.Token)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	m, err := rendezvous.Receive(conn)
	if err == nil && m.Dial == nil {
		err = errors.New("the server said something else than that a client is there")
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return err
	}
	l.accept(conn, m.Dial)
	return nil
}

// accept serves a client that has come on a parked connection, unless there
// are too many.
func (l *Link) accept(conn net.Conn, d *rendezvous.Dial) {
	answer := rendezvous.Message{Accepted: &rendezvous.Accepted{Client: d.Client}}
	client, exit, ok := l.enter(d)
	if !ok {
		answer = rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: fullText}}
	}
	err := conn.SetWriteDeadline(time.Now().Add(l.sendWait))
	if err == nil {
		err = rendezvous.Send(conn, answer)
	}
	if err == nil {
		err = conn.SetWriteDeadline(time.Time{})
	}
	if !ok || err != nil {
		if ok {
			exit()
		}
		// Closing may wait for the server a second.
		l.clients.Go(func() { _ = conn.Close() })
		return
	}
	l.clients.Go(func() {
		defer exit()
		l.cfg.Serve(conn, client)
	})
}
