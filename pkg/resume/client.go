package resume

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"example.com/converge/pkg/pin"
)

// Config is what a client's end needs.
type Config struct {
	// Dial makes a connection to the agent, or fails; it is called for the
	// first one and whenever one was lost, never concurrently. What it
	// resolves it must resolve anew each time. ctx bounds the dialling alone.
	Dial func(ctx context.Context) (net.Conn, error)
	// Permanent reports whether an error of Dial will be the same at the next
	// attempt, so that the stream ends with it. nil: none will.
	Permanent func(error) bool
	// Pin is the agent's host key. Without one whoever moves the bytes can
	// take the agent's place in this stream; SSH in it still notices.
	Pin pin.Pin
	// Window is how long the stream waits for a new connection; 0 is
	// DefaultWindow. The agent's is the limit where that is shorter.
	Window time.Duration
	// Buffer bounds what each direction holds, in bytes; 0 is DefaultBuffer.
	Buffer int
	// Ping is the mean interval of pings; 0 is DefaultPing.
	Ping time.Duration
	// Linger is how long Close waits; 0 is DefaultLinger.
	Linger time.Duration
	// Notice, if not nil, is called when the stream has stalled for a second,
	// and when it is back after that. Never concurrently, and not after Close
	// has returned. It must not call the stream's methods that wait.
	Notice func(Notice)
}

// client keeps a Stream connected.
type client struct {
	cfg      Config
	window   time.Duration
	s        *Stream
	lost     chan struct{}      // one element: look at the stream
	end      context.CancelFunc // of what maintain does
	routines sync.WaitGroup

	mu       sync.Mutex // held while Notice is called
	said     State
	silenced bool
}

// Client dials the agent and opens a stream. ctx bounds that and not the
// stream. The first connection is not tried again: the error says why there is
// none.
func Client(ctx context.Context, cfg Config) (*Stream, error) {
	if err := limits(&cfg.Window, &cfg.Ping, &cfg.Buffer); err != nil {
		return nil, err
	}
	if cfg.Linger == 0 {
		cfg.Linger = DefaultLinger
	}
	conn, err := cfg.Dial(ctx)
	if err != nil {
		return nil, err
	}
	s, err := greet(ctx, conn, cfg.Buffer, cfg.Pin)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("cannot open a resumable stream: %w", err)
	}
	c := &client{cfg: cfg, window: min(cfg.Window, s.window), lost: make(chan struct{}, 1)}
	c.s = newStream(c, cfg.Ping, s.secret, s.token, newCore(cfg.Buffer, s.peerBuffer), true)
	ctx, c.end = context.WithCancel(context.Background())
	c.s.mu.Lock()
	_ = c.s.attachLocked(conn, s.client, s.agent, 0, time.Time{}) // it cannot fail at 0
	c.s.mu.Unlock()
	c.routines.Go(func() { c.maintain(ctx) })
	return c.s, nil
}

func (c *client) changed(s *Stream) {
	signal(c.lost)
	select {
	case <-s.done:
		c.end()
	default:
	}
}

func (c *client) spawn(f func()) { c.routines.Go(f) }

func (c *client) closing(s *Stream) {
	timer := time.NewTimer(c.cfg.Linger)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		s.fail(ErrUnsent)
	}
	c.routines.Wait()
	c.mu.Lock() // until a Notice under way has returned
	defer c.mu.Unlock()
	c.silenced = true
}

// maintain makes a new connection whenever one was lost.
func (c *client) maintain(ctx context.Context) {
	defer c.end()
	pause := backoff{}
	for {
		select {
		case <-c.lost:
		case <-c.s.done:
			return
		}
		c.s.mu.Lock()
		detached, why, since := c.s.link == nil && !c.s.over, c.s.lost, c.s.lostAt
		if c.s.progress {
			pause = backoff{} // else somebody lets us in and does nothing more
		}
		c.s.mu.Unlock()
		if detached {
			c.reconnect(ctx, &pause, Notice{Stalled, why, since, c.window})
		}
	}
}

// reconnect tries until the stream has a connection or is over.
func (c *client) reconnect(ctx context.Context, pause *backoff, n Notice) {
	ctx, cancel := context.WithTimeout(ctx, c.window)
	defer cancel()
	news := time.AfterFunc(noticeAfter, func() { c.say(n) })
	defer news.Stop()
	last := n.Err
	for {
		wait := time.NewTimer(pause.next())
		select {
		case <-wait.C:
		case <-ctx.Done():
		}
		wait.Stop()
		if ctx.Err() == nil {
			err := c.attempt(ctx)
			switch {
			case err == nil:
				news.Stop()
				n := n
				n.State = Flowing
				c.say(n)
				return
			case c.final(err):
				c.s.fail(fmt.Errorf("the connection was lost and cannot be made again: %w", err))
				return
			case ctx.Err() == nil: // else it says only that time is up
				last = err
			}
		}
		if ctx.Err() != nil {
			c.s.fail(expired(c.window, last)) // or it is over
			return
		}
	}
}

// final reports whether an attempt's error ends the stream.
func (c *client) final(err error) bool {
	for _, end := range []error{ErrGone, ErrVersion, ErrProtocol} {
		if errors.Is(err, end) {
			return true
		}
	}
	return c.cfg.Permanent != nil && c.cfg.Permanent(err)
}

// attempt makes one connection and goes on with the stream on it.
func (c *client) attempt(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptWait)
	defer cancel()
	conn, err := c.cfg.Dial(ctx)
	if err != nil {
		return err
	}
	err = c.goOn(ctx, conn)
	if err != nil {
		c.routines.Go(func() { _ = conn.Close() }) // it may take seconds
	}
	return err
}

func (c *client) goOn(ctx context.Context, conn net.Conn) error {
	s := c.s
	s.mu.Lock() // there is no connection: what was received stays so
	s.attempt++
	attempt, received := s.attempt, s.core.received
	s.mu.Unlock()
	out, in, peer, err := goOn(ctx, conn, s.secret, s.token, attempt, received)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return errOver
	}
	return s.attachLocked(conn, out, in, peer, time.Time{})
}

// say tells the user what is new to it.
func (c *client) say(n Notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cfg.Notice == nil || c.silenced || n.State == c.said {
		return
	}
	c.said = n.State
	c.cfg.Notice(n)
}

// backoff makes the pauses between attempts. The zero value starts anew.
type backoff struct{ mean time.Duration }

// next returns the pause that is due, from half the mean up to the mean.
func (b *backoff) next() time.Duration {
	if b.mean == 0 {
		b.mean = firstPause
		return 0
	}
	pause := b.mean/2 + rand.N(b.mean/2)
	b.mean = min(b.mean+b.mean/2, longestPause)
	return pause
}
