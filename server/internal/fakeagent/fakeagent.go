// Package fakeagent is an agent for the server's tests: it registers and dials
// back as the protocol says, and otherwise does only what a test tells it to,
// right or wrong. It must not be part of a program.
package fakeagent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"sync"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

// Agent is a registered agent. Receive and Serve must not be called together.
type Agent struct {
	// Conn is the control connection.
	Conn *wsconn.Conn
	// Server and ID are where it is registered.
	Server rendezvous.Server
	ID     string
	// Ticket is what came with the registration, or nil.
	Ticket *rendezvous.Ticket

	transport *http.Transport
	raw       net.Conn // beneath Conn
	sendMu    sync.Mutex
	visitors  sync.WaitGroup
}

// NewKey makes a run key.
func NewKey() ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // it has no cause but a broken system
	}
	return key
}

// Hello is the first message of an agent with this key.
func Hello(key ed25519.PrivateKey) rendezvous.Message {
	public, _ := key.Public().(ed25519.PublicKey)
	return rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.Version, MinVersion: rendezvous.MinVersion, Key: public, Software: "fake agent",
	}}
}

// Transport makes one that dials plainly and keeps nothing open.
func Transport() *http.Transport { return &http.Transport{DisableKeepAlives: true} }

// Connect opens a control connection and says nothing on it. A nil tr is
// Transport.
func Connect(ctx context.Context, server rendezvous.Server, id string, tr *http.Transport) (*Agent, error) {
	if tr == nil {
		tr = Transport()
	}
	a := &Agent{Server: server, ID: id, transport: tr}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { a.raw = info.Conn },
	})
	var err error
	a.Conn, err = wsconn.Dial(ctx, server.AgentURL(id), tr, nil, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Register connects and registers. A refusal is a *rendezvous.Refused. A nil
// tr is Transport.
func Register(ctx context.Context, server rendezvous.Server, id string, key ed25519.PrivateKey, tr *http.Transport) (*Agent, error) {
	return Return(ctx, server, id, key, nil, tr)
}

// Return is Register with a ticket.
func Return(ctx context.Context, server rendezvous.Server, id string, key ed25519.PrivateKey, ticket []byte, tr *http.Transport) (*Agent, error) {
	a, err := Connect(ctx, server, id, tr)
	if err != nil {
		return nil, err
	}
	if err := a.introduce(key, ticket); err != nil {
		_ = a.Conn.Close()
		return nil, err
	}
	return a, nil
}

func (a *Agent) introduce(key ed25519.PrivateKey, ticket []byte) error {
	hello := Hello(key)
	hello.Hello.Ticket = ticket
	m, err := a.Ask(hello)
	switch {
	case err != nil:
		return err
	case m.Challenge == nil:
		return fmt.Errorf("got %+v, want a challenge", m)
	}
	m, err = a.Ask(rendezvous.Message{Proof: rendezvous.Prove(key, m.Challenge.Nonce, a.ID)})
	switch {
	case err != nil:
		return err
	case m.Registered == nil || m.Registered.ID != a.ID:
		return fmt.Errorf("got %+v, want registered", m)
	}
	a.Ticket = m.Registered.Ticket
	return nil
}

// Send sends a message. It may be called concurrently.
func (a *Agent) Send(m rendezvous.Message) error {
	a.sendMu.Lock()
	defer a.sendMu.Unlock()
	return rendezvous.Send(a.Conn, m)
}

// Ask sends a message and receives the next one.
func (a *Agent) Ask(m rendezvous.Message) (rendezvous.Message, error) {
	if err := a.Send(m); err != nil {
		return rendezvous.Message{}, err
	}
	return a.Receive()
}

// Receive receives a message. A refusal is an error.
func (a *Agent) Receive() (rendezvous.Message, error) {
	m, err := rendezvous.Receive(a.Conn)
	if err == nil && m.Refused != nil {
		return m, m.Refused
	}
	return m, err
}

// Dialled receives the next message, which must be Dial.
func (a *Agent) Dialled() (*rendezvous.Dial, error) {
	m, err := a.Receive()
	if err == nil && m.Dial == nil {
		err = fmt.Errorf("got %+v, want dial", m)
	}
	return m.Dial, err
}

// DialBack opens the data connection that d asks for.
func (a *Agent) DialBack(ctx context.Context, d *rendezvous.Dial) (*frame.Conn, error) {
	return frame.Dial(ctx, a.Server.DataURL(), a.transport, DataHeader(d), frame.Options{})
}

// Park asks for leave to park a data connection and opens it. It reads the
// leave from the control connection.
func (a *Agent) Park(ctx context.Context) (*frame.Conn, error) {
	m, err := a.Ask(rendezvous.Message{Park: &rendezvous.Park{}})
	switch {
	case err != nil:
		return nil, err
	case m.Parking == nil:
		return nil, fmt.Errorf("got %+v, want parking", m)
	}
	return a.DialBack(ctx, &rendezvous.Dial{Client: m.Parking.Client, Token: m.Parking.Token})
}

// Accept waits for a client on a parked connection and accepts it.
func Accept(conn net.Conn) (*rendezvous.Dial, error) {
	m, err := rendezvous.Receive(conn)
	switch {
	case err != nil:
		return nil, err
	case m.Dial == nil:
		return nil, fmt.Errorf("got %+v, want dial", m)
	}
	return m.Dial, rendezvous.Send(conn, rendezvous.Message{Accepted: &rendezvous.Accepted{Client: m.Dial.Client}})
}

// DataHeader is the header of the dial-back that d asks for.
func DataHeader(d *rendezvous.Dial) http.Header {
	return http.Header{
		rendezvous.ClientHeader: {strconv.FormatUint(d.Client, 10)},
		rendezvous.TokenHeader:  {d.Token},
	}
}

// Serve dials back for every client and hands the connections to handle, each
// in a goroutine of its own, until the control connection ends. It waits for
// them, and returns how the control connection ended.
func (a *Agent) Serve(handle func(net.Conn)) error {
	defer a.visitors.Wait()
	for {
		d, err := a.Dialled()
		if err != nil {
			return err
		}
		a.visitors.Go(func() {
			conn, err := a.DialBack(context.Background(), d)
			if err != nil {
				_ = a.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: err.Error()}})
				return
			}
			handle(conn)
		})
	}
}

// Vanish ends the control connection as the death of a process does: without
// a word.
func (a *Agent) Vanish() { _ = errors.Join(a.raw.Close(), a.Conn.Close()) }
