package container

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"example.com/converge/container/guest/mux"
	"example.com/converge/container/guest/wire"
)

// maxBacklog is how many connections wait to be accepted; more are refused.
const maxBacklog = 128

// Listen listens in the container, tcp or unix. Port 0 is one that is free, which
// Addr tells. It needs what Dial needs. The listener ends with the connection.
func (c *Connection) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	what, _, err := target(network, address)
	if err != nil {
		return nil, failed("listen in the container", err)
	}
	setup := wire.Setup{
		ConnectionType: wire.ConnectionPortForward, Protocol: what.Protocol,
		BindHost: what.ConnectedAddress, BindPort: what.ConnectedPort,
	}
	if network == "unix" {
		setup.ConnectionType = wire.ConnectionSocketForward
	}
	ctx, cancel := context.WithTimeout(ctx, c.handler.cfg.Timeouts.CommandStart.or(defaultLimit))
	defer cancel()
	l := &listener{incoming: make(chan *mux.Stream, maxBacklog), closed: make(chan struct{})}
	t, err := c.tunnel(ctx, setup, mux.Config{Incoming: l.offer, Logger: c.handler.log})
	if err != nil {
		return nil, failed("listen in the container", err)
	}
	if t.granted.BindPort != 0 {
		what.ConnectedPort = t.granted.BindPort
	}
	l.tunnel, l.addr = t, addr{network, what.ConnectedAddress, what.ConnectedPort}
	c.mu.Lock()
	ending := c.closed
	if !ending {
		if c.tunnels == nil {
			c.tunnels = map[string]*tunnel{}
		}
		c.listeners++
		c.tunnels["listener "+strconv.FormatUint(c.listeners, 10)] = t
	}
	c.mu.Unlock()
	if ending {
		t.close()
		return nil, failed("listen in the container", ErrClosed)
	}
	return l, nil
}

// listener is a net.Listener in a container.
type listener struct {
	tunnel   *tunnel
	addr     addr
	incoming chan *mux.Stream
	closed   chan struct{}
	once     sync.Once

	mu     sync.Mutex // orders offer and Close
	ending bool
}

// offer takes a connection of the container's.
func (l *listener) offer(st *mux.Stream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ending {
		_ = st.Reject("nobody listens any more")
		return
	}
	select {
	case l.incoming <- st:
	default:
		_ = st.Reject("too many connections wait")
	}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		select {
		case st := <-l.incoming:
			if err := st.Accept(); err != nil {
				continue // it has gone while it waited
			}
			c := newConn(st, st.What())
			c.local, c.remote = c.remote, c.local // who connects is at the other end
			return c, nil
		case <-l.closed:
		case <-l.tunnel.ended:
		}
		return nil, net.ErrClosed
	}
}

// Close ends the listening. Connections that were accepted live on.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.mu.Lock()
		l.ending = true
		for len(l.incoming) > 0 {
			_ = (<-l.incoming).Reject("nobody listens any more")
		}
		l.mu.Unlock()
		if l.tunnel.session.Len() == 0 {
			l.tunnel.close()
			return
		}
		// The guest ends with the last of them.
		_ = l.tunnel.session.NoMore()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// addr is an address in a container.
type addr struct {
	network, host string
	port          uint64
}

func (a addr) Network() string { return a.network }

func (a addr) String() string {
	if a.network == "unix" {
		return a.host
	}
	return net.JoinHostPort(a.host, strconv.FormatUint(a.port, 10))
}

// conn is a connection through a tunnel. It has no deadlines.
type conn struct {
	*mux.Stream
	local, remote addr
}

func newConn(st *mux.Stream, what wire.New) *conn {
	network := what.Protocol
	return &conn{
		Stream: st,
		local:  addr{network, what.OriginatorAddress, what.OriginatorPort},
		remote: addr{network, what.ConnectedAddress, what.ConnectedPort},
	}
}

var _ net.Conn = (*conn)(nil)

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// errNoDeadline is the answer to a deadline.
var errNoDeadline = failed("set a deadline", ErrUnsupported)

func (c *conn) SetDeadline(time.Time) error      { return errNoDeadline }
func (c *conn) SetReadDeadline(time.Time) error  { return errNoDeadline }
func (c *conn) SetWriteDeadline(time.Time) error { return errNoDeadline }
