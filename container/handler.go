package container

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"example.com/converge/container/internal/engine"
)

// Counter counts one kind of event. It may be called concurrently; the counters
// of Prometheus are such.
type Counter interface{ Inc() }

// Count is a Counter of its own.
type Count struct{ n atomic.Int64 }

// Inc adds one.
func (c *Count) Inc() { c.n.Add(1) }

// Value returns what was counted.
func (c *Count) Value() int64 { return c.n.Load() }

// open counts the containers that this process has made and not yet removed.
var open atomic.Int64

// Open returns how many containers this process has made and not yet removed.
func Open() int64 { return open.Load() }

// defaultLimit is the time limit of what has no other.
const defaultLimit = 60 * time.Second

// Handler is one network connection of an SSH server. Its methods may be called
// concurrently.
type Handler struct {
	client       net.TCPAddr
	connectionID string
	cfg          Config
	log          *slog.Logger
	engine       *engine.Client

	// alive ends when the connection does, and with it whatever waits for the
	// engine.
	alive context.Context
	end   context.CancelFunc
	// patience ends when programs are given no more time, and effort when
	// nothing is tried any more: see Hurry.
	patience, effort   context.Context
	noPatience, giveUp context.CancelFunc

	mu         sync.Mutex
	ending     bool
	connection *Connection
	// starting counts handshakes, whose container OnDisconnect removes too.
	starting sync.WaitGroup
	// leaving is for containers that may come to be when nobody wants them.
	leaving sync.WaitGroup
}

// New returns the handler of a connection from client. Its id is written on each
// container that is made for it. The engine is not asked anything yet: an error
// is the configuration's, in one sentence. The logger may be nil, and each of
// the counters, which are for the requests to the engine (customarily called
// backend_requests) and those that failed (backend_failures).
func New(client net.TCPAddr, connectionID string, cfg Config, logger *slog.Logger, requests, failures Counter) (*Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, failed("configure the container back end", err)
	}
	client.IP = append(net.IP(nil), client.IP...)
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	e, err := cfg.engine(requests, failures)
	if err != nil {
		return nil, failed("configure the container back end", err)
	}
	h := &Handler{
		client: client, connectionID: connectionID, cfg: cfg, engine: e,
		log: logger.With("connection", connectionID),
	}
	h.alive, h.end = context.WithCancel(context.Background())
	h.effort, h.giveUp = context.WithCancel(context.Background())
	h.patience, h.noPatience = context.WithCancel(h.effort)
	return h, nil
}

// OnHandshakeSuccess begins the connection of a user who has logged in. In
// ModeConnection it makes the container and waits until it runs; an existing
// one it looks for. It is called once.
func (h *Handler) OnHandshakeSuccess(username string) (*Connection, error) {
	h.mu.Lock()
	if h.ending || h.connection != nil {
		h.mu.Unlock()
		return nil, failed("begin the connection", ErrClosed)
	}
	c := &Connection{handler: h, username: username, sessions: map[*Session]struct{}{}}
	h.connection = c
	h.starting.Add(1)
	h.mu.Unlock()
	defer h.starting.Done()

	ctx, cancel := context.WithTimeout(h.alive, h.cfg.Timeouts.ContainerStart.or(defaultLimit))
	defer cancel()
	var err error
	switch e := &h.cfg.Execution; {
	case e.Existing != "":
		c.box, err = h.find(ctx)
	case e.mode() == ModeConnection:
		c.box, err = h.launch(ctx, username)
	}
	if err != nil {
		h.log.Error("the back end failed", "user", username, "err", err)
		return nil, failed("begin the connection", err)
	}
	return c, nil
}

// OnDisconnect ends whatever runs for the connection and removes its containers.
// It returns when that is done, or the time for it is up, and may be called more
// than once. The readers that were given to sessions as stdin must have come to
// their end, or come to it now.
func (h *Handler) OnDisconnect() {
	h.mu.Lock()
	h.ending = true
	c := h.connection
	h.mu.Unlock()
	h.end()
	h.starting.Wait()
	if c != nil {
		c.close()
	}
	h.leaving.Wait()
	h.engine.Close()
}

// OnShutdown asks the programs of all sessions to end, and waits until they have
// or ctx ends; what is left then is OnDisconnect's. New sessions are refused.
func (h *Handler) OnShutdown(ctx context.Context) {
	h.mu.Lock()
	h.ending = true
	c := h.connection
	h.mu.Unlock()
	if c == nil {
		return
	}
	// Nobody holds a lock while this waits.
	var wg sync.WaitGroup
	for _, s := range c.list() {
		wg.Go(func() { s.OnShutdown(ctx) })
	}
	wg.Wait()
}

// Hurry is for an OnDisconnect that may take no longer: programs that are hung up
// on get no time to end before they are killed, and what has not ended when limit
// has passed is left, containers to Sweep. It does not wait.
func (h *Handler) Hurry(limit time.Duration) {
	h.noPatience()
	time.AfterFunc(limit, h.giveUp)
}

func (h *Handler) isEnding() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ending
}

// Connection is a connection whose user has logged in. Its methods may be called
// concurrently.
type Connection struct {
	handler  *Handler
	username string
	// box is the container of all sessions; nil in ModeSession.
	box *box

	// dialing lets one at a time make a tunnel.
	dialing sync.Mutex

	mu        sync.Mutex
	closed    bool
	sessions  map[*Session]struct{}
	tunnels   map[string]*tunnel
	listeners uint64 // so far
}

// OnSessionChannel begins a session. The data that came with its request are
// ignored, as RFC 4254 has none.
func (c *Connection) OnSessionChannel(channelID uint64, _ []byte) (*Session, error) {
	if c.handler.isEnding() {
		return nil, failed("begin a session", ErrClosed)
	}
	s := newSession(c, channelID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, failed("begin a session", ErrClosed)
	}
	c.sessions[s] = struct{}{}
	return s, nil
}

// ContainerID returns the engine's id of the connection's container; "" in
// ModeSession.
func (c *Connection) ContainerID() string {
	if c.box == nil {
		return ""
	}
	return c.box.id
}

func (c *Connection) list() []*Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*Session, 0, len(c.sessions))
	for s := range c.sessions {
		list = append(list, s)
	}
	return list
}

func (c *Connection) forget(s *Session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, s)
}

// close ends everything of the connection.
func (c *Connection) close() {
	c.mu.Lock()
	c.closed = true
	tunnels := c.tunnels
	c.tunnels = nil
	c.mu.Unlock()
	// One that does not end keeps nobody waiting but itself.
	var wg sync.WaitGroup
	for _, t := range tunnels {
		wg.Go(t.close)
	}
	// With its container, all programs end at once.
	if c.box != nil && c.box.owned {
		c.box.remove()
	}
	for _, s := range c.list() {
		wg.Go(s.OnClose)
	}
	wg.Wait()
}

// find looks for the existing container.
func (h *Handler) find(ctx context.Context) (*box, error) {
	s, err := h.existing(ctx)
	if err != nil {
		return nil, err
	}
	b := &box{handler: h, id: s.ID, image: s.Image}
	if !h.cfg.Execution.DisableAgent {
		if err := b.findGuest(ctx); err != nil {
			var missing missingGuest
			if ctx.Err() != nil || engine.IsTransient(err) && !errors.As(err, &missing) {
				return nil, err
			}
			// A shell without signals is better than none.
			h.log.Warn("the container has no guest agent: there are no signals and no forwards", "container", s.ID, "err", err)
			b.guest = guest{}
		}
	}
	return b, nil
}

var errNoGuest = errors.New("there is no guest agent in the image: put converge-guest into it, or say which file to copy there")
