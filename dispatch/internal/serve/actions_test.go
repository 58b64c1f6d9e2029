package serve

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
)

// ann is trusted; the others are somebody else, or at another forge.
func (h *house) ann() build.Who { return build.Who{Login: "ann", Forge: h.gitea.URL + "/"} }

func (h *house) strangers() []build.Who {
	return []build.Who{{}, {Login: "eve", Forge: h.gitea.URL}, {Login: "ann", Forge: "https://elsewhere.example.com"}, {Login: "ann"}, {Forge: h.gitea.URL}}
}

func TestActionsAreForTheTrusted(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	fork := h.fork(e, commit)
	for _, who := range h.strangers() {
		_, rerun := e.Rerun(t.Context(), who, b.ID)
		_, approve := e.Approve(t.Context(), who, fork.ID)
		for name, err := range map[string]error{"cancel": e.Cancel(t.Context(), who, b.ID), "rerun": rerun, "approve": approve} {
			if !errors.Is(err, build.ErrRefused) {
				t.Errorf("%s by %+v: %v", name, who, err)
			}
		}
	}
	if len(h.nomad.Children()) != 1 || h.nomad.Stopped(b.ID) {
		t.Error("a stranger did something")
	}
	if _, err := e.Rerun(t.Context(), h.ann(), "builder/dispatch-1-none"); !errors.Is(err, build.ErrUnknown) {
		t.Error(err)
	}
	if _, err := e.Rerun(t.Context(), h.ann(), "builder"); !errors.Is(err, build.ErrUnknown) {
		t.Error(err)
	}
	for token, want := range map[string]bool{token: true, "": false, "wrong": false} {
		if ok, err := e.HookToken(t.Context(), h.repo, token); err != nil || ok != want {
			t.Errorf("%q: %v, %v", token, ok, err)
		}
		if ok, err := e.HookToken(t.Context(), "https://h/none", token); err != nil || ok {
			t.Errorf("%q of nothing: %v, %v", token, ok, err)
		}
	}
}

