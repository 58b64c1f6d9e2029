// Package hub is the rendezvous itself: it holds the agents' control
// connections, asks an agent to dial back for a client and joins the two. It
// knows protocol and bytes, but no pages, no TLS and no routing, and of the
// bytes nothing but their number.
package hub

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/registry"
)

// Limits in time of the rendezvous.
const (
	// helloWait and proofWait bound the messages of a registration.
	helloWait = 10 * time.Second
	proofWait = 10 * time.Second
	// dialWait bounds an agent's dial-back.
	dialWait = 10 * time.Second
	// sendWait bounds the write of a control message.
	sendWait = 10 * time.Second
)

// Config is what a Hub needs to know. The zero value is useful.
type Config struct {
	// KeepAlive is the mean ping interval; 0 is 20 s. A peer that is silent
	// for three is gone.
	KeepAlive time.Duration
	// RemoteOf names a requester's address, for logs and for the agent; nil
	// takes it from the request.
	RemoteOf func(*http.Request) string
	// Opened and Closed are called for each connection just before the hub
	// takes it over from net/http, so that it is counted at all times, and at
	// its end; they may be nil.
	Opened, Closed func()
	// Logger may be nil.
	Logger *slog.Logger
}

// Hub serves the three websocket endpoints. Its methods may be called
// concurrently.
type Hub struct {
	cfg    Config
	log    *slog.Logger
	agents registry.Registry[*agent]

	// The constants; tests have less time.
	helloWait, proofWait, dialWait, sendWait time.Duration

	ctx   context.Context // ends with Shutdown
	end   context.CancelFunc
	mu    sync.Mutex
	over  bool           // no more work is taken; guards wg.Add against Wait
	wg    sync.WaitGroup // every handler that took a connection over
	count atomic.Uint64  // numbers the clients

	vmu    sync.Mutex
	visits map[uint64]*visit
}

// visit is a client that waits for its agent's dial-back.
type visit struct {
	agent *agent
	token string
	// answer has room for one: the one who removes the visit from the map may
	// send it, and then must.
	answer chan answer
}

// answer is what becomes of a visit: the agent's connection, or a sentence on
// why there is none.
type answer struct {
	data frame.Peer
	err  error
}

// New makes a Hub.
func New(cfg Config) *Hub {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.RemoteOf == nil {
		cfg.RemoteOf = func(r *http.Request) string { return r.RemoteAddr }
	}
	if cfg.Opened == nil {
		cfg.Opened = func() {}
	}
	if cfg.Closed == nil {
		cfg.Closed = func() {}
	}
	h := &Hub{
		cfg: cfg, log: cfg.Logger,
		agents: registry.NewMemory[*agent](),
		visits: make(map[uint64]*visit),

		helloWait: helloWait, proofWait: proofWait, dialWait: dialWait, sendWait: sendWait,
	}
	h.ctx, h.end = context.WithCancel(context.Background())
	return h
}

// Shutdown refuses new connections, ends all others with 1012, so that peers
// come back to whoever serves next, and waits for them as long as ctx lets it.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.over = true
	h.mu.Unlock()
	h.end()
	done := make(chan struct{})
	go func() { h.wg.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("not all connections ended in time: %w", ctx.Err())
	}
}

var errEnding = errors.New("the server is ending: try again in a moment")

// enter counts a handler in and reports whether the hub still takes work.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return false
	}
	h.wg.Add(1)
	return true
}

// refuse answers a request with a sentence.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}

// admit does what all three endpoints begin with. If it returns true the
// caller must call h.wg.Done.
func (h *Hub) admit(w http.ResponseWriter, r *http.Request) bool {
	if !frame.IsHandshake(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		refuse(w, http.StatusUpgradeRequired, "this address speaks websocket only: see the server's home page for how to use it")
		return false
	}
	if !h.enter() {
		refuse(w, http.StatusServiceUnavailable, errEnding.Error())
		return false
	}
	return true
}

