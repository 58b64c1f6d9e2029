package hub

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"sync"
	"testing"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

// watch is the pass of everybody.
type watch struct {
	mu      sync.Mutex
	stopped ed25519.PublicKey // that is not let in
	revoke  func(string)      // the last that joined
	ends    []End
	ended   chan struct{}
}

func (w *watch) Prove(key ed25519.PublicKey) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped.Equal(key) {
		return errors.New("not with this token")
	}
	return nil
}

func (w *watch) Session() string { return rendezvous.NewSession() }

func (w *watch) Joined(_ uint64, end func(string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoke = end
}

func (w *watch) Ended(e End) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, e)
	w.ended <- struct{}{}
}

// next is how the next pass ended.
func (w *watch) next(t *testing.T) End {
	t.Helper()
	wait(t, "the end of a pass", w.ended)
	w.mu.Lock()
	defer w.mu.Unlock()
	e := w.ends[0]
	w.ends = w.ends[1:]
	return e
}

func watched(t *testing.T) (*fixture, *watch) {
	t.Helper()
	w := &watch{ended: make(chan struct{}, 100)}
	return serve(t, func(h *Hub) {
		with(1)(h)
		h.cfg.PassOf = func(*http.Request) Pass { return w }
	}), w
}

// TestTicketIsNoPass: who has had an id before still has to be let in.
func TestTicketIsNoPass(t *testing.T) {
	key := fakeagent.NewKey()
	mine := ticketOf(t, 1, "job", key)
	f, w := watched(t)
	w.stopped, _ = key.Public().(ed25519.PublicKey)
	f.serveAgent("job", fakeagent.NewKey(), say("other"))
	_, err := f.comesBack("job", key, mine)
	wantCode(t, err, rendezvous.RefusedAccess)
	if e := w.next(t); e.Reason != "not with this token" {
		t.Errorf("its end is %+v", e)
	}
	if got := f.hear("job"); got != "other" {
		t.Errorf("a client heard %q", got)
	}
}

// TestRevoked frees the id at once: nothing is kept for who is not welcome.
func TestRevoked(t *testing.T) {
	f, w := watched(t)
	a := f.register("job", fakeagent.NewKey())
	w.mu.Lock()
	revoke := w.revoke
	w.mu.Unlock()
	revoke("the token was withdrawn")
	_, err := a.Receive()
	wantRefusal(t, a, err, rendezvous.RefusedAccess, "the token was withdrawn")
	if e := w.next(t); e.Reason != "the token was withdrawn" {
		t.Errorf("its end is %+v", e)
	}
	f.register("job", fakeagent.NewKey())
}

// TestAway: a client of an agent that may come back is told apart from one that
// guesses.
func TestAway(t *testing.T) {
	f, w := watched(t)
	f.register("job", fakeagent.NewKey()).Vanish()
	f.gone("job")
	_ = w.next(t)
	for id, away := range map[string]bool{"job": true, "nobody": false} {
		_, err := f.dial(id)
		var text string
		if away {
			text = "may come back"
		}
		wantRefused(t, err, http.StatusNotFound, text)
		if e := w.next(t); e.Away != away || e.Status != http.StatusNotFound || e.Reason == "" {
			t.Errorf("%s: its end is %+v", id, e)
		}
	}
}
