package sshd

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/keys"
	"example.com/converge/pkg/transport"
)

// conn is one connection, before and after its login. It wraps the net.Conn
// that it was handed, to see whether anything arrives.
type conn struct {
	net.Conn
	front  *front // the same
	joiner *joiner
	// transport is what HandleConn was given.
	transport net.Conn
	server    *Server
	// offer is what the client is offered, by what it can do.
	offer offer
	// info and grant are written during the handshake, before loggedIn is set.
	info  UserInfo
	grant keys.Grant
	// place is where the user's programs run, from the login on.
	place backend.Place
	// received counts reads that brought bytes.
	received atomic.Uint64
	// lost is set when reading has failed, or come to the end of a connection
	// whose client did not say goodbye: the library reads nothing after that.
	lost atomic.Bool
	// active is when Activity was last told, in ns after birth; 0 is never.
	active atomic.Int64
	birth  time.Time
	// gone is closed when the connection is over. alive ends as soon as it is
	// closed, and bounds what waits for the place.
	gone  chan struct{}
	alive context.Context
	die   context.CancelFunc

	mu       sync.Mutex
	loggedIn bool
	ended    bool
	stopping bool
	sessions map[*session]struct{}
	forwards forwards
	// wg counts the sessions, the forwards and the keepalive goroutines.
	wg sync.WaitGroup

	agent sharedAgent

	closeOnce sync.Once
	closeErr  error
	closed    chan struct{} // by Close
}

// HandleConn serves a connection and returns when it is over, with all its
// sessions. It closes the connection. Too many connections that have not
// logged in, or a Shutdown, make it close the connection at once. A connection
// that may be lost and come back may have the methods Keep, which is called
// after the login, and Attached, which reports whether it is there. One with
// the method Session tells its id for the log.
func (s *Server) HandleConn(nc net.Conn) {
	c := s.admit(nc)
	if c == nil {
		nc.Close()
		return
	}
	defer s.wg.Done()
	// The library clears deadlines at every read and write, so that the login
	// is bounded by a timer that closes.
	expired := make(chan struct{})
	timer := time.AfterFunc(s.cfg.LoginTimeout, func() {
		defer close(expired)
		if !c.isLoggedIn() {
			s.log.Info("a connection was closed: it did not log in", "session", c.info.Session, "remote", c.info.Remote,
				"timeout", s.cfg.LoginTimeout)
			c.Close()
		}
	})
	// The client is looked at before the library starts with it.
	c.offer = offerFor(c.front.greet("SSH-2.0-"+version), s.hasAES)
	s.ssh.HandleConn(c)
	if !timer.Stop() {
		<-expired
	}
	c.Close()
	s.forget(c)
	if c.place != nil {
		c.place.End()
	}
}

// admit takes a connection in, or returns nil.
func (s *Server) admit(nc net.Conn) *conn {
	c := &conn{
		server:    s,
		transport: nc,
		birth:     time.Now(),
		gone:      make(chan struct{}),
		closed:    make(chan struct{}),
		sessions:  make(map[*session]struct{}),
	}
	c.alive, c.die = context.WithCancel(context.Background())
	c.joiner = &joiner{Conn: nc}
	c.front = &front{Conn: c.joiner, start: c.wg.Go}
	c.Conn = c.front
	if addr := nc.RemoteAddr(); addr != nil {
		c.info.Remote = addr.String()
	}
	if named, ok := nc.(interface{ Session() string }); ok {
		c.info.Session = named.Session()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing:
		return nil
	case s.pending >= maxPending:
		s.log.Warn("a connection was refused: too many others have not logged in",
			"session", c.info.Session, "remote", c.info.Remote, "limit", maxPending)
		return nil
	}
	s.pending++
	s.lastID++
	c.info.ID = s.lastID
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return c
}

// login is called by the handshake when the user has proved to be one.
func (s *Server) login(c *conn, ctx gssh.Context, user string) {
	c.info.User = user
	c.info.Since = time.Now()
	owner := []rune(transport.Printable(c.grant.Owner))
	c.info.Owner = string(owner[:min(len(owner), 200)])
	s.mu.Lock()
	s.pending--
	closing := s.closing
	c.mu.Lock()
	c.loggedIn = true
	c.mu.Unlock()
	s.mu.Unlock()
	attrs := []any{"id", c.info.ID, "session", c.info.Session, "user", user, "remote", c.info.Remote,
		"key", c.info.KeyFingerprint, "of", c.grant.Owner}
	if name := s.backend.Name(); name != "" {
		attrs = append(attrs, "place", name)
	}
	s.log.Info("a user logged in", attrs...)
	c.place = s.backend.Begin(backend.Peer{
		ID: cmp.Or(c.info.Session, strconv.FormatUint(c.info.ID, 10)), User: user, Remote: c.info.Remote,
		ReadOnlyFiles: s.cfg.ReadOnlySFTP,
	}, backend.Owner{Hurry: s.hurry, Kill: s.kill, Go: s.wg.Go})
	s.events.Login(c.info)
	if k, ok := c.transport.(interface{ Keep() }); ok {
		k.Keep()
	}
	if closing {
		c.Close()
		return
	}
	if s.cfg.KeepAlive > 0 {
		c.wg.Go(func() { c.keepAlive(ctx, s.cfg.KeepAlive) })
	}
}

