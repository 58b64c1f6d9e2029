package serve

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/pkg/nomadtest"
)

// TestStates: how builds end in Nomad is what the commit is told, whatever the
// job's status.
func TestStates(t *testing.T) {
	for name, test := range map[string]struct {
		do                 func(n *nomadtest.Nomad, id string)
		state, description string
	}{
		"no allocation":     {func(*nomadtest.Nomad, string) {}, "pending", "queued"},
		"pending":           {func(n *nomadtest.Nomad, id string) { n.Place(id) }, "pending", "queued"},
		"running":           {func(n *nomadtest.Nomad, id string) { n.Start(id) }, "pending", "running"},
		"success":           {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Finish(id, 0) }, "success", "success"},
		"exit 2":            {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Finish(id, 2) }, "failure", "exit 2"},
		"driver":            {func(n *nomadtest.Nomad, id string) { n.FailSetup(id, "Driver Failure", "rpc error: no such image") }, "error", "Driver Failure: rpc error: no such image"},
		"validation":        {func(n *nomadtest.Nomad, id string) { n.FailSetup(id, "Failed Validation", "") }, "error", "Failed Validation"},
		"setup":             {func(n *nomadtest.Nomad, id string) { n.FailSetup(id, "Setup Failure", "failed to setup alloc") }, "error", "Setup Failure: failed to setup alloc"},
		"lost":              {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Lose(id, "lost") }, "error", "Nomad has lost the machine that ran it"},
		"unknown":           {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Lose(id, "unknown") }, "error", "Nomad has lost the machine that ran it"},
		"stopped":           {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Stop(id) }, "failure", "cancelled"},
		"stopped in queue":  {func(n *nomadtest.Nomad, id string) { n.Stop(id) }, "failure", "cancelled"},
		"stopped afterward": {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Finish(id, 0); n.Stop(id) }, "success", "success"},
		"forgotten":         {func(n *nomadtest.Nomad, id string) { n.Start(id); n.Collect(id) }, "error", "Nomad has forgotten it before its end was seen"},
		"builder's word": {func(n *nomadtest.Nomad, id string) {
			n.Start(id)
			n.Write(id, "stderr", "x\nbuilder: no executable .albatros at abc\n")
			n.Finish(id, 66)
		}, "failure", "no executable .albatros at abc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t).start()
			id := h.hook(h.push("main", commit, "ann"))
			test.do(h.nomad, id)
			s := h.status(commit, test.state, test.description)
			if s.Context != "Albatros default" || s.Target != "https://ci.example.com/build?job="+strings.ReplaceAll(id, "/", "%2F") {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestTrust: who gets the secrets, by sender, event and origin, as Nomad sees it.
func TestTrust(t *testing.T) {
	h := newHouse(t).start()
	payload := func(id string) string { return string(h.nomad.Payload(id)) }
	if p := payload(h.hook(h.push("main", commit, "ann"))); !strings.HasPrefix(p, "converge-dispatch 1\n") || !strings.HasSuffix(p, "\n\n"+inject) ||
		!strings.Contains(p, "\nDISPATCH_DEBUG_URL=https://ci.example.com/builds/\n") || !strings.Contains(p, "\nCONVERGE_AGENT_GITEA_USER=ann\n") {
		t.Errorf("a trusted push: %q", p)
	}
	for name, body := range map[string]string{
		"an untrusted push": h.push("main", commit, "eve"), "nobody's push": h.push("main", commit, ""), "another case": h.push("main", commit, "Ann"),
		"an untrusted pull request": h.pull(1, newer, "eve", project), "a trusted pull request": h.pull(2, object(2), "ann", project),
		"one that is opened again":    strings.Replace(h.pull(3, object(3), "ann", project), "opened", "reopened", 1),
		"one that was pushed to":      strings.Replace(h.pull(4, object(4), "ann", project), "opened", "synchronized", 1),
		"one whose branch eve pushed": h.push("topic", object(6), "eve"),
	} {
		id := h.hook(body)
		if p := payload(id); p != "" || h.nomad.Meta(id)["DISPATCH_ENVELOPE"] != "" || h.nomad.Meta(id)["DISPATCH_TRUSTED"] != "false" {
			t.Errorf("%s: %q", name, p)
		}
	}
	if code, text := h.post("?token="+token, h.pull(6, object(6), "ann", project)); code != http.StatusOK || !strings.HasPrefix(text, "ignored: ") {
		t.Errorf("a trusted pull request of what eve pushed: %d %s", code, text)
	}
	theirs := strings.Repeat("c", 40)
	before := len(h.nomad.Children())
	for sender, number := range map[string]int{"ann": 8, "eve": 9} {
		code, text := h.post("?token="+token, h.pull(number, theirs, sender, "fork/project"), "X-Gitea-Event", "pull_request")
		if code != http.StatusAccepted || !strings.Contains(text, "https://ci.example.com/build?job=wait-") {
			t.Errorf("%s: %d %s", sender, code, text)
		}
	}
	h.status(theirs, "pending", "waiting for a trusted sender to approve this commit")
	if len(h.nomad.Children()) != before {
		t.Error("a fork's commit was built")
	}
	for _, number := range []int{8, 9} {
		body := strings.Replace(h.pull(number, theirs, "ann", "fork/project"), "opened", "closed", 1)
		if code, text := h.post("?token="+token, body, "X-Gitea-Event", "pull_request"); code != http.StatusOK || !strings.HasPrefix(text, "ignored: ") {
			t.Errorf("%d %s", code, text)
		}
	}
	h.status(theirs, "failure", "the pull request was closed")
	// A job that is Albatros' gets the payload byte for byte, and no more meta.
	old := newBareHouse(t)
	old.nomad.Register(nomadtest.Builder("builder"))
	old.start()
	id := old.hook(old.push("main", commit, "ann"))
	if p := string(old.nomad.Payload(id)); p != inject || len(old.nomad.Meta(id)) != 4 {
		t.Errorf("%q, %v", p, old.nomad.Meta(id))
	}
}

// TestFlavors: each goes to its job.
func TestFlavors(t *testing.T) {
	h := newHouse(t)
	h.s.Jobs = map[string]string{"default": "builder", "nix": "nixcache"}
	h.nomad.Register(nomadtest.Builder("nixcache"))
	h.start()
	for flavor, job := range map[string]string{"": "builder", "default": "builder", "nix": "nixcache"} {
		code, id := h.post("?token="+token+"&flavor="+flavor, h.push("main", commit, "ann"))
		want := flavor
		if want == "" {
			want = "default"
		}
		if code != http.StatusOK || !strings.HasPrefix(id, job+"/dispatch-") || h.nomad.Meta(id)["FLAVOR"] != want {
			t.Errorf("%s: %d %s", flavor, code, id)
		}
	}
}

// TestTwoEvents: a push and the pull request of the same commit are one build, in
// whichever order they come, unless the second has the secrets.
func TestTwoEvents(t *testing.T) {
	h := newHouse(t).start()
	same := func(body, as string) {
		t.Helper()
		if code, text := h.post("?token="+token, body); code != http.StatusOK || text != "ignored: the same commit is built as "+as {
			t.Errorf("%d %s", code, text)
		}
	}
	same(h.push("topic", newer, "eve"), h.hook(h.pull(1, newer, "ann", project)))
	pushed := h.hook(h.push("topic", object(1), "ann"))
	same(h.pull(1, object(1), "ann", project), pushed)
	h.nomad.Start(pushed)
	h.nomad.Finish(pushed, 0)
	h.archived(pushed, build.Stdout)
	same(h.pull(1, object(1), "ann", project), pushed)
	h.hook(h.push("other", object(1), "ann"))
	// What fails for want of the secrets says nothing of the commit that has them.
	bare := h.hook(h.pull(1, commit, "ann", project))
	full := h.hook(h.push("topic", commit, "ann"))
	for id, code := range map[string]int{full: 0, bare: 1} {
		h.nomad.Start(id)
		h.nomad.Finish(id, code)
		h.archived(id, build.Stdout)
	}
	if s := h.status(commit, "success", "success"); !strings.HasSuffix(s.Target, strings.ReplaceAll(full, "/", "%2F")) {
		t.Errorf("%+v", s)
	}
	for _, s := range h.gitea.Statuses(project, commit) {
		if s.State == "failure" {
			t.Errorf("%+v", s)
		}
	}
}

// TestSuperseded: where it is asked for, a newer push stops the branch's older
// build, and nobody else's.
func TestSuperseded(t *testing.T) {
	h := newHouse(t)
	h.config["cancel_superseded"] = true
	h.consul.Put(h.repo, h.config)
	h.start()
	old, other := h.hook(h.push("main", commit, "ann")), h.hook(h.push("stable", commit, "ann"))
	h.nomad.Start(old)
	next := h.hook(h.push("main", newer, "ann"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.nomad.Wait(ctx, func() bool { return h.nomad.Stopped(old) }); err != nil {
		t.Fatal(err)
	}
	if h.nomad.Stopped(other) || h.nomad.Stopped(next) {
		t.Error("another build was stopped")
	}
}

// TestRestart: with and without what was kept, a dispatch that starts again knows
// the builds, their ends, and what the commits must be told.
func TestRestart(t *testing.T) {
	for name, forget := range map[string]bool{"kept": false, "forgotten": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t).start()
			id := h.hook(h.push("main", commit, "ann"))
			h.nomad.Start(id)
			h.status(commit, "pending", "running")
			h.stop()
			h.nomad.Write(id, "stdout", "while nobody looked\n")
			h.nomad.Finish(id, 3)
			if forget {
				h.s.StateDir = t.TempDir()
			}
			h.start()
			h.status(commit, "failure", "exit 3")
			if log := h.archived(id, build.Stdout); log != "while nobody looked\n" {
				t.Errorf("%q", log)
			}
		})
	}
}

// archived waits for a build's log to be archived, and returns it.
func (h *house) archived(id string, log build.Stream) string {
	h.t.Helper()
	h.log.Expect(h.t, `msg="build ended" build=`+id+" ")
	folder := filepath.Join(h.s.StateDir, "builds", strings.ReplaceAll(id, "/", "%2F"))
	text, err := os.ReadFile(filepath.Join(folder, string(log)))
	if err != nil && !os.IsNotExist(err) {
		h.t.Fatal(err)
	}
	return string(text)
}

// TestForge: a status that the forge does not take is sent again until it does,
// also by the next run.
func TestForge(t *testing.T) {
	h := newHouse(t)
	h.gitea.Break(500)
	h.start()
	id := h.hook(h.push("main", commit, "ann"))
	h.nomad.Start(id)
	h.nomad.Finish(id, 0)
	h.archived(id, build.Stdout)
	h.stop()
	if n := len(h.gitea.Statuses(project, commit)); n > 0 {
		t.Fatalf("%d statuses", n)
	}
	h.gitea.Break(0)
	h.start()
	h.status(commit, "success", "success")
}

// TestForgeMended: what the forge does not take for a token that has run out, and
// what a mistake in the configuration keeps back, is sent when that is mended.
func TestForgeMended(t *testing.T) {
	h := newHouse(t)
	h.gitea.Break(http.StatusUnauthorized)
	h.start()
	id := h.hook(h.push("main", commit, "ann"))
	h.nomad.Start(id)
	h.nomad.Finish(id, 0)
	h.archived(id, build.Stdout)
	h.log.Expect(t, "tried again")
	h.consul.Put(h.repo, `{"hook":{`)
	h.gitea.Break(0)
	h.log.Expect(t, "must be mended")
	h.consul.Put(h.repo, h.config)
	h.status(commit, "success", "success")
}