// ServeClient answers /client/ID: it asks the agent to dial back and joins
// client and agent until one of them ends.
func (h *Hub) ServeClient(w http.ResponseWriter, r *http.Request, id string) {
	if !h.admit(w, r) {
		return
	}
	defer h.wg.Done()
	a, ok := h.agents.Lookup(id)
	if !ok {
		refuse(w, http.StatusNotFound, fmt.Sprintf("no agent is registered as %q: check the id, or the job may have ended", id))
		return
	}
	number := h.count.Add(1)
	remote := h.cfg.RemoteOf(r)
	log := h.log.With("id", id, "client", number, "remote", remote)

	data, status, err := h.call(r.Context(), a, number, remote)
	if err != nil {
		log.Warn("client refused", "status", status, "err", err)
		refuse(w, status, err.Error())
		return
	}
	defer h.cfg.Closed() // the data connection, which Relay or we close
	h.cfg.Opened()
	defer h.cfg.Closed()
	client, err := frame.Accept(w, r)
	if err != nil {
		_ = data.Conn.Close()
		log.Warn("client's handshake failed", "err", err)
		return
	}
	log.Info("client connected")
	start := time.Now()
	stats := frame.Relay(h.ctx, client, data, frame.Options{Ping: h.cfg.KeepAlive})
	log.Info("client ended", "to_agent", stats.AToB, "to_client", stats.BToA,
		"seconds", time.Since(start).Round(time.Millisecond).Seconds(), "end", stats.End)
}

// call gets a data connection from the agent. The status goes with an error.
func (h *Hub) call(ctx context.Context, a *agent, number uint64, remote string) (frame.Peer, int, error) {
	v := &visit{agent: a, token: rand.Text() + rand.Text(), answer: make(chan answer, 1)}
	h.vmu.Lock()
	h.visits[number] = v
	h.vmu.Unlock()

	timer := time.NewTimer(h.dialWait)
	defer timer.Stop()
	status := http.StatusBadGateway
	err := a.send(rendezvous.Message{Dial: &rendezvous.Dial{Client: number, Token: v.token, Remote: remote}})
	if err != nil {
		h.log.Warn("cannot tell an agent of a client", "id", a.id, "client", number, "err", err)
		err = errors.New("the agent cannot be reached: its connection has just broken")
	} else {
		select {
		case got := <-v.answer:
			return got.data, status, got.err
		case <-a.gone:
			err = errors.New("the agent went away: the job may have ended")
		case <-timer.C:
			status, err = http.StatusGatewayTimeout, errors.New("the agent did not answer in time: its machine may be gone or overloaded")
		case <-ctx.Done():
			err = errors.New("the client went away")
		case <-h.ctx.Done():
		}
	}
	if h.ctx.Err() != nil { // whatever else it brought about
		status, err = http.StatusServiceUnavailable, errEnding
	}
	if !h.take(number, v) {
		// The agent's connection is on its way to us: there is no turning
		// back for the one who took the visit.
		if got := <-v.answer; got.err == nil {
			_ = got.data.Conn.Close()
			h.cfg.Closed()
		}
	}
	return frame.Peer{}, status, err
}

// take removes the visit; the one who gets true must answer it.
func (h *Hub) take(number uint64, v *visit) bool {
	h.vmu.Lock()
	defer h.vmu.Unlock()
	if h.visits[number] != v {
		return false
	}
	delete(h.visits, number)
	return true
}

// ServeData answers /data, an agent's dial-back for one client.
func (h *Hub) ServeData(w http.ResponseWriter, r *http.Request) {
	if !h.admit(w, r) {
		return
	}
	defer h.wg.Done()
	number, _ := strconv.ParseUint(r.Header.Get(rendezvous.ClientHeader), 10, 64)
	h.vmu.Lock()
	v := h.visits[number]
	h.vmu.Unlock()
	if v == nil || subtle.ConstantTimeCompare([]byte(v.token), []byte(r.Header.Get(rendezvous.TokenHeader))) != 1 || !h.take(number, v) {
		refuse(w, http.StatusForbidden, "nobody waits for this connection: the client may have given up")
		return
	}
	h.cfg.Opened()
	data, err := frame.Accept(w, r)
	if err != nil {
		h.cfg.Closed()
		h.log.Warn("agent's data handshake failed", "client", number, "err", err)
		v.answer <- answer{err: errors.New("the agent's connection failed")}
		return
	}
	v.answer <- answer{data: data}
}
