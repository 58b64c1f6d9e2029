package serve

import (
	"testing"

	"example.com/converge/dispatch/internal/build"
)

// TestLostAndRunAgain: a build whose machine was lost is an error that nobody has
// cancelled, and Nomad's second run of it is followed to its end.
func TestLostAndRunAgain(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.status(commit, "pending", "running")
	h.nomad.Lose(b.ID, "lost")
	h.status(commit, "error", "Nomad has lost the machine that ran it")
	h.nomad.Replace(b.ID)
	h.status(commit, "pending", "queued")
	h.nomad.Start(b.ID)
	h.nomad.Finish(b.ID, 0)
	h.status(commit, "success", "success")
	h.archived(b.ID, build.Stdout)
	// One that has no room again is still there to be cancelled.
	other := h.want()
	other.Commit = newer
	b, err := e.Launch(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	h.nomad.Start(b.ID)
	h.nomad.Lose(b.ID, "lost")
	h.status(newer, "error", "Nomad has lost the machine that ran it")
	if err := e.Cancel(t.Context(), h.ann(), b.ID); err != nil {
		t.Fatal(err)
	}
	h.status(newer, "failure", "cancelled")
}