// fork is a pull request from one.
func (h *house) fork(e *engine.Engine, commit string) build.Build {
	h.t.Helper()
	w := h.want()
	w.Origin, w.Fork, w.Commit, w.Kind, w.Pull, w.Branch, w.Sender = h.gitea.CloneURL("fork/project"), true, commit, build.PullRequest, 9, "topic", "eve"
	b, err := e.Launch(h.t.Context(), w)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// TestApproval: of a fork's pull request one commit is approved, once; a newer one
// waits again.
func TestApproval(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	old := h.fork(e, commit)
	if again := h.fork(e, commit); again.ID != old.ID || old.State != build.Waiting {
		t.Errorf("%+v, %+v", old, again)
	}
	next := h.fork(e, newer)
	if _, err := e.Approve(t.Context(), h.ann(), old.ID); !errors.Is(err, build.ErrState) {
		t.Errorf("a commit that was superseded: %v", err)
	}
	if _, err := e.Rerun(t.Context(), h.ann(), next.ID); !errors.Is(err, build.ErrState) {
		t.Errorf("rerun of one that waits: %v", err)
	}
	id, err := e.Approve(t.Context(), h.ann(), next.ID)
	if err != nil {
		t.Fatal(err)
	}
	m := h.nomad.Meta(id)
	if !strings.HasSuffix(string(h.nomad.Payload(id)), inject) || m["COMMIT"] != newer || m["REPO_URL"] != h.gitea.CloneURL("fork/project") || m["DISPATCH_APPROVED_BY"] != "ann" || m["DISPATCH_REPO"] != h.repo {
		t.Errorf("%v", m)
	}
	if b, err := e.Get(t.Context(), next.ID); err != nil || b.ID != id {
		t.Errorf("%+v, %v", b, err)
	}
	if again, err := e.Approve(t.Context(), h.ann(), next.ID); !errors.Is(err, build.ErrState) {
		t.Errorf("%s, %v", again, err)
	}
	if len(h.nomad.Children()) != 1 {
		t.Error(h.nomad.Children())
	}
	// What waits survives a restart.
	third := h.fork(e, strings.Repeat("a", 40))
	h.stop()
	e = h.engineOf()
	if b, err := e.Get(t.Context(), third.ID); err != nil || b.State != build.Waiting {
		t.Errorf("%+v, %v", b, err)
	}
	if err := e.Cancel(t.Context(), h.ann(), third.ID); err != nil {
		t.Error(err)
	}
	if _, err := e.Approve(t.Context(), h.ann(), third.ID); !errors.Is(err, build.ErrState) {
		t.Error(err)
	}
	// One that was dismissed, and comes again, waits again.
	if b := h.fork(e, third.Commit); b.State != build.Waiting || b.ID != third.ID {
		t.Errorf("%+v", b)
	}
	e.Drop(h.repo, 9)
	if b := h.fork(e, third.Commit); b.State != build.Waiting {
		t.Errorf("%+v", b)
	}
	if _, err := e.Approve(t.Context(), h.ann(), third.ID); err != nil {
		t.Error(err)
	}
}

// TestNobodyApproves: what waited too long is over, and its forge is told.
func TestNobodyApproves(t *testing.T) {
	h := newHouse(t)
	b := h.fork(h.engineOf(), commit)
	h.status(commit, "pending", "waiting for a trusted sender to approve this commit")
	h.stop()
	h.s.Keep = -time.Second // it has waited for longer
	e := h.engineOf()
	h.status(commit, "failure", "nobody has approved it in time")
	if _, err := e.Approve(t.Context(), h.ann(), b.ID); !errors.Is(err, build.ErrState) {
		t.Error(err)
	}
}

// TestForksChangeNothing: what comes from a fork changes neither what is said of a
// commit that the repository has built, nor what waits of another repository.
func TestForksChangeNothing(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.nomad.Finish(b.ID, 0)
	h.status(commit, "success", "success")
	before := len(h.gitea.Statuses(project, commit))
	waiting := h.fork(e, commit)
	e.Drop(h.repo, 9)
	waiting = h.fork(e, commit)
	// The fork builds the same commit on its own account.
	forked := h.gitea.CloneURL("fork/project")
	h.consul.Put(forked, map[string]any{"hook": map[string]any{"token": "other"}})
	w := h.want()
	w.Repo = &repos.Repo{URL: forked, HookToken: "other"}
	w.Origin, w.Branch = forked, "topic"
	if _, err := e.Launch(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if got, err := e.Get(t.Context(), waiting.ID); err != nil || got.ID != waiting.ID || got.State != build.Waiting {
		t.Errorf("%+v, %v", got, err)
	}
	h.stop()
	if all := h.gitea.Statuses(project, commit); len(all) != before {
		t.Errorf("%+v", all)
	}
}

// TestManyWait: who may open pull requests cannot make what waits grow for ever.
func TestManyWait(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	w := h.want()
	w.Origin, w.Fork, w.Kind = h.gitea.CloneURL("fork/project"), true, build.PullRequest
	for i := range 210 {
		w.Pull, w.Commit = i+1, object(i)
		if _, err := e.Launch(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if n := e.Live(); n != 200 {
		t.Errorf("%d wait", n)
	}
}

// TestOlderComesLater: of two pushes whose webhooks come in the other order, the
// newer one's build stays.
func TestOlderComesLater(t *testing.T) {
	h := newHouse(t)
	h.config["cancel_superseded"] = true
	h.consul.Put(h.repo, h.config)
	e := h.engineOf()
	next := h.want()
	next.Commit, next.Before = newer, commit
	last, err := e.Launch(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	old := h.launch(e)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.nomad.Wait(ctx, func() bool { return h.nomad.Stopped(old.ID) }); err != nil {
		t.Fatal(err)
	}
	if h.nomad.Stopped(last.ID) {
		t.Error("the newer commit's build was stopped")
	}
}

// TestKeptComesLater: a push that was kept while Nomad was away, or comes again,
// stops nothing that was pushed after it.
func TestKeptComesLater(t *testing.T) {
	h := newHouse(t)
	h.config["cancel_superseded"] = true
	h.consul.Put(h.repo, h.config)
	e := h.engineOf()
	launch := func(commit, token string, asked time.Time) build.Build {
		w := h.want()
		w.Commit, w.Token, w.Asked = commit, token, asked
		b, err := e.Launch(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	stopped := func(id string) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := h.nomad.Wait(ctx, func() bool { return h.nomad.Stopped(id) }); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	last := launch(object(3), "3", now)
	first := launch(object(1), "1", now.Add(-2*time.Second))
	stopped(first.ID)
	stopped(launch(object(2), "2", now.Add(-time.Second)).ID)
	if again := launch(object(1), "1", now.Add(time.Second)); again.ID != first.ID {
		t.Errorf("%s and %s", again.ID, first.ID)
	}
	// Stopping takes a moment, which this one's is, too.
	stopped(launch(object(4), "4", now.Add(-time.Hour)).ID)
	if h.nomad.Stopped(last.ID) {
		t.Error("the newest commit's build was stopped")
	}
}

func TestRerunAndCancel(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	if err := e.Cancel(t.Context(), h.ann(), b.ID); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "failure", "cancelled")
	h.archived(b.ID, build.Stdout)
	if err := e.Cancel(t.Context(), h.ann(), b.ID); !errors.Is(err, build.ErrState) {
		t.Error(err)
	}
	for _, secrets := range []bool{true, false} {
		w := h.want()
		if !secrets {
			w.Sender = "eve"
		}
		first, err := e.Launch(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		id, err := e.Rerun(t.Context(), h.ann(), first.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got := len(h.nomad.Payload(id)) > 0; got != secrets || h.nomad.Meta(id)["DISPATCH_RERUN_OF"] != first.ID || id == first.ID {
			t.Errorf("secrets %v: %v", secrets, h.nomad.Meta(id))
		}
	}
}

// TestForged: what somebody has dispatched who has no key is not believed to have
// had the secrets; what this dispatch has, is, also by its next run.
func TestForged(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	mine := h.launch(e)
	client, err := nomad.New(h.s.Nomad)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	meta := h.nomad.Meta(mine.ID)
	for name, change := range map[string]func(m map[string]string){
		"claimed": func(m map[string]string) { m["DISPATCH_TRUSTED"] = "true" },
		"another repository's code": func(m map[string]string) {
			m["REPO_URL"] = "https://evil.example.com/x.git"
		},
		"another commit": func(m map[string]string) { m["COMMIT"] = newer },
	} {
		m := maps.Clone(meta)
		change(m)
		id, err := client.Dispatch(t.Context(), "builder", m, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		again, err := e.Rerun(t.Context(), h.ann(), id)
		if err != nil {
			t.Fatal(err)
		}
		if p := h.nomad.Payload(again); len(p) > 0 {
			t.Errorf("%s: %q", name, p)
		}
	}
	h.stop()
	// All but the key is forgotten.
	if err := os.RemoveAll(filepath.Join(h.s.StateDir, "builds")); err != nil {
		t.Fatal(err)
	}
	e = h.engineOf()
	again, err := e.Rerun(t.Context(), h.ann(), mine.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.nomad.Payload(again)) == 0 {
		t.Error("a build of ours has lost its secrets")
	}
}

// envelope reads one line of a payload's envelope.
func (h *house) envelope(id, name string) string {
	for line := range strings.Lines(string(h.nomad.Payload(id))) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// TestDebug: the builder's reports, with its token alone, in their order.
func TestDebug(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b, another := h.launch(e), h.want()
	another.Commit = newer
	other, err := e.Launch(t.Context(), another)
	if err != nil {
		t.Fatal(err)
	}
	h.nomad.Start(b.ID)
	h.nomad.Start(other.ID)
	secret := h.envelope(b.ID, "DISPATCH_DEBUG_TOKEN")
	report := func(id, token, state string) error {
		r := build.Report{State: state, Exit: 2}
		if state == build.ReportOpen {
			r.Session = build.Session{Line: "ssh -oProxyCommand=x abc@job", Until: time.Now().Add(20 * time.Minute)}
		}
		return e.Report(t.Context(), id, token, r)
	}
	for name, err := range map[string]error{
		"no token": report(b.ID, "", "failed"), "another build's": report(b.ID, h.envelope(other.ID, "DISPATCH_DEBUG_TOKEN"), "failed"),
		"the hook's": report(b.ID, token, "failed"),
	} {
		if !errors.Is(err, build.ErrToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := report("builder/dispatch-0-x", secret, "failed"); !errors.Is(err, build.ErrUnknown) {
		t.Error(err)
	}
	if err := report(b.ID, secret, "closed"); !errors.Is(err, build.ErrState) {
		t.Errorf("closed before failed: %v", err)
	}
	if err := report(b.ID, secret, "failed"); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "failure", "exit 2")
	if err := report(b.ID, secret, "failed"); !errors.Is(err, build.ErrToken) {
		t.Errorf("failed twice: %v", err)
	}
	for _, s := range []build.Session{{}, {Line: "rm -rf /"}, {Line: "ssh a\nb"}, {Line: "ssh a", URL: "javascript:alert(1)"}} {
		if err := e.Report(t.Context(), b.ID, secret, build.Report{State: "open", Session: s}); !errors.Is(err, build.ErrState) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if err := report(b.ID, secret, "open"); err != nil {
		t.Fatal(err)
	}
	got, err := e.Get(t.Context(), b.ID)
	if err != nil || got.Debug == nil || got.Debug.Closed || got.State != build.Failure || got.Exit != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	// The builder's clock may be wrong: a session that begins has not ended, and
	// none is longer than it was told.
	for name, said := range map[string]time.Time{"none": {}, "slow": time.Now().Add(-time.Minute), "fast": time.Now().Add(12 * time.Hour)} {
		before := time.Now()
		if err := e.Report(t.Context(), b.ID, secret, build.Report{State: "open", Session: build.Session{Line: "ssh a", Until: said}}); err != nil {
			t.Fatal(err)
		}
		clock, err := e.Get(t.Context(), b.ID)
		if until := clock.Debug.Until; err != nil || until.Before(before.Add(h.s.Debug.For-time.Second)) || until.After(time.Now().Add(h.s.Debug.For)) {
			t.Errorf("%s: until %s, %v", name, until, err)
		}
	}
	if err := report(b.ID, secret, "open"); err != nil {
		t.Fatal(err)
	}
	if got, err = e.Get(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "failure", "exit 2, debug session open until "+got.Debug.Until.Format("15:04")+" UTC")
	// A new run knows it still, and takes the end.
	h.stop()
	e = h.engineOf()
	if err := report(b.ID, secret, "closed"); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "failure", "exit 2, debug session ended")
	for _, state := range []string{"closed", "open", "failed"} {
		if err := report(b.ID, secret, state); !errors.Is(err, build.ErrToken) {
			t.Errorf("%s after the end: %v", state, err)
		}
	}
	h.nomad.Finish(b.ID, 2)
	h.archived(b.ID, build.Stdout)
	if err := report(b.ID, secret, "failed"); !errors.Is(err, build.ErrState) {
		t.Errorf("after the allocation: %v", err)
	}
	if got, err = e.Get(t.Context(), b.ID); err != nil || got.State != build.Failure || !got.Debug.Closed {
		t.Errorf("%+v, %v", got, err)
	}
	// Where the first report did not come, the session says the same.
	secret = h.envelope(other.ID, "DISPATCH_DEBUG_TOKEN")
	if err := report(other.ID, secret, "open"); err != nil {
		t.Fatalf("open before failed: %v", err)
	}
	if got, err = e.Get(t.Context(), other.ID); err != nil || got.State != build.Failure || got.Exit != 2 || got.Debug == nil || got.Ended.IsZero() {
		t.Errorf("%+v, %v", got, err)
	}
	if err := report(other.ID, secret, "failed"); !errors.Is(err, build.ErrState) {
		t.Errorf("failed after open: %v", err)
	}
	// A session whose builder is stopped has ended, and the build failed by itself.
	if err := e.Cancel(context.Background(), h.ann(), other.ID); err != nil {
		t.Fatal(err)
	}
	h.archived(other.ID, build.Stdout)
	if got, err = e.Get(t.Context(), other.ID); err != nil || got.Reason != "exit 2" || !got.Debug.Closed {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestSecretsStayAway: in no file of ours but the payload's way to Nomad.
func TestSecretsStayAway(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.nomad.Finish(b.ID, 1)
	h.archived(b.ID, build.Stdout)
	h.stop()
	secret := h.envelope(b.ID, "DISPATCH_DEBUG_TOKEN")
	err := filepath.WalkDir(h.s.StateDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 && d.Name() != "lock" {
			t.Errorf("%s may be read by others: %v", path, info.Mode())
		}
		text, err := os.ReadFile(path)
		for _, s := range []string{secret, token, "SECRET1", h.gitea.Token} {
			if strings.Contains(string(text), s) {
				t.Errorf("%s has a secret in it", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.Marshal(b); strings.Contains(string(text), secret) || strings.Contains(h.log.String(), "SECRET1") {
		t.Error("a secret got out")
	}
}
