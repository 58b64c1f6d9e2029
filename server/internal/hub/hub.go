// Package hub is the rendezvous itself: it holds the agents' control
// connections, asks an agent to dial back for a client and joins the two. It
// knows protocol and bytes, but no pages, no TLS and no routing, and of the
// bytes nothing but their number.
//
// Handlers return as soon as a connection is taken over; from then on it
// belongs to a frame.Port or frame.Session, which has no goroutine while
// nothing happens. Shutdown ends and waits for all of them.
package hub

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/server/internal/registry"
	"example.com/converge/server/internal/ticket"
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
	// Room reports whether there is room for connections that are good to
	// have only: those that agents park. nil is yes.
	Room func() bool
	// ResumeWindow is how long an id is kept for an agent that has lost its
	// connection without a goodbye; 0 keeps none.
	ResumeWindow time.Duration
	// Tickets makes and checks the tickets by which agents are known to later
	// runs of the server and to others; nil gives none and believes none.
	Tickets *ticket.Office
	// PassOf returns the pass of a request that was let in; nil, as a function
	// or as its result, is none.
	PassOf func(*http.Request) Pass
	// Logger may be nil.
	Logger *slog.Logger
}

// Hub serves the three websocket endpoints. Its methods may be called
// concurrently.
type Hub struct {
	cfg    Config
	log    *slog.Logger
	agents registry.Registry[*agent]
	poller *frame.Poller

	present present
	closed  sync.Once // the poller is

	// The constants; tests have less time.
	helloWait, proofWait, dialWait, sendWait, answerWait time.Duration

	ctx   context.Context // ends with Shutdown
	end   context.CancelFunc
	mu    sync.Mutex
	over  bool               // no more work is taken; guards wg.Add against Wait
	live  map[ender]struct{} // what Shutdown ends
	wg    sync.WaitGroup     // every handler, and every connection taken over
	count atomic.Uint64      // numbers the clients

	vmu    sync.Mutex
	visits map[uint64]*visit
}

// ender is a frame.Port or frame.Session.
type ender interface{ Shutdown() }

// visit is a client that waits for its agent's dial-back, or leave to park.
type visit struct {
	agent *agent
	token string
	// answer has room for one: the one who removes the visit from the map may
	// send it, and then must. It is nil for leave to park, which is good until
	// the given time.
	answer chan answer
	until  time.Time
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
	if cfg.Room == nil {
		cfg.Room = func() bool { return true }
	}
	h := &Hub{
		cfg: cfg, log: cfg.Logger,
		agents:  registry.NewMemory[*agent](cfg.ResumeWindow),
		visits:  make(map[uint64]*visit),
		live:    make(map[ender]struct{}),
		present: newPresent(),

		helloWait: helloWait, proofWait: proofWait, dialWait: dialWait, sendWait: sendWait, answerWait: answerWait,
	}
	h.ctx, h.end = context.WithCancel(context.Background())
	var err error
	if h.poller, err = frame.NewPoller(); err != nil {
		h.log.Warn("idle connections will need more memory", "err", err)
	}
	return h
}

// Shutdown refuses new connections, ends all others with 1012, so that peers
// come back to whoever serves next, and waits for them as long as ctx lets it.
// It must be called, and may be more than once.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.over = true
	var ends sync.WaitGroup
	for e := range h.live {
		ends.Go(e.Shutdown)
	}
	h.mu.Unlock()
	h.end()
	done := make(chan struct{})
	go func() {
		ends.Wait()
		h.wg.Wait()
		h.closed.Do(h.poller.Close)
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("not all connections ended in time: %w", ctx.Err())
	}
}

// track makes Shutdown end e, at once if it has been called.
func (h *Hub) track(e ender) {
	h.mu.Lock()
	h.live[e] = struct{}{}
	over := h.over
	h.mu.Unlock()
	if over {
		e.Shutdown()
	}
}

func (h *Hub) untrack(e ender) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, e)
}

// ending reports whether Shutdown has been called.
func (h *Hub) ending() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.over
}

// options are those of all connections.
func (h *Hub) options() frame.Options {
	return frame.Options{Ping: h.cfg.KeepAlive, Poller: h.poller}
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

// retryAfter says that it is worth while to ask again soon.
func retryAfter(w http.ResponseWriter) { w.Header().Set("Retry-After", "1") }

// admit does what all three endpoints begin with. If it returns true the
// caller must call h.wg.Done.
func (h *Hub) admit(w http.ResponseWriter, r *http.Request, pass Pass) bool {
	if !frame.IsHandshake(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		pass.Ended(End{Status: http.StatusUpgradeRequired, Reason: "no websocket"})
		refuse(w, http.StatusUpgradeRequired, "this address speaks websocket only: see the server's home page for how to use it")
		return false
	}
	if !h.enter() {
		retryAfter(w)
		pass.Ended(End{Status: http.StatusServiceUnavailable, Reason: errEnding.Error()})
		refuse(w, http.StatusServiceUnavailable, errEnding.Error())
		return false
	}
	return true
}
