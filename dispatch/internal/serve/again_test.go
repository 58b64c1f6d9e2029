package serve

import (
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/pkg/watchtest"
)

// TestNewestBuildSpeaks: what becomes of a session of an older build does not change
// what the newer one of the same commit has said; a fork's that waits is none.
func TestNewestBuildSpeaks(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	report := func(state string) {
		t.Helper()
		r := build.Report{State: state, Exit: 2, Session: build.Session{Line: "ssh a@job", Until: time.Now().Add(20 * time.Minute)}}
		if err := e.Report(t.Context(), b.ID, h.envelope(b.ID, "DISPATCH_DEBUG_TOKEN"), r); err != nil {
			t.Fatal(err)
		}
	}
	report(build.ReportFailed)
	h.status(commit, "failure", "exit 2")
	h.fork(e, commit)
	report(build.ReportOpen)
	watchtest.Eventually(t, "the session is told", func() bool { return len(h.gitea.Statuses(project, commit)) > 0 && e.Waiting() == 0 })
	if all := h.gitea.Statuses(project, commit); all[len(all)-1].Description == "exit 2" {
		t.Errorf("%+v", all)
	}
	again, err := e.Rerun(t.Context(), h.ann(), b.ID)
	if err != nil {
		t.Fatal(err)
	}
	h.nomad.Start(again)
	h.nomad.Finish(again, 0)
	h.status(commit, "success", "success")
	report(build.ReportClosed)
	watchtest.Eventually(t, "no status waits", func() bool { return e.Waiting() == 0 })
	h.status(commit, "success", "success")
	if got, err := e.Get(t.Context(), b.ID); err != nil || !got.Debug.Closed || got.Reason != "exit 2" {
		t.Errorf("%+v, %v", got, err)
	}
}
