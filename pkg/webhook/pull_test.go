package webhook_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"example.com/converge/pkg/webhook"
)

const pullHead = `"head":{"ref":"topic","sha":"` + later + `","repo":{"full_name":"HEAD/p","clone_url":"https://h/HEAD/p.git"}}`

// pullOf is a pull request of Gitea's form, from the repository base/p or a fork.
func pullOf(action, from string) string {
	return `{"action":"` + action + `","number":7,"pull_request":{"number":7,` + strings.ReplaceAll(pullHead, "HEAD", from) +
		`},"repository":{"full_name":"base/p","clone_url":"https://h/base/p.git"},"sender":{"login":"ann"}}`
}

func mergeOf(action, oldrev, from string) string {
	return `{"object_kind":"merge_request","user":{"username":"ann"},"project":{"path_with_namespace":"base/p","git_http_url":"https://h/base/p.git"},
	"object_attributes":{"iid":7,"action":"` + action + `","oldrev":"` + oldrev + `","source_branch":"topic","last_commit":{"id":"` + later + `"},
	"source":{"path_with_namespace":"` + from + `/p","git_http_url":"https://h/` + from + `/p.git"}}}`
}

func TestPullRequests(t *testing.T) {
	for _, test := range []struct {
		name, header, event, body string
		moved, fork               bool
	}{
		{"opened here", "X-Gitea-Event", "pull_request", pullOf("opened", "base"), true, false},
		{"case of letters", "X-Gitea-Event", "pull_request", pullOf("opened", "Base"), true, false},
		{"opened by a fork", "X-Forgejo-Event", "pull_request", pullOf("opened", "fork"), true, true},
		{"pushed, Gitea", "X-Gitea-Event", "pull_request", pullOf("synchronized", "fork"), true, true},
		{"pushed, GitHub", "X-GitHub-Event", "pull_request", pullOf("synchronize", "base"), true, false},
		{"opened again", "X-GitHub-Event", "pull_request", pullOf("reopened", "base"), true, false},
		{"closed", "X-GitHub-Event", "pull_request", pullOf("closed", "base"), false, false},
		{"labelled", "X-Gitea-Event", "pull_request", pullOf("label_updated", "fork"), false, true},
		{"fork deleted", "X-GitHub-Event", "pull_request", strings.Replace(pullOf("opened", "fork"), `{"full_name":"fork/p","clone_url":"https://h/fork/p.git"}`, "null", 1), true, true},
		{"GitLab", "X-Gitlab-Event", "Merge Request Hook", mergeOf("open", "", "base"), true, false},
		{"GitLab, a fork", "X-Gitlab-Event", "Merge Request Hook", mergeOf("open", "", "fork"), true, true},
		{"GitLab, pushed", "X-Gitlab-Event", "Merge Request Hook", mergeOf("update", before, "fork"), true, true},
		{"GitLab, renamed", "X-Gitlab-Event", "Merge Request Hook", mergeOf("update", "", "base"), false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, err := webhook.Identify(headers(test.header, test.event))
			if err != nil {
				t.Fatal(err)
			}
			e, err := d.DecodeJSON([]byte(test.body))
			if err != nil || e.Push != nil || e.PullRequest == nil {
				t.Fatalf("%+v, %v", e, err)
			}
			p := e.PullRequest
			if p.Moved != test.moved || p.Closed != (test.name == "closed") || p.Fork != test.fork || p.Number != 7 || p.Commit != later || p.Branch != "topic" || p.Sender != "ann" || p.Base.CloneURL != "https://h/base/p.git" {
				t.Errorf("%+v", *p)
			}
		})
	}
	for name, body := range map[string]string{
		"no pull request":    `{"action":"opened","repository":{"clone_url":"https://h/p"}}`,
		"no repository":      strings.Replace(pullOf("opened", "base"), `"repository"`, `"other"`, 1),
		"no commit":          strings.Replace(pullOf("opened", "base"), later, "", 1),
		"commit of zeros":    strings.Replace(pullOf("opened", "base"), later, none, 1),
		"commit an option":   strings.Replace(pullOf("opened", "base"), later, "--upload-pack=x", 1),
		"no branch":          strings.Replace(pullOf("opened", "base"), `"topic"`, `""`, 1),
		"branch of a line":   strings.Replace(pullOf("opened", "base"), `"topic"`, `"a\nb"`, 1),
		"no number":          strings.ReplaceAll(pullOf("opened", "base"), `"number":7`, `"number":0`),
		"sender of a line":   strings.Replace(pullOf("opened", "base"), `"ann"`, `"a\nb"`, 1),
		"not even an object": `[]`,
	} {
		d, _ := webhook.Identify(headers("X-Gitea-Event", "pull_request"))
		if e, err := d.DecodeJSON([]byte(body)); err == nil {
			t.Errorf("%s: %+v", name, e.PullRequest)
		}
	}
}

// TestByShape: a script sends no header that names an event.
func TestByShape(t *testing.T) {
	push := `{"ref":"refs/heads/main","after":"` + later + `","repository":{"clone_url":"https://h/p"}}`
	for body, want := range map[string]string{push: "push", pullOf("opened", "base"): "pull_request"} {
		d, err := webhook.ByShape(http.Header{}, []byte(body))
		if err != nil || d.Event != want {
			t.Fatalf("%+v, %v", d, err)
		}
		if e, err := d.DecodeJSON([]byte(body)); err != nil || (e.Push == nil) == (e.PullRequest == nil) {
			t.Errorf("%+v, %v", e, err)
		}
	}
	for _, body := range []string{`{}`, `{"pull_request":null}`, `{"ref":"refs/heads/main"}`} {
		if _, err := webhook.ByShape(http.Header{}, []byte(body)); !errors.Is(err, webhook.ErrUnknownSender) {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestPeek(t *testing.T) {
	for body, want := range map[string]string{
		`{"repository":{"clone_url":"https://h/p.git"}}`:                                "https://h/p.git",
		`{"project":{"git_http_url":"https://h/p.git"},"repository":{"url":"git@h:p"}}`: "https://h/p.git",
		`{"repository":{"ssh_url":"git@h:p"}}`:                                          "",
		`{}`:                                                                            "", `null`: "", `[]`: "", `{"repository":7}`: "", `{"repository":{"clone_url":"https://h/` + strings.Repeat("x", 4096) + `"}}`: "",
	} {
		r, err := webhook.Peek([]byte(body))
		if r.CloneURL != want || (err == nil) != (want != "") {
			t.Errorf("%.80s: %q, %v", body, r.CloneURL, err)
		}
	}
}

func TestJSON(t *testing.T) {
	for body, want := range map[string]string{
		`{"a":1}`: `{"a":1}`, ` {"a":"payload=x"}`: ` {"a":"payload=x"}`, "payload=%7B%7D": "{}", "a=1&payload=%7B%7D": "{}", "payload=%zz": "", "payload=1&payload=2": "",
	} {
		if got, err := webhook.JSON([]byte(body)); string(got) != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v", body, got, err)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add([]byte(pullOf("opened", "base")))
	f.Add([]byte(mergeOf("open", "", "fork")))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, err := webhook.Peek(body); err == nil && r.CloneURL == "" {
			t.Error("a repository without a URL")
		}
		for _, event := range []string{"pull_request", "push"} {
			d, _ := webhook.Identify(headers("X-Gitea-Event", event))
			_, _ = d.DecodeJSON(body)
		}
	})
}
