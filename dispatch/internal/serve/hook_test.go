package serve

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/nomadtest"
)

// TestBadInput: each mistake has its own answer, and starts nothing.
func TestBadInput(t *testing.T) {
	h := newHouse(t)
	h.s.Jobs = map[string]string{"default": "builder", "docs": "builder"}
	signed := h.gitea.CloneURL("team/signed")
	h.consul.Put(signed, map[string]any{"hook": map[string]any{"token": token, "secret": "hmac"}})
	only := h.gitea.CloneURL("team/only")
	h.consul.Put(only, map[string]any{"hook": map[string]any{"secret": "hmac"}})
	limited := h.gitea.CloneURL("team/limited")
	h.consul.Put(limited, map[string]any{"hook": map[string]any{"token": token}, "flavors": []string{"docs"}})
	for name, text := range map[string]string{
		"kind": `{"hook":{"token":12}}`, "syntax": `{"hook":{"token":"hunter2",}}`, "none": `{"hook":{}}`, "list": `{"hook":{"token":"hunter2"},"trusted":{"senders":"hunter2"}}`,
		"forge": `{"hook":{"token":"hunter2"},"gitea":{"url":"not a URL hunter2"}}`,
	} {
		h.consul.Put(h.gitea.CloneURL("broken/"+name), text)
	}
	h.start()
	in := func(repo string) string { return strings.Replace(h.push("main", commit, "ann"), h.repo, repo, 1) }
	good := h.push("main", commit, "ann")
	var forbidden string
	for _, test := range []struct {
		name, query, body string
		headers           []string
		code              int
		says              string
	}{
		{"malformed JSON", "?token=" + token, `{"ref":`, nil, 400, "JSON"},
		{"empty", "?token=" + token, ``, nil, 400, "JSON"},
		{"no repository", "?token=" + token, `{"ref":"refs/heads/main"}`, nil, 400, "clone URL"},
		{"no clone URL", "?token=" + token, `{"repository":{"full_name":"x"}}`, nil, 400, "clone URL"},
		{"not registered", "?token=" + token, in("https://h/other.git"), nil, 403, ""},
		{"not registered, no token", "", in("https://h/other.git"), nil, 403, ""},
		{"wrong token", "?token=wrong", good, nil, 403, ""},
		{"missing token", "", good, nil, 403, ""},
		{"empty token", "?token=", good, nil, 403, ""},
		{"wrong token, signed", "?token=wrong", in(signed), []string{"X-Gitea-Event", "push", "X-Gitea-Signature", sign("hmac", in(signed))}, 403, ""},
		{"no signature", "?token=" + token, in(signed), []string{"X-Gitea-Event", "push"}, 401, "signed"},
		{"empty signature", "?token=" + token, in(signed), []string{"X-Gitea-Event", "push", "X-Gitea-Signature", "", "X-Hub-Signature-256", ""}, 401, "signed"},
		{"bad signature", "?token=" + token, in(signed), []string{"X-Gitea-Event", "push", "X-Gitea-Signature", sign("other", in(signed))}, 401, "signature"},
		{"signature of nothing", "?token=" + token, in(signed), []string{"X-Gitea-Event", "push", "X-Gitea-Signature", sign("", in(signed))}, 401, "signature"},
		{"bad signature, no token needed", "", in(only), []string{"X-Gitea-Event", "push", "X-Gitea-Signature", sign("other", in(only))}, 401, "signature"},
		{"no flavour of ours", "?token=" + token + "&flavor=nightly", good, nil, 400, "not on the list"},
		{"no flavour of the repository's", "?token=" + token, in(limited), nil, 400, "not on the list"},
		{"no flavour at all", "?token=" + token + "&flavor=../etc", good, nil, 400, "flavor"},
		{"two tokens", "?token=a&token=" + token, good, nil, 400, "one token"},
		{"field of another kind", "?token=" + token, in(h.gitea.CloneURL("broken/kind")), nil, 500, "hook.token"},
		{"key is named", "?token=" + token, in(h.gitea.CloneURL("broken/kind")), nil, 500, "albatros/"},
		{"broken JSON in Consul", "?token=" + token, in(h.gitea.CloneURL("broken/syntax")), nil, 500, "byte 28"},
		{"no token in Consul", "?token=" + token, in(h.gitea.CloneURL("broken/none")), nil, 500, "hook.token"},
		{"no list in Consul", "?token=" + token, in(h.gitea.CloneURL("broken/list")), nil, 500, "trusted.senders"},
		{"no forge in Consul", "?token=" + token, in(h.gitea.CloneURL("broken/forge")), nil, 500, "gitea.url"},
		{"a tag that was made", "?token=" + token, good, []string{"X-Gitea-Event", "create"}, 200, "ignored: "},
		{"a ping", "?token=" + token, good, []string{"X-GitHub-Event", "ping"}, 200, "ignored: "},
		{"a branch that was deleted", "?token=" + token, h.push("main", strings.Repeat("0", 40), "ann"), nil, 200, "ignored: "},
		{"a note", "?token=" + token, strings.Replace(h.push("main", commit, "ann"), "refs/heads", "refs/notes", 1), nil, 200, "ignored: "},
		{"no event at all", "?token=" + token, fmt.Sprintf(`{"repository":{"clone_url":%q}}`, h.repo), nil, 200, "ignored: "},
		{"a pull request that was closed", "?token=" + token, strings.Replace(h.pull(7, commit, "ann", project), "opened", "closed", 1), nil, 200, "ignored: "},
		{"no ref", "?token=" + token, strings.Replace(good, "refs/heads/main", "main", 1), nil, 400, "ref"},
		{"no object id", "?token=" + token, strings.Replace(good, commit, "--upload-pack=x", 1), nil, 400, "object id"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h.t = t
			code, text := h.post(test.query, test.body, test.headers...)
			if code != test.code || !strings.Contains(text, test.says) {
				t.Errorf("%d %s", code, text)
			}
			if code == http.StatusForbidden { // no oracle
				if forbidden == "" {
					forbidden = text
				}
				if text != forbidden {
					t.Errorf("%q, and before %q", text, forbidden)
				}
			}
			if strings.Contains(text, "hunter2") || strings.Contains(text, token) {
				t.Errorf("a secret is in %s", text)
			}
		})
	}
	h.t = t
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		req, _ := http.NewRequestWithContext(t.Context(), method, h.url+"/hook", nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != http.MethodPost {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
	if code, text := h.post("?token="+token, strings.Repeat(" ", 25<<20+1)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", code, text)
	}
	if all := h.nomad.Children(); len(all) > 0 {
		t.Errorf("builds were dispatched: %q", all)
	}
	if strings.Contains(h.log.String(), token) {
		t.Error("the token is in the log")
	}
}

// TestGoodInput: the ways by which a webhook may come.
func TestGoodInput(t *testing.T) {
	h := newHouse(t)
	signed := h.gitea.CloneURL("team/signed")
	h.consul.Put(signed, map[string]any{"hook": map[string]any{"token": token, "secret": "hmac"}})
	h.start()
	good := h.push("main", commit, "ann")
	other := strings.Replace(good, h.repo, signed, 1)
	for name, headers := range map[string][]string{
		"no header": nil, "a form of curl's": {"Content-Type", "application/x-www-form-urlencoded"},
		"all of Gitea's": {"X-Gitea-Event", "push", "X-Gogs-Event", "push", "X-GitHub-Event", "push", "X-Gitea-Signature", "", "X-Hub-Signature", "", "X-Hub-Signature-256", ""},
	} {
		if code, text := h.post("?token="+token, good, headers...); code != http.StatusOK || !strings.HasPrefix(text, "builder/dispatch-") || strings.ContainsAny(text, " \n") {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	for name, headers := range map[string][]string{
		"bearer": {"Authorization", "Bearer " + token}, "header": {"X-Dispatch-Token", token},
	} {
		if code, text := h.post("", good, headers...); code != http.StatusOK {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	for name, headers := range map[string][]string{
		"Gitea": {"X-Gitea-Event", "push", "X-Gitea-Signature", sign("hmac", other)}, "GitHub": {"X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + sign("hmac", other)},
	} {
		if code, text := h.post("?token="+token, other, headers...); code != http.StatusOK {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	// A delivery that comes again is the same build.
	first := h.hook(good, "X-Gitea-Event", "push", "X-Gitea-Delivery", "7")
	if again := h.hook(good, "X-Gitea-Event", "push", "X-Gitea-Delivery", "7"); again != first {
		t.Errorf("%s and %s", first, again)
	}
}

// TestAway: what cannot be done now is kept, also over a restart, and done once.
func TestAway(t *testing.T) {
	for name, breakIt := range map[string]func(*house, int){
		"Nomad":  func(h *house, code int) { h.nomad.Break(code) },
		"Consul": func(h *house, code int) { h.consul.Break(code) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t).start()
			breakIt(h, 500)
			body := h.push("main", commit, "ann")
			for range 2 { // the forge tries again, too
				code, text := h.post("?token="+token, body, "X-Gitea-Event", "push", "X-Gitea-Delivery", "1")
				if code != http.StatusServiceUnavailable || !strings.Contains(text, "kept") {
					t.Fatalf("%d %s", code, text)
				}
			}
			if name == "Nomad" {
				h.status(commit, "pending", "waiting for Nomad")
			}
			h.stop()
			breakIt(h, 0)
			h.start()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			ids, err := h.nomad.WaitChildren(ctx, 1)
			if err != nil {
				t.Fatal(err)
			}
			h.status(commit, "pending", "queued")
			h.nomad.Start(ids[0])
			h.nomad.Finish(ids[0], 0)
			h.status(commit, "success", "success")
			if all := h.nomad.Children(); len(all) != 1 {
				t.Errorf("%q", all)
			}
			if left, _ := os.ReadDir(filepath.Join(h.s.StateDir, "outbox", "deliveries")); len(left) > 0 {
				t.Errorf("%d deliveries are left", len(left))
			}
		})
	}
}

// TestNotDispatched: what Nomad refuses is a clear answer, and a status.
func TestNotDispatched(t *testing.T) {
	for _, test := range []struct {
		name string
		job  nomadtest.Job
		big  int
		says string
	}{
		{"no job", nomadtest.Builder("other"), 0, "there is no job builder in Nomad"},
		{"meta that we do not send", nomadtest.Job{ID: "builder", MetaRequired: []string{"REPO_URL", "COMMIT", "BRANCH", "FLAVOR", "ARCH"}}, 0, "ARCH"},
		{"meta that it does not take", nomadtest.Job{ID: "builder", MetaRequired: []string{"REPO_URL"}}, 0, "COMMIT"},
		{"not parameterized", nomadtest.Job{ID: "builder", Plain: true}, 0, "parameterized"},
		{"no executor", nomadtest.Job{ID: "builder", MetaRequired: []string{"REPO_URL", "COMMIT", "BRANCH", "FLAVOR"}, Tasks: []string{"main"}}, 0, "executor"},
		{"payload", nomadtest.Builder("builder", "DISPATCH_ENVELOPE"), 16384, "16384"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHouse(t)
			if test.job.ID != "builder" {
				h = newBareHouse(t)
			}
			h.nomad.Register(test.job)
			if test.big > 0 {
				h.config["inject"] = strings.Repeat("x", test.big)
				h.consul.Put(h.repo, h.config)
			}
			h.start()
			code, text := h.post("?token="+token, h.push("main", commit, "ann"))
			if code != http.StatusInternalServerError || !strings.Contains(text, test.says) {
				t.Errorf("%d %s", code, text)
			}
			if s := h.gitea.WaitStatus(t, project, commit, func(nomadtest.Status) bool { return true }); s.State != "error" || !strings.Contains(s.Description, test.says) {
				t.Errorf("%+v", s)
			}
		})
	}
}

// newBareHouse is one whose Nomad has no job.
func newBareHouse(t *testing.T) *house {
	h := newHouse(t)
	h.nomad = nomadtest.NewNomad(t)
	h.s.Nomad.Address = h.nomad.URL
	return h
}

// TestEnding: a webhook whose answer Nomad does not give is kept when the program
// ends, and done by the next run, once.
func TestEnding(t *testing.T) {
	h := newHouse(t)
	reached, never := make(chan struct{}, 10), make(chan struct{})
	defer close(never)
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if strings.HasSuffix(r.URL.Path, "/dispatch") {
			reached <- struct{}{}
			return &nomadtest.Fault{Hang: never}
		}
		return nil
	})
	h.start()
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url+"/hook?token="+token, strings.NewReader(h.push("main", commit, "ann")))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan struct{})
	go func() {
		defer close(left)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-reached
	leave() // as forges do after some seconds
	<-left
	h.stop()
	if all, _ := os.ReadDir(filepath.Join(h.s.StateDir, "outbox", "deliveries")); len(all) != 1 {
		t.Fatalf("%d deliveries are kept", len(all))
	}
	h.nomad.SetFault(nil)
	h.start()
	waiting, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := h.nomad.WaitChildren(waiting, 1); err != nil {
		t.Fatal(err)
	}
	h.status(commit, "pending", "queued")
}