// forget ends what a connection had open and waits for it.
func (s *Server) forget(c *conn) {
	c.mu.Lock()
	c.ended = true
	c.mu.Unlock()
	close(c.gone)
	c.endForwards()
	c.wg.Wait()
	loggedIn := c.isLoggedIn()
	s.mu.Lock()
	if !loggedIn {
		s.pending--
	}
	delete(s.conns, c)
	s.mu.Unlock()
	if loggedIn {
		s.log.Info("a user logged out", "id", c.info.ID, "session", c.info.Session, "user", c.info.User)
		s.events.Logout(c.info)
	}
}

// loggedIn returns the connections that are, in the order of their logins.
func (s *Server) loggedIn() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*conn
	for c := range s.conns {
		if c.isLoggedIn() {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b *conn) int { return a.info.Since.Compare(b.info.Since) })
	return list
}

func (c *conn) isLoggedIn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loggedIn
}

// Read counts, for keepAlive, and notes the loss of the connection before
// anybody can see what comes of it. After an error nothing can be written
// either: a request that the library sends then would have no answer to wait for.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.received.Add(1)
	}
	if err != nil {
		c.lost.Store(true)
		c.Close()
	}
	return n, err
}

// bulk calls write with p. The packets of a long one go out together.
func (c *conn) bulk(write func([]byte) (int, error), p []byte) (int, error) {
	if len(p) > copyBuffer {
		c.joiner.cork()
		defer c.joiner.uncork()
	}
	return write(p)
}

// SetDeadline does nothing: the library calls it at every read and write, only
// to say that there is no deadline.
func (c *conn) SetDeadline(time.Time) error { return nil }

// Close closes once: transports differ in how they take a second time.
func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.die()
		c.closeErr = c.Conn.Close()
	})
	return c.closeErr
}

// entry is the answer to a session that wants to start.
type entry int

const (
	entryOpen entry = iota
	entryFull
	entryEnded
)

// enter counts a session in. The library starts handlers in goroutines of
// their own, which may come too late.
func (c *conn) enter(s *session) entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended, c.stopping:
		return entryEnded
	case len(c.sessions) >= maxSessions:
		return entryFull
	}
	c.sessions[s] = struct{}{}
	c.wg.Add(1)
	return entryOpen
}

// leave counts a session out.
func (c *conn) leave(s *session) {
	c.mu.Lock()
	delete(c.sessions, s)
	c.mu.Unlock()
	c.wg.Done()
}

// list returns the sessions.
func (c *conn) list() []*session {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*session, 0, len(c.sessions))
	for s := range c.sessions {
		list = append(list, s)
	}
	return list
}

// touch tells of bytes from the user, once a second.
func (c *conn) touch() {
	now := int64(time.Since(c.birth)) + 1
	last := c.active.Load()
	if last != 0 && now-last < int64(activityEvery) || !c.active.CompareAndSwap(last, now) {
		return
	}
	c.server.events.Activity(c.info.ID)
}

// shutdown hangs up on the sessions, waits until they have ended, and closes.
func (c *conn) shutdown() {
	if !c.isLoggedIn() {
		c.Close()
		return
	}
	c.mu.Lock()
	c.stopping = true
	c.mu.Unlock()
	sessions := c.list()
	for _, s := range sessions {
		s.stop()
	}
	for _, s := range sessions {
		select {
		case <-s.finished:
		case <-c.gone:
		case <-c.server.kill:
		}
	}
	if len(sessions) > 0 {
		// A client that has lost its last session goes by itself. To close
		// on one that is still sending could cost it the last output.
		timer := time.NewTimer(lastWords)
		defer timer.Stop()
		select {
		case <-c.gone:
		case <-c.server.kill:
		case <-timer.C:
		}
	}
	c.Close()
}

// keepAlive asks the client for a sign of life at every interval and closes
// the connection when nothing came for three of them after a request: not an
// answer, nor anything else, since an answer can be late behind an upload.
func (c *conn) keepAlive(ctx gssh.Context, interval time.Duration) {
	// The requests wait for their answers beside the clock.
	ask := make(chan ssh.Conn)
	c.wg.Go(func() {
		for peer := range ask {
			_, _, _ = peer.SendRequest("keepalive@openssh.com", true, nil)
		}
	})
	defer close(ask)
	timer := time.NewTimer(jitter(interval))
	defer timer.Stop()
	seen, silent := c.received.Load(), 0
	for {
		select {
		case <-c.gone:
			return
		case <-timer.C:
		}
		timer.Reset(jitter(interval))
		if now := c.received.Load(); now != seen {
			seen, silent = now, 0
		} else if silent++; silent > missedKeepAlives {
			c.server.log.Info("a connection was closed: its client does not answer",
				"id", c.info.ID, "session", c.info.Session, "remote", c.info.Remote)
			c.Close()
			return
		}
		// Right after the login the library may not have the connection yet.
		peer, ok := ctx.Value(gssh.ContextKeyConn).(ssh.Conn)
		if !ok {
			continue
		}
		select {
		case ask <- peer:
		default: // the last request has no answer yet
		}
	}
}

// jitter varies an interval by a fifth, so that many agents do not beat as one.
func jitter(interval time.Duration) time.Duration {
	fifth := int64(interval / 5)
	return interval - time.Duration(fifth) + time.Duration(rand.Int64N(2*fifth+1))
}
