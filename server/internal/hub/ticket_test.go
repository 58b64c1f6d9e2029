package hub

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"testing"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/ticket"
)

// aTick makes sure that a claim from now on is younger than those before.
func aTick() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for begin := time.Now().UnixMilli(); time.Now().UnixMilli() <= begin; {
		<-tick.C
	}
}

// with makes a hub that has the state key that is all n, as after each of its
// restarts.
func with(n byte) func(*Hub) {
	return func(h *Hub) {
		keeping(h)
		h.cfg.Tickets = ticket.New(bytes.Repeat([]byte{n}, ticket.MinKey), h.cfg.ResumeWindow)
	}
}

// ticketOf registers an agent with a hub of its own, which the test's end ends,
// and returns its ticket.
func ticketOf(t *testing.T, n byte, id string, key ed25519.PrivateKey) *rendezvous.Ticket {
	t.Helper()
	a := serve(t, with(n)).register(id, key)
	if a.Ticket == nil || a.Ticket.Renew < 1 {
		t.Fatalf("its ticket is %+v", a.Ticket)
	}
	aTick()
	return a.Ticket
}

// TestRestartWithSquatter: who took the id while its holder was on its way back
// to the restarted server gives it up.
func TestRestartWithSquatter(t *testing.T) {
	key, thief := fakeagent.NewKey(), fakeagent.NewKey()
	mine := ticketOf(t, 1, "job", key)
	f := serve(t, with(1)) // the same server once more
	squatter := f.register("job", thief)
	f.wantTaken("job", "taken by another agent")
	if squatter.Ticket == nil {
		t.Fatal("it has no ticket")
	}
	waiting := f.dialLater("job") // which the squatter does not answer
	if _, err := squatter.Dialled(); err != nil {
		t.Fatal(err)
	}

	a, err := f.comesBack("job", key, mine)
	if err != nil {
		t.Fatal(err)
	}
	_, err = squatter.Receive()
	wantRefusal(t, squatter, err, rendezvous.RefusedTaken, `the id "job" is taken by another agent, which had it before`)
	if got := wait(t, "the client's end", waiting); got.err == nil {
		t.Error("the squatter's client was joined")
	}
	// Its ticket, of this run and younger, is worth nothing, now and later.
	_, err = f.comesBack("job", thief, squatter.Ticket)
	wantCode(t, err, rendezvous.RefusedTaken)
	end := make(chan error, 1)
	go func() { end <- a.Serve(say("mine")) }()
	if got := f.hear("job"); got != "mine" {
		t.Errorf("a client heard %q", got)
	}
	a.Vanish()
	wait(t, "the agent's end", end)
	f.gone("job")
	_, err = f.comesBack("job", thief, squatter.Ticket)
	wantCode(t, err, rendezvous.RefusedTaken)
}

// TestSquatterVanished: what is kept for a squatter goes to the holder as well.
func TestSquatterVanished(t *testing.T) {
	key := fakeagent.NewKey()
	mine := ticketOf(t, 1, "job", key)
	f := serve(t, with(1))
	f.register("job", fakeagent.NewKey()).Vanish()
	f.gone("job")
	f.wantTaken("job", "may come back until")
	if _, err := f.comesBack("job", key, mine); err != nil {
		t.Error(err)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var refused *rendezvous.Refused
	if !errors.As(err, &refused) || refused.Code != code {
		t.Errorf("got %v, want a refusal %q", err, code)
	}
}

// TestAgeGoesOn: a ticket of the new run is as old as the one that it follows,
// across runs, so that who had the id first has it in the end.
func TestAgeGoesOn(t *testing.T) {
	older, younger := fakeagent.NewKey(), fakeagent.NewKey()
	first := ticketOf(t, 1, "job", older)
	second := ticketOf(t, 1, "job", younger) // from a server that did not know of the other
	f := serve(t, with(1))
	a, err := f.comesBack("job", older, first)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.comesBack("job", younger, second)
	wantCode(t, err, rendezvous.RefusedTaken)

	// The other way round, and with the ticket of the second run.
	g := serve(t, with(1))
	b, err := g.comesBack("job", younger, second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.comesBack("job", older, a.Ticket); err != nil {
		t.Fatal(err)
	}
	_, err = b.Receive()
	wantRefusal(t, b, err, rendezvous.RefusedTaken, "had it before")
	_, err = g.comesBack("job", younger, b.Ticket)
	wantCode(t, err, rendezvous.RefusedTaken)
}

// TestOwnTicketIsNoClaim: within its life a server goes by what it knows. Who
// said goodbye cannot have the id back from the next one.
func TestOwnTicketIsNoClaim(t *testing.T) {
	f := serve(t, with(1))
	key := fakeagent.NewKey()
	a := f.register("job", key)
	if err := a.Send(rendezvous.Message{Bye: &rendezvous.Bye{}}); err != nil {
		t.Fatal(err)
	}
	f.gone("job")
	aTick()
	f.serveAgent("job", fakeagent.NewKey(), say("next"))
	_, err := f.comesBack("job", key, a.Ticket)
	wantCode(t, err, rendezvous.RefusedTaken)
	if got := f.hear("job"); got != "next" {
		t.Errorf("a client heard %q", got)
	}
}

// TestUselessTicket: it takes nothing from a holder, and nothing from the agent
// that shows it either, where the id is free.
func TestUselessTicket(t *testing.T) {
	key := fakeagent.NewKey()
	good := ticketOf(t, 1, "job", key).Value
	changed := bytes.Clone(good)
	changed[len(changed)-1]++
	for name, shown := range map[string][]byte{
		"another state key": ticketOf(t, 2, "job", key).Value,
		"another id":        ticketOf(t, 1, "other", key).Value,
		"another run key":   ticketOf(t, 1, "job", fakeagent.NewKey()).Value,
		"forged":            changed,
		"truncated":         good[:len(good)-1],
		"longest":           make([]byte, rendezvous.MaxTicket),
		"none":              nil,
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, with(1))
			holder := f.register("job", fakeagent.NewKey())
			_, err := f.comesBack("job", key, &rendezvous.Ticket{Value: shown})
			wantCode(t, err, rendezvous.RefusedTaken)
			if err := holder.Send(rendezvous.Message{Bye: &rendezvous.Bye{}}); err != nil {
				t.Fatal(err)
			}
			f.gone("job")
			if _, err := f.comesBack("job", key, &rendezvous.Ticket{Value: shown}); err != nil {
				t.Errorf("a free id: %v", err)
			}
		})
	}
	t.Run("oversize", func(t *testing.T) {
		_, err := serve(t, with(1)).comesBack("job", key, &rendezvous.Ticket{Value: make([]byte, rendezvous.MaxTicket+1)})
		wantCode(t, err, rendezvous.RefusedMessage)
	})
	// The one that all the others are not.
	f := serve(t, with(1))
	f.register("job", fakeagent.NewKey())
	if _, err := f.comesBack("job", key, &rendezvous.Ticket{Value: good}); err != nil {
		t.Errorf("a good ticket: %v", err)
	}
}

