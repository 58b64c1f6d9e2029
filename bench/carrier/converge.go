package carrier

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

// controlWait bounds a registration, and each step of parking.
const controlWait = 30 * time.Second

// fakeAgent is an agent that does what the protocol asks for and no more: the
// server must not notice that nobody speaks SSH behind it.
type fakeAgent struct {
	end     End
	server  rendezvous.Server
	control *wsconn.Conn
	sending sync.Mutex
	leave   chan *rendezvous.Parking
	clients sync.WaitGroup
}

func (e End) serveConverge(ctx context.Context) error {
	a := &fakeAgent{end: e, server: rendezvous.Server{Host: e.Address}, leave: make(chan *rendezvous.Parking, 1)}
	dialling, done := context.WithTimeout(ctx, controlWait)
	defer done()
	var err error
	a.control, err = wsconn.Dial(dialling, a.server.AgentURL(e.ID), plainTransport(), nil,
		wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		return err
	}
	defer a.control.Close()
	stop := context.AfterFunc(ctx, func() { _ = a.control.Close() })
	defer stop()
	version, err := a.introduce()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer a.clients.Wait()
	defer cancel()
	if version < rendezvous.SpareVersion {
		e.Ready(e.Address)
	} else {
		a.clients.Go(func() { a.park(ctx) })
	}
	return a.listen(ctx)
}

// listen does what the server asks for until the connection ends.
func (a *fakeAgent) listen(ctx context.Context) error {
	for {
		m, err := rendezvous.Receive(a.control)
		switch {
		case err != nil:
			return err
		case m.Refused != nil:
			return m.Refused
		case m.Bye != nil:
			return errors.New("the server said goodbye")
		case m.Parking != nil:
			select {
			case a.leave <- m.Parking:
			default: // one is asked for at a time
			}
		case m.Dial != nil:
			a.clients.Go(func() { a.answer(ctx, m.Dial) })
		}
	}
}

// answer dials back for a client.
func (a *fakeAgent) answer(ctx context.Context, d *rendezvous.Dial) {
	conn, err := a.dialBack(ctx, d.Client, d.Token)
	if err != nil {
		_ = a.send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: err.Error()}})
		return
	}
	a.end.handle(ctx, conn)
}

// park keeps one connection parked, as the agent does. The far end is ready
// when the first one is: an idle agent has its spare. Without leave it is ready
// as well, and clients are dialled back for.
func (a *fakeAgent) park(ctx context.Context) {
	ready := sync.OnceFunc(func() { a.end.Ready(a.end.Address) })
	defer func() {
		if ctx.Err() == nil {
			ready()
		}
	}()
	for {
		conn, err := a.parked(ctx)
		if err != nil {
			return
		}
		ready()
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		m, err := rendezvous.Receive(conn)
		if err == nil && m.Dial != nil {
			err = rendezvous.Send(conn, rendezvous.Message{Accepted: &rendezvous.Accepted{Client: m.Dial.Client}})
		}
		stop()
		if err != nil || m.Dial == nil {
			_ = conn.Close()
			return
		}
		a.clients.Go(func() { a.end.handle(ctx, conn) })
	}
}

// parked asks for leave to park a connection and opens it.
func (a *fakeAgent) parked(ctx context.Context) (net.Conn, error) {
	if err := a.send(rendezvous.Message{Park: &rendezvous.Park{}}); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, controlWait)
	defer cancel()
	select {
	case leave := <-a.leave:
		return a.dialBack(ctx, leave.Client, leave.Token)
	case <-ctx.Done():
		return nil, fmt.Errorf("no leave to park: %w", ctx.Err())
	}
}

func (a *fakeAgent) dialBack(ctx context.Context, client uint64, token string) (net.Conn, error) {
	header := http.Header{}
	header.Set(rendezvous.ClientHeader, strconv.FormatUint(client, 10))
	header.Set(rendezvous.TokenHeader, token)
	return frame.Dial(ctx, a.server.DataURL(), plainTransport(), header, frame.Options{})
}

func (a *fakeAgent) send(m rendezvous.Message) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	return rendezvous.Send(a.control, m)
}

// introduce goes through a registration with a fresh key and returns the
// protocol version.
func (a *fakeAgent) introduce() (int, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return 0, err
	}
	m, err := a.ask(rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.Version, MinVersion: rendezvous.MinVersion, Key: public, Software: "bench",
	}})
	switch {
	case err != nil:
		return 0, err
	case m.Challenge == nil:
		return 0, errors.New("the server sent no challenge")
	}
	version := m.Challenge.Version
	m, err = a.ask(rendezvous.Message{Proof: rendezvous.Prove(private, m.Challenge.Nonce, a.end.ID)})
	switch {
	case err != nil:
		return 0, err
	case m.Registered == nil:
		return 0, errors.New("the server did not confirm the registration")
	}
	return version, nil
}

// ask sends a message and receives the answer. A refusal is an error.
func (a *fakeAgent) ask(m rendezvous.Message) (rendezvous.Message, error) {
	if err := a.send(m); err != nil {
		return m, err
	}
	m, err := rendezvous.Receive(a.control)
	if err == nil && m.Refused != nil {
		return m, m.Refused
	}
	return m, err
}
