package link

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
)

// register opens a control connection and goes through hello, challenge and
// proof. It changes the id if that is taken and may be changed.
func (l *Link) register(ctx context.Context) (*control, error) {
	for tries := 0; ; tries++ {
		c, err := l.tryRegister(ctx)
		if err == nil {
			return c, nil
		}
		var refused *rendezvous.Refused
		if !errors.As(err, &refused) {
			return nil, err
		}
		switch refused.Code {
		case rendezvous.RefusedTaken:
			if l.cfg.KeepID {
				return nil, permanent{fmt.Errorf("%w: choose another --id", err)}
			}
			if tries == maxAlternatives {
				return nil, err // a server that takes none: later, if at all
			}
			id := rendezvous.Alternative(l.cfg.ID)
			l.log.Warn("the id is taken: using another", "taken", l.id, "id", id)
			l.id, l.announce, l.ticket = id, true, nil
		case rendezvous.RefusedVersion, rendezvous.RefusedProof, rendezvous.RefusedAccess:
			return nil, permanent{err}
		default:
			return nil, err
		}
	}
}

// tryRegister makes one attempt under the present id. Its error is a sentence.
func (l *Link) tryRegister(ctx context.Context) (*control, error) {
	ctx, cancel := context.WithTimeout(ctx, l.registerWait)
	defer cancel()
	server := l.cfg.Server.String()
	header, err := l.handshake(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := wsconn.Dial(ctx, l.cfg.Server.AgentURL(l.id), l.cfg.Transport, header,
		wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2, KeepAlive: l.cfg.KeepAlive})
	if err != nil {
		return nil, transport.Explain(server, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	c := &control{conn: conn, parking: make(chan *rendezvous.Parking, 1)}
	err = l.introduce(c)
	if !stop() {
		err = fmt.Errorf("it took longer than %v: %w", l.registerWait, ctx.Err())
	}
	if err == nil {
		return c, nil
	}
	_ = conn.Close()
	var refused *rendezvous.Refused
	var final permanent
	if errors.As(err, &refused) || errors.As(err, &final) {
		return nil, err // the server's own sentence, or ours
	}
	return nil, fmt.Errorf("cannot register at %s: check that it is a Converge server: %w", server, err)
}

// introduce goes through the messages of a registration.
func (l *Link) introduce(c *control) error {
	public, _ := l.key.Public().(ed25519.PublicKey)
	err := say(c.conn, rendezvous.Message{Hello: &rendezvous.Hello{
		Version: rendezvous.Version, MinVersion: rendezvous.MinVersion,
		Key: public, Software: l.cfg.Software, Meta: l.cfg.Meta, Protocols: l.cfg.Protocols,
		Ticket: l.ticket,
	}})
	if err != nil {
		return err
	}
	m, err := expect(c.conn)
	if err != nil {
		return err
	}
	if m.Challenge == nil {
		return errors.New("it sent no challenge")
	}
	c.version = m.Challenge.Version
	if c.version < rendezvous.MinVersion || c.version > rendezvous.Version {
		return permanent{fmt.Errorf("the server chose protocol version %d, which this agent does not speak: download the agent from the server again", c.version)}
	}
	if err := say(c.conn, rendezvous.Message{Proof: rendezvous.Prove(l.key, m.Challenge.Nonce, l.id)}); err != nil {
		return err
	}
	m, err = expect(c.conn)
	if err != nil {
		return err
	}
	if m.Registered == nil || m.Registered.ID != l.id {
		return errors.New("it did not confirm the registration")
	}
	if t := m.Registered.Ticket; t != nil {
		l.ticket, c.renew = t.Value, time.Duration(t.Renew)*time.Second
	}
	return nil
}

// say sends a message. What the server said before it hung up explains better
// than the failed write why that cannot be sent.
func say(conn *wsconn.Conn, m rendezvous.Message) error {
	err := rendezvous.Send(conn, m)
	if err == nil {
		return nil
	}
	if _, why := expect(conn); why != nil {
		return why
	}
	return err
}

// expect receives a message and turns a refusal into an error. Those that this
// version does not know are skipped; the connection's deadline bounds them.
func expect(conn *wsconn.Conn) (rendezvous.Message, error) {
	m, err := rendezvous.Receive(conn)
	for err == nil && m == (rendezvous.Message{}) {
		m, err = rendezvous.Receive(conn)
	}
	if err == nil && m.Refused != nil {
		return m, refusal(m.Refused)
	}
	return m, err
}

// refusal makes a refusal fit to be shown.
func refusal(r *rendezvous.Refused) *rendezvous.Refused {
	text := transport.Printable(r.Text)
	if text == "" {
		text = fmt.Sprintf("the server refused the agent without saying why (%q)", r.Code)
	}
	return &rendezvous.Refused{Code: r.Code, Text: text}
}
