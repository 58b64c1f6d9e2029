package hub

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// agent is a control connection. It has no goroutine of its own: its port
// calls it when something comes, and timers when nothing does. It keeps as
// little as it can, for most agents of a server wait.
type agent struct {
	hub    *Hub
	id     string
	remote string
	port   *frame.Port
	gone   chan struct{} // closed when the agent does not hold its id any more
	pass   Pass

	protocols []string // set before it is registered

	in []byte // the beginning of a message; Payload's alone

	step  sync.Mutex // serialises the steps of a registration
	state state
	intro *introduction // nil once registered
	why   string        // it ended; step guards it

	about about // once registered; the mutex of the hub's present guards it

	send sync.Mutex // serialises messages

	mu      sync.Mutex
	left    bool   // gone is closed
	spare   *spare // nil if none is parked
	parking uint64 // the number of the visit by which one may be
}

// state is how far a registration has come.
type state int

const (
	wantsHello state = iota
	wantsProof
	registered
	over
)

// introduction is what matters until an agent is registered.
type introduction struct {
	hello *rendezvous.Hello
	nonce []byte
	late  *time.Timer
}

// ServeAgent answers /agent/ID: it takes the control connection over.
func (h *Hub) ServeAgent(w http.ResponseWriter, r *http.Request, id string) {
	pass := h.passOf(r)
	if !h.admit(w, r, pass) {
		return
	}
	h.cfg.Opened()
	peer, err := frame.Accept(w, r, "")
	if err != nil {
		h.cfg.Closed()
		h.wg.Done()
		pass.Ended(End{Status: http.StatusBadRequest, Reason: err.Error()})
		h.log.Warn("agent's handshake failed", "id", id, "err", err)
		return
	}
	opts := h.options()
	opts.MaxFrame = rendezvous.MaxMessage + 2
	a := &agent{
		hub: h, id: id, remote: h.cfg.RemoteOf(r), gone: make(chan struct{}),
		port: frame.NewPort(peer, opts), intro: new(introduction), pass: pass,
	}
	a.step.Lock()
	a.intro.late = time.AfterFunc(h.helloWait, a.late)
	a.step.Unlock()
	h.track(a.port)
	a.port.Start(a)
}

// tell writes one control message. It ends the connection of an agent that
// does not take it in time: the clients that wait behind it would each wait as
// long again.
func (a *agent) tell(m rendezvous.Message) error {
	a.send.Lock()
	defer a.send.Unlock()
	return a.tellLocked(m)
}

func (a *agent) tellLocked(m rendezvous.Message) error {
	b, err := rendezvous.Encode(m)
	if err == nil {
		err = a.port.Send(b, a.hub.sendWait)
	}
	if err != nil {
		a.leave(false)
		a.port.Abort()
	}
	return err
}

// refuse tells the agent why its connection ends, and ends it.
func (a *agent) refuse(r *rendezvous.Refused) {
	_ = a.tell(rendezvous.Message{Refused: r})
	a.port.CloseWith(frame.ClosePolicy, r.Code)
}

// leave ends what the agent has: its parked connection, and the id, if it holds
// it, which is free after a goodbye and otherwise kept for its return.
func (a *agent) leave(goodbye bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left {
		return
	}
	a.left = true
	if goodbye {
		a.hub.agents.Remove(a.id, a)
	} else {
		a.hub.agents.Vacate(a.id, a)
	}
	close(a.gone)
	a.hub.drop(a.parking)
	if a.spare != nil {
		a.spare.orphan()
		a.spare = nil
	}
}

func (a *agent) hasLeft() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.left
}

// Payload implements frame.Handler.
func (a *agent) Payload(p []byte) {
	if len(a.in) > 0 {
		a.in = append(a.in, p...)
		p = a.in
	}
	for {
		m, n, err := rendezvous.Cut(p)
		if err != nil {
			a.in = nil
			a.malformed(err)
			return
		}
		if n == 0 {
			break
		}
		p = p[n:]
		a.take(m)
	}
	if a.in = nil; len(p) > 0 {
		a.in = append([]byte(nil), p...)
	}
}

// Ended implements frame.Handler.
func (a *agent) Ended(err error) {
	a.step.Lock()
	was := a.state
	a.state = over
	a.forgetIntro()
	if errors.Is(err, io.EOF) {
		err = errors.New("closed without a goodbye")
	}
	if a.why == "" {
		a.why = err.Error()
	}
	a.step.Unlock()
	a.leave(false)
	switch was {
	case registered:
		a.log("agent gone", "err", err)
	case wantsHello, wantsProof:
		a.log("agent refused", "err", fmt.Errorf("it did not register: %w", err))
	}
}

