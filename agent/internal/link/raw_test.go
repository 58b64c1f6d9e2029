package link

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// upgrade answers a websocket handshake by hand, with bytes for the agent in
// the same write.
func upgrade(w http.ResponseWriter, r *http.Request, first []byte) (net.Conn, error) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("cannot take the connection over: %w", err)
	}
	// RFC 6455, section 1.3.
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	// Unmasked binary messages (section 5.2), each of a length
	// that needs one byte.
	for len(first) > 0 {
		n := min(len(first), 125)
		out.Write([]byte{0x82, byte(n)})
		out.Write(first[:n])
		first = first[n:]
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		return nil, fmt.Errorf("cannot answer the handshake: %w", err)
	}
	return frame.Server(conn, nil, frame.Options{Ping: -1}), nil
}

// registerBy goes through a registration, whatever the agent says.
func registerBy(t *testing.T, conn io.ReadWriter) {
	for _, m := range []rendezvous.Message{
		{Challenge: &rendezvous.Challenge{Version: rendezvous.Version, Nonce: rendezvous.NewNonce()}},
		{Registered: &rendezvous.Registered{ID: "job"}},
	} {
		if _, err := rendezvous.Receive(conn); err != nil {
			t.Error(err)
		}
		if err := rendezvous.Send(conn, m); err != nil {
			t.Error(err)
		}
	}
}

// stuck is a network that can be made to take nothing more, which no buffer of
// a kernel hides.
type stuck struct {
	mu      sync.Mutex
	on      bool
	waiting chan struct{} // told when a write waits
}

func newStuck() *stuck { return &stuck{waiting: make(chan struct{}, 1)} }

// stop makes all writes wait until their connection is closed.
func (s *stuck) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = true
}

func (s *stuck) stopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on
}

// wrap makes a connection part of the network.
func (s *stuck) wrap(conn net.Conn) net.Conn {
	return &stuckConn{Conn: conn, net: s, closed: make(chan struct{})}
}

type stuckConn struct {
	net.Conn
	net    *stuck
	once   sync.Once
	closed chan struct{}
}

func (c *stuckConn) Write(p []byte) (int, error) {
	if !c.net.stopped() {
		return c.Conn.Write(p)
	}
	select {
	case c.net.waiting <- struct{}{}:
	default:
	}
	<-c.closed
	return 0, net.ErrClosed
}

func (c *stuckConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// oneWay is a connection that takes the handshake, and nothing more.
type oneWay struct {
	net.Conn
	shaken atomic.Bool
}

func (c *oneWay) Write(p []byte) (int, error) {
	if c.shaken.Swap(true) {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// through makes all connections of a transport go through wrap.
func through(tr *http.Transport, wrap func(net.Conn) net.Conn) {
	var dialer net.Dialer
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
}
