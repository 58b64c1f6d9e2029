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
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
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
	// maxClients is how many clients may be connected or connecting.
	maxClients = 128

	// The back-off between attempts doubles from the first to the longest.
	firstPause, longestPause = 200 * time.Millisecond, 5 * time.Second
)

// Config is what a Link needs.
type Config struct {
	// Server and ID say where to register and as whom.
	Server rendezvous.Server
	ID     string
	// KeepID makes a taken id an error; otherwise another one is chosen.
	KeepID bool
	// Transport and Header are used for every connection.
	Transport *http.Transport
	Header    http.Header
	// Patience is how long an unreachable server is retried before the first
	// registration. Afterwards the link tries as long as it runs.
	Patience time.Duration
	// KeepAlive is the mean ping interval; 0 is 20 s.
	KeepAlive time.Duration
	// Software and Meta describe the agent to the server.
	Software string
	Meta     map[string]string

	// Registered is called, never concurrently, when the agent has got an id:
	// the first time and whenever the id is another than before.
	Registered func(id string)
	// Serve is called in a goroutine of its own for each client and owns the
	// connection until it returns.
	Serve func(conn net.Conn, remote string)
	// Logger may be nil.
	Logger *slog.Logger
}

// Link is the agent's end of the rendezvous.
type Link struct {
	cfg     Config
	log     *slog.Logger
	key     ed25519.PrivateKey
	clients sync.WaitGroup
	slots   chan struct{}

	id       string // present id; Run's alone
	announce bool   // Registered is due
	ever     bool   // a registration has succeeded

	mu   sync.Mutex   // serialises control messages
	conn *wsconn.Conn // nil while not connected
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
	return &Link{cfg: cfg, log: cfg.Logger, key: key, id: cfg.ID, announce: true, slots: make(chan struct{}, maxClients)}, nil
}

// permanent marks an error that trying again does not mend.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// Run keeps the agent registered until ctx ends; then it says goodbye and
// waits for all Serve calls, which the caller must bring to an end. The error
// is nil after ctx, and otherwise a sentence on why there is no registration.
func (l *Link) Run(ctx context.Context) error {
	defer l.clients.Wait()
	start := time.Now()
	pause := firstPause
	for {
		registered, err := l.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if registered {
			l.log.Warn("connection to the server lost: connecting again", "err", err)
			pause = firstPause
		} else {
			var final permanent
			switch {
			case errors.As(err, &final):
				return final.error
			case !l.ever && (transport.Permanent(err) || time.Since(start) >= l.cfg.Patience):
				return transport.Explain(l.cfg.Server.String(), err)
			}
			l.log.Warn("cannot register with the server yet", "err", err)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		pause = min(2*pause, longestPause)
	}
}

// session connects, registers and serves until the connection ends.
func (l *Link) session(ctx context.Context) (registered bool, err error) {
	conn, err := l.register(ctx)
	if err != nil {
		return false, err
	}
	l.setConn(conn)
	defer func() {
		l.setConn(nil)
		_ = conn.Close()
	}()
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
	watch.Go(func() {
		select {
		case <-ctx.Done():
			_ = l.send(rendezvous.Message{Bye: &rendezvous.Bye{Text: "the agent has ended"}})
			_ = conn.Close()
		case <-done:
		}
	})
	err = l.listen(ctx, conn)
	close(done)
	watch.Wait()
	return true, err
}

func (l *Link) setConn(conn *wsconn.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
}

// send writes a control message on the present connection.
func (l *Link) send(m rendezvous.Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return errors.New("not connected to the server")
	}
	if err := l.conn.SetWriteDeadline(time.Now().Add(sendWait)); err != nil {
		return err
	}
	return rendezvous.Send(l.conn, m)
}