// Closed implements frame.Handler.
func (a *agent) Closed() {
	a.hub.untrack(a.port)
	a.hub.present.forget(a)
	a.hub.cfg.Closed()
	a.step.Lock()
	why := a.why
	a.step.Unlock()
	a.pass.Ended(End{Reason: why})
	a.hub.wg.Done()
}

// log writes a line. The attributes are put together here, for a logger of
// its own would be the largest part of an agent.
func (a *agent) log(text string, args ...any) {
	a.hub.log.Info(text, append([]any{"id", a.id, "remote", a.remote}, args...)...)
}

// forgetIntro is for when the introduction is over. step is held.
func (a *agent) forgetIntro() {
	if a.intro != nil {
		a.intro.late.Stop()
		a.intro = nil
	}
}

// malformed is called for what is no message.
func (a *agent) malformed(err error) {
	a.step.Lock()
	defer a.step.Unlock()
	switch a.state {
	case wantsHello, wantsProof:
		a.deny(rendezvous.RefusedMessage, a.expected(), err)
	case registered:
		a.state, a.why = over, err.Error()
		a.log("agent gone", "err", err)
		a.refuse(&rendezvous.Refused{Code: rendezvous.RefusedMessage, Text: err.Error()})
	}
}

// late is called when a message of the introduction did not come in time.
func (a *agent) late() {
	a.step.Lock()
	defer a.step.Unlock()
	if a.state == wantsHello || a.state == wantsProof {
		a.deny(rendezvous.RefusedMessage, a.expected(), errors.New("it did not come in time"))
	}
}

func (a *agent) expected() string {
	if a.state == wantsHello {
		return "the server expected a valid hello within ten seconds"
	}
	return "the server expected a valid proof within ten seconds"
}

// deny ends a registration with a sentence for the agent; cause may be nil.
// step is held.
func (a *agent) deny(code, text string, cause error) {
	refused := &rendezvous.Refused{Code: code, Text: text}
	if cause == nil {
		cause = refused
	}
	a.state, a.why = over, cause.Error()
	a.forgetIntro()
	a.hub.log.Warn("agent refused", "id", a.id, "remote", a.remote, "code", code, "err", cause)
	a.refuse(refused)
}

// take handles one message.
func (a *agent) take(m rendezvous.Message) {
	a.step.Lock()
	defer a.step.Unlock()
	switch a.state {
	case wantsHello:
		a.greet(m)
	case wantsProof:
		a.prove(m)
	case registered:
		a.hear(m)
	}
}

// greet answers the hello with a challenge.
func (a *agent) greet(m rendezvous.Message) {
	if m.Hello == nil {
		a.deny(rendezvous.RefusedMessage, a.expected(), errors.New("another message came"))
		return
	}
	version, refused := rendezvous.CommonVersion(m.Hello)
	if refused != nil {
		a.deny(refused.Code, refused.Text, nil)
		return
	}
	a.intro.late.Stop()
	a.intro.hello, a.intro.nonce = m.Hello, rendezvous.NewNonce()
	a.protocols = m.Hello.Protocols
	a.state = wantsProof
	a.intro.late = time.AfterFunc(a.hub.proofWait, a.late)
	_ = a.tell(rendezvous.Message{Challenge: &rendezvous.Challenge{Version: version, Nonce: a.intro.nonce}})
}

// prove checks the proof and registers the agent.
func (a *agent) prove(m rendezvous.Message) {
	if m.Proof == nil {
		a.deny(rendezvous.RefusedMessage, a.expected(), errors.New("another message came"))
		return
	}
	key := ed25519.PublicKey(a.intro.hello.Key)
	if !m.Proof.Verify(key, a.intro.nonce, a.id) {
		a.deny(rendezvous.RefusedProof, "the agent did not prove that it holds its key", nil)
		return
	}
	if err := a.pass.Prove(key); err != nil {
		a.deny(rendezvous.RefusedAccess, err.Error(), nil)
		return
	}
	a.register(key)
}

// hear handles what a registered agent says.
func (a *agent) hear(m rendezvous.Message) {
	switch {
	case m.Bye != nil:
		a.state, a.why = over, "goodbye: "+m.Bye.Text
		a.log("agent gone", "err", fmt.Errorf("goodbye: %s", m.Bye.Text))
		a.leave(true)
		a.port.CloseWith(frame.CloseNormal, "")
	case m.Park != nil:
		a.park()
	case m.Renew != nil:
		a.renew()
	case m.Status != nil:
		a.hub.present.tell(a, m.Status)
	case m.DialFailed != nil:
		a.hub.vmu.Lock()
		v := a.hub.visits[m.DialFailed.Client]
		a.hub.vmu.Unlock()
		if v != nil && v.agent == a && v.answer != nil && a.hub.take(m.DialFailed.Client, v) {
			v.answer <- answer{err: errors.New(m.DialFailed.Text)}
		}
	}
}
