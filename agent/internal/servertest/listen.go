package servertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
)

// NewAt starts a server on an address, such as one that has ended.
func NewAt(address string) (*Server, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen where a server was: %w", err)
	}
	return start(false, l), nil
}

// NewInMemory starts a server that no network leads to: agents use its
// Transport. So it may be in a synctest bubble, where every wait is exact.
func NewInMemory() *Server { return start(false, newMemory()) }

// Transport returns a new transport that leads to the server.
func (s *Server) Transport() *http.Transport {
	tr := &http.Transport{DisableKeepAlives: true}
	if m, ok := s.raw.Listener.(*memory); ok {
		tr.DialContext = m.dial
	}
	return tr
}

// Cut breaks all connections without a word, as a server that is killed does.
func (s *Server) Cut() { s.raw.cut() }

// recorded is a listener that knows what it has accepted.
type recorded struct {
	net.Listener

	mu       sync.Mutex
	accepted []net.Conn
}

// Accept returns the connection as it is.
func (r *recorded) Accept() (net.Conn, error) {
	conn, err := r.Listener.Accept()
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.accepted = append(r.accepted, conn)
	}
	return conn, err
}

func (r *recorded) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, conn := range r.accepted {
		_ = conn.Close()
	}
	r.accepted = nil
}

// memory is a listener whose connections are pipes.
type memory struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemory() *memory {
	return &memory{conns: make(chan net.Conn), done: make(chan struct{})}
}

var errRefused = errors.New("connection refused")

func (m *memory) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	var err error
	select {
	case m.conns <- server:
		return client, nil
	case <-m.done:
		err = errRefused
	case <-ctx.Done():
		err = ctx.Err()
	}
	_, _ = client.Close(), server.Close()
	return nil, &net.OpError{Op: "dial", Net: network, Addr: m.Addr(), Err: err}
}

// Accept waits for a dial.
func (m *memory) Accept() (net.Conn, error) {
	select {
	case conn := <-m.conns:
		return conn, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close refuses everything from now on.
func (m *memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

// Addr is where nothing on a network is (RFC 6761, section 6.4).
func (m *memory) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "server.invalid:80" }
