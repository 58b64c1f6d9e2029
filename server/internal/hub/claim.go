package hub

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/registry"
)

// register gives the agent its id, if it may have it. The key is proven, and
// step is held.
func (a *agent) register(key ed25519.PublicKey) {
	claim := registry.Claim{Key: key, Since: a.since(key)}
	// The lock keeps a client's dial from overtaking the agent's registered.
	a.send.Lock()
	grant, err := a.hub.agents.Register(a.id, claim, a)
	if err != nil {
		a.send.Unlock()
		a.deny(rendezvous.RefusedTaken, takenText(a.id, err), nil)
		return
	}
	if a.hasLeft() { // while it did
		a.hub.agents.Vacate(a.id, a)
	}
	a.state = registered
	a.log("agent registered", "software", a.intro.hello.Software)
	a.hub.present.register(a, a.intro.hello)
	a.forgetIntro()
	a.pass.Joined(0, a.revoke)
	_ = a.tellLocked(rendezvous.Message{Registered: &rendezvous.Registered{ID: a.id, Ticket: a.newTicket(key, grant.Since)}})
	a.send.Unlock()
	if !grant.Displaced {
		return
	}
	// The former holder does not hold the id any more, so nothing is kept for it.
	old, refused := grant.Former, &rendezvous.Refused{Code: rendezvous.RefusedDisplaced, Text: "the agent has come back on a newer connection"}
	if grant.Stranger {
		a.hub.log.Warn("the id went back to the agent that had it before", "id", a.id, "remote", a.remote, "from", old.remote)
		refused = &rendezvous.Refused{Code: rendezvous.RefusedTaken,
			Text: fmt.Sprintf("the id %q is taken by another agent, which had it before the server knew of it", a.id)}
	}
	// Over a half-open link this waits for nothing but its own limits. We are
	// counted in, so the hub's end cannot have waited already.
	a.hub.wg.Go(func() { old.refuse(refused) })
}

// since returns since when the agent has had its id, if it has a good ticket of
// another server or another run that says so, and otherwise 0: of this run the
// registry knows more than a ticket says. One that is not good is no reason to
// refuse the agent: it may be of a server with another state key.
func (a *agent) since(key ed25519.PublicKey) int64 {
	shown := a.intro.hello.Ticket
	if a.hub.cfg.Tickets == nil || len(shown) == 0 {
		return 0
	}
	ticket, err := a.hub.cfg.Tickets.Check(shown, a.id, key)
	switch {
	case err != nil:
		a.log("agent's ticket is of no use", "err", err)
		return 0
	case ticket.Own:
		return 0
	}
	return ticket.Since
}

// newTicket makes a ticket, or nil where there are none.
func (a *agent) newTicket(key ed25519.PublicKey, since int64) *rendezvous.Ticket {
	office := a.hub.cfg.Tickets
	if office == nil {
		return nil
	}
	return &rendezvous.Ticket{Value: office.Make(a.id, key, since), Renew: int(office.Renew() / time.Second)}
}

// renew answers a registered agent that asks for a newer ticket. One that does
// not hold its id any more gets none. step is held.
func (a *agent) renew() {
	claim, ok := a.hub.agents.Claim(a.id, a)
	if !ok {
		return
	}
	if ticket := a.newTicket(claim.Key, claim.Since); ticket != nil {
		_ = a.tell(rendezvous.Message{Ticket: ticket})
	}
}

// takenText says why the registry refused an id.
func takenText(id string, err error) string {
	var reserved *registry.ReservedError
	if errors.As(err, &reserved) {
		return fmt.Sprintf("the id %q is taken by an agent that has lost its connection and may come back until %s", id, clock(reserved.Until))
	}
	return fmt.Sprintf("the id %q is taken by another agent", id)
}

// clock is a time of day as a sentence has it.
func clock(t time.Time) string { return t.UTC().Format("15:04:05") + " UTC" }
