package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// Limits of parked connections.
const (
	// parkWait is how long leave to park a connection is good for.
	parkWait = 30 * time.Second
	// answerWait is how long an agent has to accept a client on a parked
	// connection before it is dialled for.
	answerWait = 2 * time.Second
)

// spare is a data connection that an agent has parked: it waits for a client.
type spare struct {
	agent *agent
	port  *frame.Port
}

// park gives an agent leave to park a connection, if there is room; otherwise
// it says nothing, and the agent asks again later. What the agent was given
// before is void, so that it has one at most on its way.
func (a *agent) park() {
	if !a.hub.cfg.Room() {
		return
	}
	number := a.hub.count.Add(1)
	v := &visit{agent: a, token: newToken(), until: time.Now().Add(parkWait)}
	a.mu.Lock()
	if a.left {
		a.mu.Unlock()
		return
	}
	a.hub.drop(a.parking)
	a.parking = number
	a.mu.Unlock()
	a.hub.vmu.Lock()
	a.hub.visits[number] = v
	a.hub.vmu.Unlock()
	_ = a.tell(rendezvous.Message{Parking: &rendezvous.Parking{Client: number, Token: v.token}})
}

// newToken makes a token of 256 random bits.
func newToken() string { return rand.Text() + rand.Text() }

// drop forgets a visit without an answer: leave to park.
func (h *Hub) drop(number uint64) {
	h.vmu.Lock()
	defer h.vmu.Unlock()
	if v := h.visits[number]; v != nil && v.answer == nil {
		delete(h.visits, number)
	}
}

// serveSpare parks a connection. It replaces one that is parked, which may
// have died without a word.
func (h *Hub) serveSpare(peer frame.Peer, a *agent) {
	s := &spare{agent: a, port: frame.NewPort(peer, h.options())}
	h.track(s.port)
	s.port.Start(s)
	if !a.keep(s) {
		s.orphan()
	}
}

// keep makes s the agent's spare and reports whether the agent is there.
func (a *agent) keep(s *spare) bool {
	a.mu.Lock()
	old := a.spare
	if a.left {
		a.mu.Unlock()
		return false
	}
	a.spare = s
	a.mu.Unlock()
	if old != nil {
		old.port.CloseWith(frame.CloseNormal, "replaced by a newer one")
	}
	return true
}

// takeSpare takes the agent's spare, which may be nil.
func (a *agent) takeSpare() *spare {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.spare
	a.spare = nil
	return s
}

// orphan closes s, whose agent has left; if the hub ends, that is why, and so
// said whichever of the two connections hears of it first.
func (s *spare) orphan() {
	if s.agent.hub.ending() {
		s.port.Shutdown()
		return
	}
	s.port.CloseWith(frame.CloseGoingAway, "the control connection has ended")
}

// forget takes s from its agent, if it is its spare.
func (s *spare) forget() {
	s.agent.mu.Lock()
	defer s.agent.mu.Unlock()
	if s.agent.spare == s {
		s.agent.spare = nil
	}
}

// Payload implements frame.Handler: nothing is to be said before a client is
// there.
func (s *spare) Payload([]byte) {
	s.forget()
	s.port.CloseWith(frame.ClosePolicy, "nothing was asked yet")
}

// Ended implements frame.Handler.
func (s *spare) Ended(error) { s.forget() }

// Closed implements frame.Handler.
func (s *spare) Closed() {
	s.agent.hub.untrack(s.port)
	s.agent.hub.cfg.Closed()
	s.agent.hub.wg.Done()
}

// join starts a session of a client with the spare.
func (s *spare) join(v *visitor, client frame.Peer) *frame.Session {
	h := s.agent.hub
	// It is short, and so cannot fail.
	offer, _ := rendezvous.Encode(rendezvous.Message{Dial: &rendezvous.Dial{Client: v.number, Remote: v.remote, Protocol: v.protocol, Session: v.session}})
	return frame.JoinTrial(client, frame.Trial{
		Port: s.port, Offer: offer, Wait: h.answerWait,
		Answer: func(b []byte) (int, error) {
			m, n, err := rendezvous.Cut(b)
			switch {
			case err != nil || n == 0:
				return 0, err
			case m.DialFailed != nil:
				return 0, errors.New(m.DialFailed.Text)
			case m.Accepted == nil || m.Accepted.Client != v.number:
				return 0, errors.New("the agent did not accept the client")
			}
			return n, nil
		},
		Instead: func(ctx context.Context) (frame.Peer, error) {
			v.log().Info("a parked connection was of no use")
			data, _, err := h.call(ctx, s.agent, v)
			v.dialled = err == nil
			return data, err
		},
	}, h.options(), v.done)
}
