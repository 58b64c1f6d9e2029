// Package probe checks from outside that a server works, and with it whatever
// stands in front of it: it registers as an agent, comes as a client and says
// a word both ways. It knows of the server only what agents and clients do.
package probe

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// wait bounds a check.
const wait = 30 * time.Second

// word is what the two ends say to each other.
const word = "Converge probe"

// Check goes the whole way once, under a random id. Its error is a sentence
// that names the step that failed.
func Check(ctx context.Context, server rendezvous.Server, options transport.Options) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tr, err := options.Transport(server.String())
	if err != nil {
		return err
	}
	tr.DisableKeepAlives = true
	p := &probe{server: server, id: rendezvous.NewID(), tr: tr, header: options.Header}
	control, err := p.register(ctx)
	if err != nil {
		return fmt.Errorf("cannot register as an agent: %w", transport.Explain(server.String(), err))
	}
	defer control.Close()
	// What fails first ends the other, and is the error.
	ends, both := errgroup.WithContext(ctx)
	defer context.AfterFunc(both, func() { _ = control.SetDeadline(time.Unix(1, 0)) })()
	ends.Go(func() error {
		if err := p.agent(both, control); err != nil {
			return fmt.Errorf("cannot dial back as an agent: %w", err)
		}
		return nil
	})
	ends.Go(func() error {
		if err := p.client(both); err != nil {
			return fmt.Errorf("cannot connect as a client: %w", err)
		}
		return nil
	})
	if err := ends.Wait(); err != nil {
		return err
	}
	_ = control.SetDeadline(time.Now().Add(time.Second))
	_ = rendezvous.Send(control, rendezvous.Message{Bye: &rendezvous.Bye{Text: "the probe is done"}})
	return nil
}

type probe struct {
	server rendezvous.Server
	id     string
	tr     *http.Transport
	header http.Header
}

// register opens a control connection, on the adapter as an agent's is.
func (p *probe) register(ctx context.Context) (*wsconn.Conn, error) {
	control, err := wsconn.Dial(ctx, p.server.AgentURL(p.id), p.tr, p.header, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = control.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := p.introduce(control); err != nil {
		_ = control.Close()
		return nil, err
	}
	return control, nil
}

func (p *probe) introduce(control *wsconn.Conn) error {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	// The first version has all that is needed here.
	m, err := ask(control, rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.MinVersion, MinVersion: rendezvous.MinVersion, Key: public, Software: "probe",
	}})
	if err != nil {
		return err
	}
	if m.Challenge == nil {
		return errors.New("the server sent no challenge: check that it is a Converge server")
	}
	m, err = ask(control, rendezvous.Message{Proof: rendezvous.Prove(key, m.Challenge.Nonce, p.id)})
	if err == nil && m.Registered == nil {
		err = errors.New("the server did not confirm the registration")
	}
	return err
}

// ask sends a message and receives the next.
func ask(control *wsconn.Conn, m rendezvous.Message) (rendezvous.Message, error) {
	if err := rendezvous.Send(control, m); err != nil {
		return m, err
	}
	m, err := rendezvous.Receive(control)
	if err == nil && m.Refused != nil {
		err = errors.New(transport.Printable(m.Refused.Text))
	}
	return m, err
}

// agent dials back for one client and sends back what that says.
func (p *probe) agent(ctx context.Context, control *wsconn.Conn) error {
	m, err := rendezvous.Receive(control)
	switch {
	case err != nil:
		return err
	case m.Dial == nil:
		return errors.New("the server did not say that a client is there")
	}
	header := p.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set(rendezvous.ClientHeader, strconv.FormatUint(m.Dial.Client, 10))
	header.Set(rendezvous.TokenHeader, m.Dial.Token)
	conn, err := p.dial(ctx, p.server.DataURL(), header)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.Copy(conn, io.LimitReader(conn, int64(len(word)))); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn) // the client ends it
	return err
}

// client says the word and wants to hear it.
func (p *probe) client(ctx context.Context) error {
	conn, err := p.dial(ctx, p.server.ClientURL(p.id), p.header)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, word); err != nil {
		return err
	}
	got := make([]byte, len(word))
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != word {
		return errors.New("what came back is not what was sent")
	}
	return nil
}

// dial opens a data connection, on which nothing works any more after ctx.
func (p *probe) dial(ctx context.Context, url string, header http.Header) (net.Conn, error) {
	conn, err := frame.Dial(ctx, url, p.tr, header, frame.Options{})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	return conn, nil
}
