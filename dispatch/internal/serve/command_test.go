package serve

import (
	"io"
	"log/slog"
	"testing"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/meter"
	"example.com/converge/dispatch/internal/nomad"
)

// command is an engine of a command beside the one that serves.
func (h *house) command() *engine.Engine {
	h.t.Helper()
	client, err := nomad.New(h.s.Nomad)
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := engine.New(engine.Options{
		Settings: h.s, Nomad: client, Meter: meter.New(), Log: slog.New(slog.NewTextHandler(h.log, nil)), Detached: true, Scratch: h.t.TempDir(),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { e.Close(); client.Close() })
	if err := e.LoadWaiting(); err != nil {
		h.t.Fatal(err)
	}
	return e
}

// TestCommandDismisses: a command has the program that serves dismiss what waits, or
// its next run.
func TestCommandDismisses(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	first := h.fork(e, commit)
	h.status(commit, "pending", "waiting for a trusted sender to approve this commit")
	if err := h.command().Cancel(t.Context(), build.Who{Local: true}, first.ID); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "failure", "cancelled")
	second := h.fork(e, newer)
	h.status(newer, "pending", "waiting for a trusted sender to approve this commit")
	h.stop()
	if err := h.command().Cancel(t.Context(), build.Who{Local: true}, second.ID); err != nil {
		t.Fatal(err)
	}
	e = h.engineOf()
	h.status(newer, "failure", "cancelled")
	for _, id := range []string{first.ID, second.ID} {
		if b, err := e.Get(t.Context(), id); err != nil || b.State != build.Failure {
			t.Errorf("%+v, %v", b, err)
		}
	}
}

// TestCommandReadsTheArchive: a log that was archived is there for a command, too,
// where Nomad has forgotten it, and still knows the build.
func TestCommandReadsTheArchive(t *testing.T) {
	h := newHouse(t)
	b := h.launch(h.engineOf())
	h.nomad.Start(b.ID)
	h.nomad.Write(b.ID, "stdout", "words\n")
	h.nomad.Finish(b.ID, 0)
	h.archived(b.ID, build.Stdout)
	h.nomad.CollectLogs(b.ID)
	r, err := h.command().Open(t.Context(), b.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); string(text) != "words\n" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
