package sshd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

// Forwarding is a set of kinds of forwarding.
type Forwarding uint8

// The kinds of forwarding.
const (
	// LocalForwarding is TCP from the client's side to here (RFC 4254 §7.2):
	// ssh -L, -D and -W.
	LocalForwarding Forwarding = 1 << iota
	// RemoteForwarding is TCP from here to the client's side (§7.1): ssh -R.
	RemoteForwarding
	// SocketForwarding is that of Unix sockets, in both directions
	// (*-streamlocal@openssh.com in OpenSSH's PROTOCOL, section 2.4).
	SocketForwarding
	// AgentForwarding lends the client's key agent to sessions: ssh -A
	// (auth-agent@openssh.com).
	AgentForwarding

	// AllForwarding is all of them.
	AllForwarding = LocalForwarding | RemoteForwarding | SocketForwarding | AgentForwarding
)

// Limits of one connection. A browser that goes through ssh -D opens hundreds
// of connections.
const (
	// maxForwards is the number of forwarded connections, those that are
	// being opened among them.
	maxForwards = 512
	// maxListeners is the number of places that a client has us listen at.
	maxListeners = 64
	// defaultDialTimeout includes looking up the target's name.
	defaultDialTimeout = 20 * time.Second
	// acceptPause is what a listener waits when the system has no more
	// descriptors for it.
	acceptPause = 100 * time.Millisecond
)

// Reasons why something is not forwarded, for the user.
const (
	forwardingOff   = "this agent was started without this kind of forwarding, or your certificate does not permit it"
	forwardingEnded = "this connection is ending"
	forwardingFull  = "too many forwarded connections: close some, or connect once more"
)

// forwards is what a connection forwards. The connection's mu guards it.
type forwards struct {
	open      int
	listeners map[string]*listener
}

// forwardsKind reports whether a kind of forwarding is on, here and for this
// user.
func (c *conn) forwardsKind(k Forwarding) bool {
	off := c.server.cfg.NoForwarding
	if c.grant.NoPortForwarding {
		off |= AllForwarding &^ AgentForwarding
	}
	if c.grant.NoAgentForwarding {
		off |= AgentForwarding
	}
	return off&k == 0
}

// enterForward counts a forwarded connection in, before anything is done for
// it. leaveForward counts it out.
func (c *conn) enterForward() entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended, c.stopping:
		return entryEnded
	case c.forwards.open >= maxForwards:
		return entryFull
	}
	c.forwards.open++
	c.wg.Add(1)
	return entryOpen
}

func (c *conn) leaveForward() {
	c.mu.Lock()
	c.forwards.open--
	c.mu.Unlock()
	c.wg.Done()
}

// forwardOut makes the handler of channels that a client opens to a target:
// find reads where to from the channel's data and connects.
func forwardOut(kind Forwarding, find func(c *conn, ctx context.Context, data []byte) (backend.Conn, error)) gssh.ChannelHandler {
	return func(_ *gssh.Server, _ *ssh.ServerConn, channel ssh.NewChannel, ctx gssh.Context) {
		c := ctx.Value(connKey).(*conn)
		// Errors of Reject mean that the connection is gone.
		if !c.forwardsKind(kind) {
			_ = channel.Reject(ssh.Prohibited, forwardingOff)
			return
		}
		switch c.enterForward() {
		case entryEnded:
			_ = channel.Reject(ssh.ResourceShortage, forwardingEnded)
			return
		case entryFull:
			_ = channel.Reject(ssh.ResourceShortage, forwardingFull)
			return
		case entryOpen:
		}
		defer c.leaveForward()
		dialing, cancel := context.WithTimeout(ctx, c.server.dialTimeout)
		target, err := find(c, dialing, channel.ExtraData())
		cancel()
		if err != nil {
			_ = channel.Reject(ssh.ConnectionFailed, sayError(err))
			return
		}
		ch, requests, err := channel.Accept()
		if err != nil {
			target.Close()
			return
		}
		c.server.events.ForwardOpened(c.info.ID)
		defer c.server.events.ForwardClosed(c.info.ID)
		c.join(ch, requests, target)
	}
}

// join copies both ways until both have ended, each by itself: what one side
// has sent arrives although the other says no more (RFC 4254 §5.3). It closes
// both.
func (c *conn) join(ch ssh.Channel, requests <-chan *ssh.Request, target backend.Conn) {
	over := make(chan struct{})
	var watch, ways sync.WaitGroup
	watch.Go(func() {
		// This ends when the channel is closed, by whichever side.
		ssh.DiscardRequests(requests)
		// The client takes no more, but what it has sent is still delivered
		// as long as the connection is there.
		target.StopReading()
		select {
		case <-over:
		case <-c.gone:
			target.Close()
		}
	})
	ways.Go(func() {
		if _, err := io.Copy(target, ch); err == nil {
			_ = target.CloseWrite()
			return
		}
		// The target takes no more, but may have more to say. What comes for
		// it is thrown away, or the client's window would stay shut.
		watch.Go(func() { _, _ = io.Copy(io.Discard, ch) })
	})
	ways.Go(func() {
		_, err := io.Copy(ch, target)
		_ = ch.CloseWrite()
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			// The target was reset, or the channel is closed: there is
			// nobody to write to either.
			_ = ch.Close()
		}
	})
	ways.Wait()
	close(over)
	// A client may take its time to answer this; the target need not wait.
	_ = ch.Close()
	target.Close()
	watch.Wait()
}

