// Package link keeps the agent registered with the rendezvous server and
// brings in the clients' connections. It knows nothing of what is spoken on
// them, nor of when the agent should end.
package link

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// Limits of the link.
const (
	// registerWait bounds one registration, connect included.
	registerWait = 30 * time.Second
	// dialWait bounds a dial-back; the server gives up at the same time.
	dialWait = 10 * time.Second
	// sendWait bounds the write of a control message.
	sendWait = 10 * time.Second
	// byeWait bounds that of the goodbye: CI systems kill soon after they asked.
	byeWait = time.Second
	// GoodbyeMost is how long Run takes after the end of its context, once its
	// last client has gone, however the server behaves: byeWait, and what a
	// connection takes to close.
	GoodbyeMost = 2 * time.Second
	// maxClients is how many clients may be connected or connecting.
	maxClients = 128
	// maxReturning is how many more connections may be there while those are
	// all taken, of clients that may be coming back to a stream that they have.
	maxReturning = 32
	// maxAlternatives is how many ids are tried in a row where each is taken.
	maxAlternatives = 3
	// The mean pause between attempts doubles from the first to the longest.
	firstPause, longestPause = 200 * time.Millisecond, 5 * time.Second
)

// Config is what a Link needs.
type Config struct {
	// Server and ID say where to register and as whom.
	Server rendezvous.Server
	ID     string
	// KeepID makes a taken id an error; otherwise another one is chosen.
	KeepID bool
	// Transport and Header are used for every connection. The transport must
	// not be nil, nor keep idle connections, which nobody would close.
	Transport *http.Transport
	Header    http.Header
	// Credential, if not nil, returns the token with which a registration is
	// made; it is asked for each. The server may bind it to the run key.
	Credential func(ctx context.Context) (string, error)
	// Patience is how long an unreachable server is retried before the first
	// registration. Afterwards the link tries as long as it runs.
	Patience time.Duration
	// KeepAlive is the mean ping interval; 0 is 20 s.
	KeepAlive time.Duration
	// Software and Meta describe the agent to the server.
	Software string
	Meta     map[string]string
	// Protocols are the websocket subprotocols that Serve knows besides the
	// plain stream, the best first.
	Protocols []string

	// Registered is called, never concurrently, when the agent has got an id:
	// the first time and whenever the id is another than before.
	Registered func(id string)
	// Serve is called in a goroutine of its own for each client's connection
	// and owns it until it returns.
	Serve func(conn net.Conn, client Client)
	// Logger may be nil.
	Logger *slog.Logger
}

// Client is what the server says of a client's connection.
type Client struct {
	// Remote is where it came from, as the server saw it; it may be empty, and
	// is fit to be shown.
	Remote string
	// Protocol is the one of Protocols that the client speaks, or "".
	Protocol string
	// Session is the id of the client's session, the server's word for it in
	// its log and the client's; "" if the server has none.
	Session string
	// Full says that there is no room for another client: Serve may take the
	// connection only for one that it has already, and must return soon.
	Full bool
}

// clientOf is the client that a dial is about.
func clientOf(d *rendezvous.Dial) Client {
	return Client{Remote: transport.Printable(d.Remote), Protocol: d.Protocol, Session: d.Session}
}

// enter gives a client a place, and the function that gives it back; false if
// there is none. A client with a protocol of its own may be one that is here
// already, on a connection that is lost: that must not keep it out.
func (l *Link) enter(d *rendezvous.Dial) (c Client, leave func(), ok bool) {
	c = clientOf(d)
	select {
	case l.slots <- struct{}{}:
		return c, func() { <-l.slots }, true
	default:
	}
	if c.Protocol == "" {
		return c, nil, false
	}
	select {
	case l.returns <- struct{}{}:
		c.Full = true
		return c, func() { <-l.returns }, true
	default:
		return c, nil, false
	}
}

