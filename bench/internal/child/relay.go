//go:build linux

package child

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
	"nhooyr.io/websocket"

	"example.com/converge/bench/carrier"
)

//lint:file-ignore SA1019 nhooyr.io/websocket is what is measured here

// The relays. TCPCopy and Splice are those that need no websocket: the floor.
const (
	TCPCopy = "tcp"
	Splice  = "splice"
	Nhooyr  = "nhooyr"
	Yamux   = "yamux"
)

// Relay listens on a free port of loopback and relays until ctx ends: to the
// TCP address target, or, where the far end dials in, between the two.
func Relay(ctx context.Context, kind, target string, ready func(address string)) error {
	switch kind {
	case TCPCopy, Splice:
		return serve(ctx, ready, func(client net.Conn) {
			far, err := net.Dial("tcp", target)
			if err != nil {
				return
			}
			defer far.Close()
			move := copyPlain
			if kind == Splice {
				// io.Copy between two TCP connections is splice(2).
				move = func(dst, src net.Conn) { _, _ = io.Copy(dst, src) }
			}
			join(client, far, move)
		})
	case Nhooyr, Yamux:
		return newHub(kind).serve(ctx, ready)
	}
	return fmt.Errorf("no relay is called %q", kind)
}

// join moves bytes both ways until both have ended, passing ends on where the
// connections have half-closes.
func join(a, b net.Conn, move func(dst, src net.Conn)) {
	one := func(dst, src net.Conn) {
		move(dst, src)
		if half, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
			return
		}
		_ = dst.Close()
	}
	both(func() { one(b, a) }, func() { one(a, b) })
}

// hub is a rendezvous as one writes it on the first day, with nhooyr's NetConn
// and a copy loop: a websocket for each client that the agent dials back, or
// yamux streams on the agent's one websocket.
type hub struct {
	kind string

	mu      sync.Mutex
	agents  map[string]*hubAgent
	waiting map[string]chan net.Conn // by token
}

// hubAgent is a registered far end. It is there before its handshake has been
// answered: the far end is ready as soon as it reads the answer.
type hubAgent struct {
	up      chan struct{}   // closed when the rest is set
	control *websocket.Conn // nhooyr
	session *yamux.Session  // yamux
}

func newHub(kind string) *hub {
	return &hub{kind: kind, agents: map[string]*hubAgent{}, waiting: map[string]chan net.Conn{}}
}

func (h *hub) serve(ctx context.Context, ready func(string)) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	ready(listener.Addr().String())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if id, ok := strings.CutPrefix(r.URL.Path, carrier.AgentPath); ok {
		h.agent(w, r, id)
	} else if token, ok := strings.CutPrefix(r.URL.Path, carrier.DataPath); ok {
		h.data(w, r, token)
	} else if id, ok := strings.CutPrefix(r.URL.Path, carrier.ClientPath); ok {
		h.client(w, r, id)
	} else {
		http.NotFound(w, r)
	}
}

func accept(w http.ResponseWriter, r *http.Request) (*websocket.Conn, error) {
	return websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
}

func (h *hub) agent(w http.ResponseWriter, r *http.Request, id string) {
	agent := &hubAgent{up: make(chan struct{})}
	h.mu.Lock()
	h.agents[id] = agent
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.agents, id)
	}()
	ws, err := accept(w, r)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	agent.control = ws
	if h.kind == Yamux {
		if agent.session, err = yamux.Client(carrier.NetConn(ws), carrier.YamuxConfig()); err != nil {
			return
		}
		defer agent.session.Close()
	}
	close(agent.up)
	if agent.session != nil {
		<-agent.session.CloseChan()
		return
	}
	_, _, _ = ws.Read(r.Context()) // the agent says nothing: this is its end
}

func (h *hub) data(w http.ResponseWriter, r *http.Request, token string) {
	h.mu.Lock()
	client := h.waiting[token]
	delete(h.waiting, token)
	h.mu.Unlock()
	if client == nil {
		http.NotFound(w, r)
		return
	}
	ws, err := accept(w, r)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	ended := &signalled{Conn: carrier.NetConn(ws), closed: make(chan struct{})}
	client <- ended // has room for it
	select {
	case <-ended.closed:
	case <-r.Context().Done():
	}
}

// signalled is a connection that says when it was closed.
type signalled struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (s *signalled) Close() error {
	defer s.once.Do(func() { close(s.closed) })
	return s.Conn.Close()
}

func (h *hub) client(w http.ResponseWriter, r *http.Request, id string) {
	far, err := h.open(r.Context(), id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	ws, err := accept(w, r)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	// Neither websockets nor yamux streams end in one direction only.
	near := carrier.NetConn(ws)
	both(
		func() { copyPlain(far, near); _ = far.Close() },
		func() { copyPlain(near, far); _ = near.Close() },
	)
}

// open gets a stream to an agent.
func (h *hub) open(ctx context.Context, id string) (net.Conn, error) {
	h.mu.Lock()
	agent := h.agents[id]
	h.mu.Unlock()
	if agent == nil {
		return nil, fmt.Errorf("no agent is registered as %s", id)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	select {
	case <-agent.up:
	case <-ctx.Done():
		return nil, fmt.Errorf("the agent %s is not up", id)
	}
	if agent.session != nil {
		return agent.session.Open()
	}
	token := rand.Text()
	arrival := make(chan net.Conn, 1)
	h.mu.Lock()
	h.waiting[token] = arrival
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, token)
	}()
	if err := agent.control.Write(ctx, websocket.MessageText, []byte(token)); err != nil {
		return nil, err
	}
	select {
	case conn := <-arrival:
		return conn, nil
	case <-ctx.Done():
		return nil, errors.New("the agent did not dial back")
	}
}