// listener is a place where a connection's client has us listen.
type listener struct {
	nets []backend.Listener
	// remove, which may be nil, takes away what is left when all are closed.
	remove func()
	// closed is closed first.
	closed chan struct{}
	// accepts counts the goroutines that accept.
	accepts sync.WaitGroup
	once    sync.Once
}

// close closes and waits until nothing more is accepted.
func (l *listener) close() {
	l.once.Do(func() {
		close(l.closed)
		for _, n := range l.nets {
			n.Close()
		}
		l.accepts.Wait()
		if l.remove != nil {
			l.remove()
		}
	})
}

// errListening is why there is no listener, where the system has said nothing.
var errListening = errors.New("the connection is ending, or listens at too many places, or there already")

// listen adds a listener under a name that is unique in the connection, made
// by open. Each connection that it accepts is given to serve, in a goroutine
// of its own that counts as a forwarded connection; serve closes it.
//
// It accepts nothing before answer, which may be nil, has returned: a client
// that asked for any port learns it before the first connection comes.
func (c *conn) listen(open func() (*listener, string, error), answer func(), serve func(backend.Conn)) (*listener, error) {
	c.mu.Lock()
	if c.ended || c.stopping || len(c.forwards.listeners) >= maxListeners {
		c.mu.Unlock()
		return nil, errListening
	}
	// Whoever ends the connection waits for what happens here.
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()
	l, name, err := open()
	if err != nil {
		return nil, err
	}
	l.closed = make(chan struct{})
	c.mu.Lock()
	_, taken := c.forwards.listeners[name]
	if taken || c.ended {
		c.mu.Unlock()
		l.close()
		return nil, errListening
	}
	if c.forwards.listeners == nil {
		c.forwards.listeners = make(map[string]*listener)
	}
	c.forwards.listeners[name] = l
	// Counted before the connection can end, which closes it.
	l.accepts.Add(len(l.nets))
	c.mu.Unlock()
	if answer != nil {
		answer()
	}
	for _, n := range l.nets {
		go func() {
			defer l.accepts.Done()
			c.accept(l, n, serve)
		}()
	}
	return l, nil
}

// accept takes connections until the listener is closed.
func (c *conn) accept(l *listener, n backend.Listener, serve func(backend.Conn)) {
	for {
		nc, err := n.Accept()
		select {
		case <-l.closed:
			if err == nil {
				nc.Close()
			}
			return
		default:
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				c.server.log.Info("a forward is no longer listened for", "id", c.info.ID)
				return
			}
			// No more descriptors, or the peer has left already.
			c.server.log.Warn("a forward cannot take a connection", "id", c.info.ID, "err", err)
			pause := time.NewTimer(acceptPause)
			select {
			case <-l.closed:
				pause.Stop()
				return
			case <-pause.C:
			}
			continue
		}
		if c.enterForward() != entryOpen {
			nc.Close()
			continue
		}
		go func() {
			defer c.leaveForward()
			serve(nc)
		}()
	}
}

// forwardIn opens a channel to the client for a connection that was accepted
// here, and joins them.
func (c *conn) forwardIn(peer ssh.Conn, kind string, data []byte, nc backend.Conn, tell bool) {
	ch, requests, err := c.openChannel(peer, kind, data)
	if err != nil {
		c.server.log.Debug("a forward was refused by the client", "id", c.info.ID, "kind", kind, "err", err)
		nc.Close()
		return
	}
	if tell {
		c.server.events.ForwardOpened(c.info.ID)
		defer c.server.events.ForwardClosed(c.info.ID)
	}
	c.join(ch, requests, nc)
}

// openChannel opens a channel to the client, or fails when the connection ends.
//
// The library's own way waits for ever if the connection ends between its last
// look at its channels and its last write (golang.org/x/crypto/ssh, mux.loop
// and openChannel). Read and this leave next to nothing of that: where it still
// happens, one goroutine is given up, and not the whole connection.
func (c *conn) openChannel(peer ssh.Conn, kind string, data []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	var (
		ch       ssh.Channel
		requests <-chan *ssh.Request
		err      error
	)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ch, requests, err = peer.OpenChannel(kind, data)
	}()
	select {
	case <-done:
		return ch, requests, err
	case <-c.gone:
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-done: // a channel that was opened is closed by now
	case <-timer.C:
	}
	return nil, nil, net.ErrClosed
}

// unlisten ends what listen began under the name, and reports whether there
// was such a thing. Connections that it has accepted live on.
func (c *conn) unlisten(name string) bool {
	c.mu.Lock()
	l := c.forwards.listeners[name]
	delete(c.forwards.listeners, name)
	c.mu.Unlock()
	if l == nil {
		return false
	}
	l.close()
	return true
}

// endForwards closes all listeners. The connection has ended, so that there
// will be no new ones, and the forwarded connections see that by themselves.
func (c *conn) endForwards() {
	c.mu.Lock()
	all := c.forwards.listeners
	c.forwards.listeners = nil
	c.mu.Unlock()
	for _, l := range all {
		l.close()
	}
}

// sayError is an error for the user: without our own end's address, bounded,
// and without control characters.
func sayError(err error) string {
	if op := new(net.OpError); errors.As(err, &op) {
		err = op.Err
	}
	text := strings.Map(func(r rune) rune {
		if notPrintable(r) {
			return '?'
		}
		return r
	}, err.Error())
	const most = 200
	return text[:min(len(text), most)]
}