// Link is the agent's end of the rendezvous.
type Link struct {
	cfg     Config
	log     *slog.Logger
	key     ed25519.PrivateKey
	clients sync.WaitGroup
	slots   chan struct{} // one for each client
	returns chan struct{} // one for each connection that came when slots was full

	smu     sync.Mutex
	status  *rendezvous.Status // the last that was said; nil for none
	changed chan struct{}      // one element: look at the status

	// The constants; tests have less time.
	registerWait, dialWait, sendWait, byeWait, firstPark, nextPark time.Duration

	// The rest is Run's alone.
	id       string // the present one
	ticket   []byte // the newest for it, nil if there is none
	announce bool   // Registered is due
	ever     bool   // a registration has succeeded
	pause    backoff
}

// New makes a Link with a fresh run key: the proof, towards the server, that
// it is the same agent that comes back.
func New(cfg Config) (*Link, error) {
	if err := rendezvous.ValidID(cfg.ID); err != nil {
		return nil, err
	}
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot make the agent's run key: %w", err)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{
		cfg: cfg, log: cfg.Logger, key: key, slots: make(chan struct{}, maxClients),
		returns:      make(chan struct{}, maxReturning),
		changed:      make(chan struct{}, 1),
		registerWait: registerWait, dialWait: dialWait, sendWait: sendWait, byeWait: byeWait,
		firstPark: firstPark, nextPark: nextPark,
		id: cfg.ID, announce: true, pause: newBackoff(firstPause, longestPause),
	}, nil
}

// permanent marks an error that trying again does not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Run keeps the agent registered until ctx ends; then it says goodbye and
// waits for all Serve calls, which the caller must bring to an end. The error
// is nil after ctx, and otherwise a sentence on why there is no registration.
// Call it once.
func (l *Link) Run(ctx context.Context) error {
	defer l.clients.Wait()
	start := time.Now()
	for {
		registered, err := l.session(ctx)
		var final permanent
		switch {
		case ctx.Err() != nil:
			return nil
		case registered:
			l.log.Warn("connection to the server lost: connecting again", "err", err)
		case errors.As(err, &final):
			if l.ever {
				l.log.Warn("the place at the server is lost: whoever is connected may stay, nobody new comes", "err", final.error)
			}
			return final.error
		case l.ever && unwelcome(err):
			l.log.Warn("the place at the server is lost: whoever is connected may stay, nobody new comes", "err", err)
			return err
		case !l.ever && (transport.Permanent(err) || time.Since(start) >= l.cfg.Patience):
			return err
		default:
			l.log.Warn("cannot register with the server yet", "err", err)
		}
		timer := time.NewTimer(l.pause.next())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// session connects, registers and serves until the connection ends.
func (l *Link) session(ctx context.Context) (registered bool, err error) {
	c, err := l.register(ctx)
	if err != nil {
		return false, err
	}
	defer c.conn.Close()
	start := time.Now()
	l.ever = true
	if l.announce {
		l.announce = false
		if l.cfg.Registered != nil {
			l.cfg.Registered(l.id)
		}
	} else {
		l.log.Info("registered again", "id", l.id)
	}
	// The end of ctx is a goodbye, which frees the id at once.
	done := make(chan struct{})
	var watch sync.WaitGroup
	chores, leave := context.WithCancel(ctx)
	defer leave()
	if c.version >= rendezvous.SpareVersion {
		watch.Go(func() { l.park(chores, c) })
	}
	if c.renew > 0 {
		watch.Go(func() { l.renew(chores, c) })
	}
	watch.Go(func() { l.tellStatus(chores, c) })
	watch.Go(func() {
		select {
		case <-ctx.Done():
			c.goodbye(l.byeWait)
		case <-done:
		}
	})
	err = l.listen(ctx, c)
	var closed *wsconn.CloseError
	l.pause.held(start, errors.As(err, &closed) && closed.Code == wsconn.ServiceRestart)
	close(done)
	leave()
	watch.Wait()
	return true, err
}
