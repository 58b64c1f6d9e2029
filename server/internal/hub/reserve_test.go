package hub

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/registry"
)

// keeping keeps ids longer than any test lasts.
func keeping(h *Hub) {
	h.cfg.ResumeWindow = time.Hour
	h.agents = registry.NewMemory[*agent](time.Hour)
}

// wantTaken checks that a stranger does not get the id, in a sentence.
func (f *fixture) wantTaken(id, sentence string) {
	f.t.Helper()
	_, err := fakeagent.Register(f.t.Context(), f.rv, id, fakeagent.NewKey(), nil)
	var refused *rendezvous.Refused
	if !errors.As(err, &refused) || refused.Code != rendezvous.RefusedTaken || !strings.Contains(refused.Text, sentence) {
		f.t.Errorf("a stranger's registration: %v, want a refusal with %q", err, sentence)
	}
}

// gone waits until the id has no holder.
func (f *fixture) gone(id string) {
	f.t.Helper()
	f.until("the end of "+id, func() bool {
		_, held := f.hub.agents.Lookup(id)
		return !held
	})
}

// TestReservation: an id whose agent has lost its connection is kept for it,
// however it was lost, and clients are told.
func TestReservation(t *testing.T) {
	for name, lose := range map[string]func(*fakeagent.Agent) error{
		"vanished":  func(a *fakeagent.Agent) error { a.Vanish(); return nil },
		"closed":    func(a *fakeagent.Agent) error { return a.Conn.Close() }, // but no bye
		"malformed": func(a *fakeagent.Agent) error { _, err := a.Conn.Write([]byte("\x00\x01x")); return err },
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, keeping)
			key := fakeagent.NewKey()
			if err := lose(f.register("job", key)); err != nil {
				t.Fatal(err)
			}
			f.gone("job")
			f.wantTaken("job", `the id "job" is taken by an agent that has lost its connection and may come back until `)
			f.wantTaken("job", " UTC")
			_, err := f.dial("job")
			wantRefused(t, err, http.StatusNotFound, `the agent "job" has lost its connection and may come back until `)
			if got := retryOf(t, f, "job"); got == "" {
				t.Error("the answer has no Retry-After")
			}
			if got := retryOf(t, f, "nobody"); got != "" {
				t.Errorf("clients of nobody are to try again after %s", got)
			}
			f.serveAgent("job", key, say("back"))
			if got := f.hear("job"); got != "back" {
				t.Errorf("after the return a client heard %q", got)
			}
			f.wantTaken("job", "taken by another agent")
		})
	}
}

// retryOf is the Retry-After of a refused client.
func retryOf(t *testing.T, f *fixture, id string) string {
	t.Helper()
	_, r := f.raw(handshake(f, "/client/"+id, nil))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %s", resp.Status)
	}
	return resp.Header.Get("Retry-After")
}

// TestGoodbyeFreesTheID at once.
func TestGoodbyeFreesTheID(t *testing.T) {
	f := serve(t, keeping)
	a := f.register("job", fakeagent.NewKey())
	if err := a.Send(rendezvous.Message{Bye: &rendezvous.Bye{Text: "done"}}); err != nil {
		t.Fatal(err)
	}
	f.gone("job")
	_, err := f.dial("job")
	wantRefused(t, err, http.StatusNotFound, "no agent is registered")
	f.serveAgent("job", fakeagent.NewKey(), say("new"))
	if got := f.hear("job"); got != "new" {
		t.Errorf("a client heard %q", got)
	}
}

// TestNobodyIsKept: who did not register has nothing to keep.
func TestNobodyIsKept(t *testing.T) {
	f := serve(t, keeping)
	a := f.connect("job")
	if m, err := a.Ask(fakeagent.Hello(fakeagent.NewKey())); err != nil || m.Challenge == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	a.Vanish()
	wait(t, "the end of its connection", f.closed)
	f.register("job", fakeagent.NewKey())
}

// TestDisplacedIsNotKept: the end of a connection that was given up for a newer
// one keeps nothing, whoever has the id then.
func TestDisplacedIsNotKept(t *testing.T) {
	f := serve(t, keeping)
	key := fakeagent.NewKey()
	old := f.register("job", key)
	newer := f.register("job", key)
	_, err := old.Receive()
	wantRefusal(t, old, err, rendezvous.RefusedDisplaced, "newer connection")
	if err := newer.Send(rendezvous.Message{Bye: &rendezvous.Bye{}}); err != nil {
		t.Fatal(err)
	}
	for f.open.Load() != 0 {
		wait(t, "the end of both", f.closed)
	}
	f.register("job", fakeagent.NewKey())
}

// comesBack registers with a ticket.
func (f *fixture) comesBack(id string, key ed25519.PrivateKey, ticket *rendezvous.Ticket) (*fakeagent.Agent, error) {
	f.t.Helper()
	a, err := fakeagent.Return(f.t.Context(), f.rv, id, key, ticket.Value, nil)
	if err == nil {
		f.t.Cleanup(func() { _ = a.Conn.Close() })
	}
	return a, err
}