// TestNoStateKey: the server gives no tickets, and believes none.
func TestNoStateKey(t *testing.T) {
	key := fakeagent.NewKey()
	mine := ticketOf(t, 1, "job", key)
	f := serve(t, keeping)
	first := f.register("job", fakeagent.NewKey())
	if first.Ticket != nil {
		t.Errorf("it gives the ticket %+v", first.Ticket)
	}
	_, err := f.comesBack("job", key, mine)
	wantCode(t, err, rendezvous.RefusedTaken)
	// Who asks for one all the same is not heard.
	if err := first.Send(rendezvous.Message{Renew: &rendezvous.Renew{}}); err != nil {
		t.Fatal(err)
	}
	waiting := f.dialLater("job")
	d, err := first.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: "no"}}); err != nil {
		t.Fatal(err)
	}
	wait(t, "the client", waiting)
}

// TestRenew gives a newer ticket that is as good as the first, for as long as
// the agent has the id.
func TestRenew(t *testing.T) {
	f := serve(t, with(1))
	key := fakeagent.NewKey()
	a := f.register("job", key)
	aTick()
	m, err := a.Ask(rendezvous.Message{Renew: &rendezvous.Renew{}})
	if err != nil || m.Ticket == nil || bytes.Equal(m.Ticket.Value, a.Ticket.Value) || m.Ticket.Renew != a.Ticket.Renew {
		t.Fatalf("got %+v, %v, want a newer ticket than %+v", m.Ticket, err, a.Ticket)
	}
	between := ticketOf(t, 1, "job", fakeagent.NewKey())
	if m, err = a.Ask(rendezvous.Message{Renew: &rendezvous.Renew{}}); err != nil || m.Ticket == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	g := serve(t, with(1))
	if _, err := g.comesBack("job", fakeagent.NewKey(), between); err != nil {
		t.Fatal(err) // its key is another one: the ticket is of no use, the id is free
	}
	aTick()
	if _, err := g.comesBack("job", key, m.Ticket); err != nil {
		t.Errorf("the renewed ticket does not say since when: %v", err)
	}
}

// TestRollingServers: an agent goes from one server to another with the same
// state key, and its sessions stay.
func TestRollingServers(t *testing.T) {
	f, g := serve(t, with(1)), serve(t, with(1))
	key := fakeagent.NewKey()
	a := f.register("job", key)
	aTick()
	squatter := g.register("job", fakeagent.NewKey())
	b, err := g.comesBack("job", key, a.Ticket)
	if err != nil {
		t.Fatal(err)
	}
	_, err = squatter.Receive()
	wantRefusal(t, squatter, err, rendezvous.RefusedTaken, "had it before")
	end := make(chan error, 1)
	go func() { end <- b.Serve(echo) }()
	client := g.client("job")
	if _, err := io.WriteString(client, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "ping" {
		t.Errorf("%q, %v", got, err)
	}
	_ = client.Close()
	f.shutdown() // the first one is of no use any more
	if got := g.client("job"); got == nil {
		t.Error("no client gets in")
	} else {
		_ = got.Close()
	}
	_ = b.Conn.Close()
	wait(t, "the agent's end", end)
}
