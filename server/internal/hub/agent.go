package hub

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

// agent is a registered agent's control connection.
type agent struct {
	id   string
	conn *wsconn.Conn
	gone chan struct{} // closed when the agent no longer holds its id
	wait time.Duration // bounds a send

	mu sync.Mutex // serialises sends
}

// send writes one control message.
func (a *agent) send(m rendezvous.Message) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sendLocked(m)
}

// sendLocked ends the connection of an agent that does not take a message in
// time: the clients that wait behind it would each wait as long again.
func (a *agent) sendLocked(m rendezvous.Message) error {
	limit := time.Now().Add(a.wait)
	err := a.conn.SetWriteDeadline(limit)
	if err == nil {
		err = rendezvous.Send(a.conn, m)
	}
	if err == nil && !time.Now().Before(limit) {
		err = os.ErrDeadlineExceeded // the message is in a buffer of ours
	}
	if err != nil {
		_ = a.conn.Close()
	}
	return err
}

// refuse tells the agent why its connection ends, and ends it.
func (a *agent) refuse(r *rendezvous.Refused) {
	_ = a.send(rendezvous.Message{Refused: r})
	_ = a.conn.CloseWith(frame.ClosePolicy, r.Code)
}

// ServeAgent answers /agent/ID: it registers the agent and keeps its control
// connection until that ends.
func (h *Hub) ServeAgent(w http.ResponseWriter, r *http.Request, id string) {
	if !h.admit(w, r) {
		return
	}
	defer h.wg.Done()
	h.cfg.Opened()
	defer h.cfg.Closed()
	conn, err := wsconn.Accept(w, r, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2, KeepAlive: h.cfg.KeepAlive})
	if err != nil {
		h.log.Warn("agent's handshake failed", "id", id, "err", err)
		return
	}
	a := &agent{id: id, conn: conn, gone: make(chan struct{}), wait: h.sendWait}
	log := h.log.With("id", id, "remote", h.cfg.RemoteOf(r))

	// Whatever ends first, the connection does with it.
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-h.ctx.Done():
			_ = conn.CloseWith(frame.CloseServiceRestart, "the server is restarting")
		case <-stop:
		}
	})
	defer func() {
		close(stop)
		watch.Wait()
		_ = conn.Close()
	}()

	defer close(a.gone)
	defer h.agents.Remove(id, a)
	hello, err := h.register(a)
	if err != nil {
		log.Warn("agent refused", "err", err)
		return
	}
	log.Info("agent registered", "software", hello.Software)
	err = h.listen(a)
	log.Info("agent gone", "err", err)
}

// register goes through hello, challenge and proof. After an error the agent
// may hold the id: the caller removes it.
func (h *Hub) register(a *agent) (*rendezvous.Hello, error) {
	receive := func(wait time.Duration) (rendezvous.Message, error) {
		if err := a.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return rendezvous.Message{}, err
		}
		return rendezvous.Receive(a.conn)
	}
	deny := func(code, text string) error {
		refused := &rendezvous.Refused{Code: code, Text: text}
		a.refuse(refused)
		return refused
	}
	m, err := receive(h.helloWait)
	if err != nil || m.Hello == nil {
		_ = deny(rendezvous.RefusedMessage, "the server expected a valid hello within ten seconds")
		return nil, fmt.Errorf("no hello: %w", orUnexpected(err))
	}
	hello := m.Hello
	version, refused := rendezvous.CommonVersion(hello)
	if refused != nil {
		a.refuse(refused)
		return nil, refused
	}
	nonce := rendezvous.NewNonce()
	if err := a.send(rendezvous.Message{Challenge: &rendezvous.Challenge{Version: version, Nonce: nonce}}); err != nil {
		return nil, err
	}
	m, err = receive(h.proofWait)
	if err != nil || m.Proof == nil {
		_ = deny(rendezvous.RefusedMessage, "the server expected a valid proof within ten seconds")
		return nil, fmt.Errorf("no proof: %w", orUnexpected(err))
	}
	key := ed25519.PublicKey(hello.Key)
	if !m.Proof.Verify(key, nonce, a.id) {
		return nil, deny(rendezvous.RefusedProof, "the agent did not prove that it holds its key")
	}
	if err := a.conn.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	// The lock keeps a client's dial from overtaking the agent's registered.
	a.mu.Lock()
	old, displaced, err := h.agents.Register(a.id, key, a)
	if err != nil {
		a.mu.Unlock()
		return nil, deny(rendezvous.RefusedTaken, fmt.Sprintf("the id %q is taken by another agent", a.id))
	}
	err = a.sendLocked(rendezvous.Message{Registered: &rendezvous.Registered{ID: a.id}})
	a.mu.Unlock()
	if displaced {
		// Over a half-open link this waits for nothing but its own limits.
		h.wg.Go(func() {
			old.refuse(&rendezvous.Refused{Code: rendezvous.RefusedDisplaced, Text: "the agent has come back on a newer connection"})
		})
	}
	return hello, err
}

func orUnexpected(err error) error {
	if err == nil {
		return errors.New("another message came")
	}
	return err
}

// listen handles what a registered agent says until its connection ends.
func (h *Hub) listen(a *agent) error {
	for {
		m, err := rendezvous.Receive(a.conn)
		switch {
		case errors.Is(err, rendezvous.ErrMalformed):
			a.refuse(&rendezvous.Refused{Code: rendezvous.RefusedMessage, Text: err.Error()})
			return err
		case errors.Is(err, io.EOF):
			return errors.New("closed without a goodbye")
		case err != nil:
			return err
		case m.Bye != nil:
			return fmt.Errorf("goodbye: %s", m.Bye.Text)
		case m.DialFailed != nil:
			h.vmu.Lock()
			v := h.visits[m.DialFailed.Client]
			h.vmu.Unlock()
			if v != nil && v.agent == a && h.take(m.DialFailed.Client, v) {
				v.answer <- answer{err: errors.New(m.DialFailed.Text)}
			}
		}
	}
}
