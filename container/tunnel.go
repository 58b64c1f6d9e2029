package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	"example.com/converge/container/guest/mux"
	"example.com/converge/container/guest/wire"
	"example.com/converge/container/internal/engine"
)

// tunnel is a forward server of the guest agent, and this end of it: many
// connections into the container, or out of one listener in it.
type tunnel struct {
	stream  *engine.Stream
	session *mux.Session
	granted wire.Granted
	wg      sync.WaitGroup
	ended   chan struct{} // when Run has returned
}

// Dial connects to an address as seen from the container, tcp or unix. It needs
// the guest agent, and a connection with a container: not ModeSession. The error
// of a refused connection has the agent's sentence. The connection has no
// deadlines; CloseWrite ends one direction.
func (c *Connection) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	what, kind, err := target(network, address)
	if err != nil {
		return nil, failed("connect in the container", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.handler.cfg.Timeouts.CommandStart.or(defaultLimit))
	defer cancel()
	t, err := c.dialer(ctx, network, kind)
	if err != nil {
		return nil, failed("connect in the container", err)
	}
	st, err := t.session.Open(what)
	if err != nil {
		return nil, failed("connect in the container", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = st.Close() })
	err = st.Opened()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = st.Close()
		return nil, failed("connect in the container", err)
	}
	return newConn(st, what), nil
}

// target reads an address.
func target(network, address string) (wire.New, wire.ConnectionType, error) {
	switch network {
	case "tcp":
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return wire.New{}, 0, err
		}
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return wire.New{}, 0, fmt.Errorf("port %.16q is not a number up to 65535", port)
		}
		return wire.New{Protocol: wire.ProtocolTCP, ConnectedAddress: host, ConnectedPort: number}, wire.ConnectionPortDial, nil
	case "unix":
		return wire.New{Protocol: wire.ProtocolUnix, ConnectedAddress: address}, wire.ConnectionSocketDial, nil
	}
	return wire.New{}, 0, fmt.Errorf("network %.16q: %w", network, ErrUnsupported)
}

// dialer returns the tunnel for outgoing connections of a kind, which is made
// when it is first needed, and anew after it was lost.
func (c *Connection) dialer(ctx context.Context, network string, kind wire.ConnectionType) (*tunnel, error) {
	c.dialing.Lock()
	defer c.dialing.Unlock()
	c.mu.Lock()
	t, ending := c.tunnels[network], c.closed
	c.mu.Unlock()
	if ending {
		return nil, ErrClosed
	}
	if t != nil && !closed(t.ended) {
		return t, nil
	}
	made, err := c.tunnel(ctx, wire.Setup{ConnectionType: kind, Protocol: network}, mux.Config{Logger: c.handler.log})
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	ending = c.closed
	if !ending {
		if c.tunnels == nil {
			c.tunnels = map[string]*tunnel{}
		}
		c.tunnels[network] = made
	}
	c.mu.Unlock()
	if ending {
		made.close()
		return nil, ErrClosed
	}
	return made, nil
}

// tunnel starts a forward server in the container.
func (c *Connection) tunnel(ctx context.Context, setup wire.Setup, cfg mux.Config) (*tunnel, error) {
	b := c.box
	if b == nil || b.guest.path == "" {
		return nil, fmt.Errorf("%w: it takes one container for the connection, and the guest agent in it", ErrUnsupported)
	}
	req := execRequest([]string{b.guest.path, "forward-server"}, nil)
	if !b.owned {
		req.User = c.handler.cfg.Execution.Container.User
	}
	e := c.handler.engine
	exec, err := e.ExecCreate(ctx, b.id, req)
	if err != nil {
		return nil, err
	}
	stream, err := e.ExecStart(ctx, exec, startRequest(false))
	if err != nil {
		return nil, err
	}
	t := &tunnel{stream: stream, ended: make(chan struct{})}
	out, w := io.Pipe()
	said := &tail{}
	t.wg.Go(func() {
		err := engine.Demux(stream, w, said)
		if err == nil {
			err = io.EOF
		}
		_ = w.CloseWithError(err)
	})
	stop := context.AfterFunc(ctx, func() { _ = stream.Close() })
	t.session, t.granted, err = mux.Dial(out, stream, setup, cfg)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = stream.Close()
		_ = out.Close()
		t.wg.Wait()
		var refused *mux.RefusedError
		if text := said.String(); text != "" && !errors.As(err, &refused) {
			err = fmt.Errorf("%w (%s)", err, text)
		}
		return nil, err
	}
	t.wg.Go(func() {
		defer close(t.ended)
		if err := t.session.Run(); err != nil {
			c.handler.log.Debug("a forward server ended", "err", err)
		}
		// Nobody reads any more.
		_ = out.CloseWithError(io.ErrClosedPipe)
		_ = stream.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		maps.DeleteFunc(c.tunnels, func(_ string, other *tunnel) bool { return other == t })
	})
	return t, nil
}

// tunnelGrace is what a forward server has to end by itself.
var tunnelGrace = hangupGrace

// close ends the forward server, by the end of its input, and all connections.
func (t *tunnel) close() {
	t.session.Close()
	_ = t.stream.CloseWrite()
	// It ends at that; a container that does not is not waited for.
	timer := time.AfterFunc(tunnelGrace, func() { _ = t.stream.Close() })
	defer timer.Stop()
	t.wg.Wait()
	_ = t.stream.Close()
}

// tail keeps the beginning of the log of a forward server.
type tail struct {
	mu   sync.Mutex
	text bounded
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
