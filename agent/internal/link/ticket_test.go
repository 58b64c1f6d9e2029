package link

import (
	"bytes"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
)

// confirm ends a registration with a ticket.
func confirm(t *testing.T, c *servertest.Control, value string, renew int) {
	t.Helper()
	check(t, c.Challenge())
	check(t, c.Say(rendezvous.Message{Registered: &rendezvous.Registered{
		ID: c.ID, Ticket: &rendezvous.Ticket{Value: []byte(value), Renew: renew}}}))
}

// shows checks the ticket in an agent's hello.
func shows(t *testing.T, c *servertest.Control, want string) {
	t.Helper()
	if got := c.Hello.Ticket; !bytes.Equal(got, []byte(want)) {
		t.Errorf("the agent shows the ticket %q, want %q", got, want)
	}
}

// TestTicket is shown by an agent that comes back: the newest that it has.
func TestTicket(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		const renew = 100
		b := startOver(t, server, nil, nil)
		c := b.control()
		confirm(t, c, "first", renew)
		shows(t, c, "")
		// It asks for a newer one in time, and goes on asking.
		asked := time.Now()
		for _, value := range []string{"second", "third"} {
			m, err := hearRenew(c)
			if err != nil || m.Renew == nil {
				t.Fatalf("the agent said %+v (%v), want that it wants a newer ticket", m, err)
			}
			within(t, "asking", time.Since(asked), renew/2*time.Second, renew*time.Second)
			asked = time.Now()
			check(t, c.Say(rendezvous.Message{Ticket: &rendezvous.Ticket{Value: []byte(value), Renew: renew}}))
			synctest.Wait()
		}
		check(t, c.Close())

		// A server that gives none does not make it forget, and is not asked.
		c = b.registered()
		shows(t, c, "third")
		said := make(chan rendezvous.Message, 1)
		go func() {
			m, _ := hearRenew(c)
			said <- m
		}()
		time.Sleep(2 * renew * time.Second)
		server.Answer(http.NotFound)
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 7, Token: "t"}}))
		if m := receive(t, "an answer", said); m.DialFailed == nil {
			t.Errorf("the agent said %+v, want nothing but that it cannot dial back", m)
		}
		server.Answer(nil)
		check(t, c.Close())
		c = b.control()
		confirm(t, c, "fourth", renew)
		shows(t, c, "third")
		check(t, c.Close())
		c = b.registered()
		shows(t, c, "fourth")
		synctest.Wait()
		b.end()
		saysBye(t, c)
	})
}

// hearRenew is Hear with as much patience as an agent has.
func hearRenew(c *servertest.Control) (rendezvous.Message, error) {
	for {
		if err := c.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			return rendezvous.Message{}, err
		}
		m, err := rendezvous.Receive(c)
		if err != nil || m.Park == nil {
			return m, err
		}
	}
}

// TestTicketIsForOneID: under another id it is not shown.
func TestTicketIsForOneID(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	c := b.control()
	confirm(t, c, "mine", 100)
	check(t, c.Close())
	c = b.control()
	check(t, c.Refuse(rendezvous.RefusedTaken, "taken"))
	shows(t, c, "mine")
	c = b.registered()
	if c.ID == "job" {
		t.Error("the agent kept its id")
	}
	shows(t, c, "")
}

// TestBadTicket is none of a server of this protocol.
func TestBadTicket(t *testing.T) {
	for name, ticket := range map[string]rendezvous.Ticket{
		"empty":     {Renew: 1},
		"too long":  {Value: make([]byte, rendezvous.MaxTicket+1), Renew: 1},
		"no renew":  {Value: []byte("x")},
		"renew < 0": {Value: []byte("x"), Renew: -1},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, newServer(t), nil, nil)
			c := b.control()
			check(t, c.Challenge())
			check(t, c.Say(rendezvous.Message{Registered: &rendezvous.Registered{ID: c.ID, Ticket: &ticket}}))
			b.fails("malformed control message", "ticket: it ")
		})
	}
}