// register opens a control connection and goes through hello, challenge and
// proof. It changes the id if that is taken and may be changed.
func (l *Link) register(ctx context.Context) (*wsconn.Conn, error) {
	for {
		conn, err := l.tryRegister(ctx)
		var refused *rendezvous.Refused
		if !errors.As(err, &refused) {
			return conn, err
		}
		switch refused.Code {
		case rendezvous.RefusedTaken:
			if l.cfg.KeepID {
				return nil, permanent{fmt.Errorf("%w: choose another --id", err)}
			}
			id := rendezvous.Alternative(l.cfg.ID)
			l.log.Warn("the id is taken: using another", "taken", l.id, "id", id)
			l.id, l.announce = id, true
		case rendezvous.RefusedVersion, rendezvous.RefusedProof:
			return nil, permanent{err}
		default:
			return nil, err
		}
	}
}

func (l *Link) tryRegister(ctx context.Context) (*wsconn.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, registerWait)
	defer cancel()
	conn, err := wsconn.Dial(ctx, l.cfg.Server.AgentURL(l.id), l.cfg.Transport, l.cfg.Header,
		wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2, KeepAlive: l.cfg.KeepAlive})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = l.introduce(conn)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// introduce goes through the messages of a registration.
func (l *Link) introduce(conn *wsconn.Conn) error {
	public, _ := l.key.Public().(ed25519.PublicKey)
	err := rendezvous.Send(conn, rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.Version, MinVersion: rendezvous.MinVersion,
		Key: public, Software: l.cfg.Software, Meta: l.cfg.Meta,
	}})
	if err != nil {
		return err
	}
	m, err := expect(conn)
	if err != nil {
		return err
	}
	if m.Challenge == nil {
		return errors.New("the server sent no challenge")
	}
	if v := m.Challenge.Version; v < rendezvous.MinVersion || v > rendezvous.Version {
		return permanent{fmt.Errorf("the server chose protocol version %d, which this agent does not speak: download the agent from the server again", v)}
	}
	if err := rendezvous.Send(conn, rendezvous.Message{Proof: rendezvous.Prove(l.key, m.Challenge.Nonce, l.id)}); err != nil {
		return err
	}
	m, err = expect(conn)
	if err != nil {
		return err
	}
	if m.Registered == nil || m.Registered.ID != l.id {
		return errors.New("the server did not confirm the registration")
	}
	return nil
}

// expect receives a message and turns a refusal into an error.
func expect(conn *wsconn.Conn) (rendezvous.Message, error) {
	m, err := rendezvous.Receive(conn)
	if err != nil {
		return m, fmt.Errorf("registration: %w", err)
	}
	if m.Refused != nil {
		m.Refused.Text = transport.Printable(m.Refused.Text)
		return m, m.Refused
	}
	return m, nil
}

// listen handles what the server says until the connection ends.
func (l *Link) listen(ctx context.Context, conn *wsconn.Conn) error {
	for {
		m, err := rendezvous.Receive(conn)
		switch {
		case err != nil:
			return err
		case m.Refused != nil:
			return errors.New(transport.Printable(m.Refused.Text))
		case m.Bye != nil:
			return errors.New("the server said goodbye")
		case m.Dial != nil:
			l.answer(ctx, m.Dial)
		}
	}
}

// answer dials back for a client, unless there are too many.
func (l *Link) answer(ctx context.Context, d *rendezvous.Dial) {
	select {
	case l.slots <- struct{}{}:
	default:
		l.fail(d, "too many clients are connected to the agent")
		return
	}
	l.clients.Go(func() {
		defer func() { <-l.slots }()
		conn, err := l.dialBack(ctx, d)
		if err != nil {
			l.log.Warn("cannot dial back for a client", "client", d.Client, "err", err)
			l.fail(d, "the agent could not connect back")
			return
		}
		l.cfg.Serve(conn, transport.Printable(d.Remote))
	})
}

// fail tells the server; if that cannot be done its time limit ends the wait.
func (l *Link) fail(d *rendezvous.Dial, text string) {
	_ = l.send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: text}})
}

func (l *Link) dialBack(ctx context.Context, d *rendezvous.Dial) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	header := l.cfg.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set(rendezvous.ClientHeader, strconv.FormatUint(d.Client, 10))
	header.Set(rendezvous.TokenHeader, d.Token)
	return frame.Dial(ctx, l.cfg.Server.DataURL(), l.cfg.Transport, header, frame.Options{Ping: l.cfg.KeepAlive})
}
