package hub

import (
	"crypto/ed25519"
	"net/http"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// Pass goes with one agent's control connection, one client or one dial-back
// through the hub: whoever let it in hears what becomes of it, and may end it.
// The hub calls it from any goroutine, but never concurrently.
type Pass interface {
	// Prove is told the run key that an agent has proved. An error, one
	// sentence for the agent, keeps it from being registered.
	Prove(key ed25519.PublicKey) error
	// Session is the id of a client's session, which it has from the beginning.
	Session() string
	// Joined says that an agent is registered, or a client has its agent;
	// number is the client's. end ends that again, with a sentence for the
	// peer; it may be called at any time, and returns at once.
	Joined(number uint64, end func(reason string))
	// Ended is the last call, and always comes.
	Ended(End)
}

// End is what became of somebody.
type End struct {
	// Status is that of a refused handshake; 0 if there was none.
	Status int
	// Away says that a client came for an agent that has lost its connection
	// and may come back: the id is right.
	Away bool
	// Reason is why it ended, for logs.
	Reason string
	// ToAgent and ToClient are the bytes that were moved.
	ToAgent, ToClient int64
}

// noPass is that of a hub which nobody watches.
type noPass struct{}

func (noPass) Session() string               { return rendezvous.NewSession() }
func (noPass) Prove(ed25519.PublicKey) error { return nil }
func (noPass) Joined(uint64, func(string))   {}
func (noPass) Ended(End)                     {}

// passOf returns a request's pass.
func (h *Hub) passOf(r *http.Request) Pass {
	if h.cfg.PassOf != nil {
		if pass := h.cfg.PassOf(r); pass != nil {
			return pass
		}
	}
	return noPass{}
}

// later runs f in a goroutine that Shutdown waits for, unless that has been
// called.
func (h *Hub) later(f func()) {
	if h.enter() {
		go func() {
			defer h.wg.Done()
			f()
		}()
	}
}

// revoke ends a registration, for good: the id is free, and not kept for the
// agent.
func (a *agent) revoke(reason string) {
	a.hub.later(func() {
		a.step.Lock()
		if a.state != registered {
			a.step.Unlock()
			return
		}
		a.state, a.why = over, reason
		a.step.Unlock()
		a.log("agent gone", "err", reason)
		a.leave(true)
		a.refuse(&rendezvous.Refused{Code: rendezvous.RefusedAccess, Text: reason})
	})
}

// revoke ends a client's session.
func (v *visitor) revoke(reason string) {
	v.hub.later(func() {
		v.mu.Lock()
		relay := v.relay
		v.revoked = true
		v.mu.Unlock()
		if relay != nil { // otherwise started does it
			relay.CloseWith(frame.ClosePolicy, reason)
		}
	})
}
