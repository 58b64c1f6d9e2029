package serve

import (
	"strings"
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

// TestApprovedOnce: what was approved is told to who sends the same again, and is not
// taken for another pull request's of that commit, also after a restart.
func TestApprovedOnce(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	first := h.fork(e, commit)
	id, err := e.Approve(t.Context(), h.ann(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if b := h.fork(e, commit); b.ID != id {
		t.Errorf("the same delivery leads to %+v", b)
	}
	w := h.want()
	w.Origin, w.Fork, w.Kind, w.Pull, w.Branch, w.Sender = h.gitea.CloneURL("fork/project"), true, build.PullRequest, 10, "topic", "eve"
	other, err := e.Launch(t.Context(), w)
	if err != nil || other.State != build.Waiting {
		t.Fatalf("%+v, %v", other, err)
	}
	h.stop()
	e = h.engineOf()
	if b, err := e.Get(t.Context(), id); err != nil || b.ID != id {
		t.Errorf("%+v, %v", b, err)
	}
	if b, err := e.Get(t.Context(), other.ID); err != nil || b.ID != other.ID || b.State != build.Waiting {
		t.Errorf("%+v, %v", b, err)
	}
	if strings.Contains(h.log.String(), `msg="build ended" build=`+first.ID) {
		t.Error("what became another build is said to have ended")
	}
}
