package webhook_test

import (
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"example.com/converge/pkg/webhook"
)

const (
	before = "28e1879d029cb852e4844d9c718537df08844e03"
	later  = "bffeb74224043ba2feb48d137756c8a9331c449a"
	none   = "0000000000000000000000000000000000000000"
)

// TestPayloads decodes testdata: payloads with all the fields that the forges
// document, cut down where they repeat themselves.
func TestPayloads(t *testing.T) {
	github := webhook.Repository{Name: "Octo/Hello-World", CloneURL: "https://github.com/Octo/Hello-World.git", URLs: []string{
		"https://github.com/Octo/Hello-World.git", "git@github.com:Octo/Hello-World.git", "git://github.com/Octo/Hello-World.git", "https://github.com/Octo/Hello-World",
	}}
	gitea := webhook.Repository{Name: "team/webhooks", Private: true, CloneURL: "https://code.example.org/team/webhooks.git", URLs: []string{
		"https://code.example.org/team/webhooks.git", "ssh://git@code.example.org:2222/team/webhooks.git", "https://code.example.org/team/webhooks",
	}}
	gitlab := webhook.Repository{Name: "mike/diaspora", Private: true, CloneURL: "https://gitlab.example.org/mike/diaspora.git", URLs: []string{
		"https://gitlab.example.org/mike/diaspora.git", "git@gitlab.example.org:mike/diaspora.git", "https://gitlab.example.org/mike/diaspora",
	}}
	for _, test := range []struct {
		file, header, event string
		want                *webhook.Push
	}{
		{"github-branch.json", "X-GitHub-Event", "push", &webhook.Push{Ref: "refs/heads/main", Before: before, After: later, Repository: github, Sender: "Octo"}},
		{"github-forced.json", "X-GitHub-Event", "push", &webhook.Push{Ref: "refs/heads/main", Before: before, After: later, Forced: true, Repository: github, Sender: "Octo"}},
		{"github-deleted.json", "X-GitHub-Event", "push", &webhook.Push{Ref: "refs/heads/gone", Before: before, Deleted: true, Repository: github, Sender: "Octo"}},
		{"github-tag.json", "X-GitHub-Event", "push", &webhook.Push{Ref: "refs/tags/v1.0", After: later, Repository: github, Sender: "Octo"}},
		{"gitea-branch.json", "X-Gitea-Event", "push", &webhook.Push{Ref: "refs/heads/develop", Before: before, After: later, Repository: gitea, Sender: "team"}},
		{"gitea-branch.json", "X-Forgejo-Event", "push", &webhook.Push{Ref: "refs/heads/develop", Before: before, After: later, Repository: gitea, Sender: "team"}},
		{"gitlab-branch.json", "X-Gitlab-Event", "Push Hook", &webhook.Push{Ref: "refs/heads/master", Before: before, After: later, Repository: gitlab, Sender: "john"}},
		{"gitlab-branch.json", "X-Gitlab-Event", "System Hook", &webhook.Push{Ref: "refs/heads/master", Before: before, After: later, Repository: gitlab, Sender: "john"}},
		{"gitlab-tag.json", "X-Gitlab-Event", "Tag Push Hook", &webhook.Push{Ref: "refs/tags/v1.0.0", After: later, Repository: gitlab, Sender: "john"}},
		{"gitlab-deleted.json", "X-Gitlab-Event", "Push Hook", &webhook.Push{Ref: "refs/heads/gone", Before: before, Deleted: true, Repository: gitlab, Sender: "john"}},
	} {
		body, err := os.ReadFile(filepath.Join("testdata", "payload", test.file))
		if err != nil {
			t.Fatal(err)
		}
		form := []byte("payload=" + url.QueryEscape(string(body)))
		for kind, sent := range map[string][]byte{"application/json": body, "application/json; charset=utf-8": body, "application/x-www-form-urlencoded": form} {
			d, err := webhook.Identify(headers(test.header, test.event, "Content-Type", kind))
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Decode(sent)
			if err != nil || !reflect.DeepEqual(got.Push, test.want) || got.Ping {
				t.Errorf("%s as %s from %s: %+v, %v", test.file, kind, d.Forge, got.Push, err)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for ref, want := range map[string][2]string{
		"refs/heads/a/b": {"a/b", ""}, "refs/tags/v1": {"", "v1"}, "refs/notes/x": {}, "refs/heads/refs/heads/x": {"refs/heads/x", ""},
	} {
		p := webhook.Push{Ref: ref}
		if p.Branch() != want[0] || p.Tag() != want[1] {
			t.Errorf("%s: branch %q, tag %q", ref, p.Branch(), p.Tag())
		}
	}
}

func TestOtherEvents(t *testing.T) {
	for _, test := range []struct {
		header, event, body string
		ping                bool
	}{
		{"X-GitHub-Event", "ping", `{"zen":"x","hook_id":1}`, true},
		{"X-GitHub-Event", "issues", `{"ref":"refs/heads/main"}`, false},
		{"X-GitHub-Event", "issues", `not even JSON`, false},
		{"X-Gitea-Event", "create", `{"ref":"v1","ref_type":"tag"}`, false},
		{"X-Gitlab-Event", "Note Hook", `{}`, false},
		{"X-Gitlab-Event", "System Hook", `{"event_name":"project_create"}`, false},
	} {
		d, err := webhook.Identify(headers(test.header, test.event, "Content-Type", "application/json"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := d.Decode([]byte(test.body)); err != nil || got.Push != nil || got.Ping != test.ping {
			t.Errorf("%s: %+v, %v", test.event, got, err)
		}
	}
}

// crafted are payloads that are none: a receiver must say so, and no more.
var crafted = []string{
	``, `null`, `[]`, `"x"`, `0`, `{}`, `{"ref":null}`, `{"ref":1}`, `{"repository":null}`, `{"repository":[]}`, `{"repository":"x"}`,
	`{"ref":"refs/heads/main"}`, `{"ref":"refs/heads/main","after":"` + later + `"}`,
	`{"ref":"refs/heads/main","after":"` + later + `","repository":{}}`,
	`{"ref":"refs/heads/main","after":"` + later + `","repository":{"clone_url":""}}`,
	`{"ref":"refs/heads/main","after":"--upload-pack=x","repository":{"clone_url":"https://h/p"}}`,
	`{"ref":"main","after":"` + later + `","repository":{"clone_url":"https://h/p"}}`,
	`{"ref":"refs/heads/a\nb","after":"` + later + `","repository":{"clone_url":"https://h/p"}}`,
	`{"ref":"refs/heads/main","before":"x","after":"` + later + `","repository":{"clone_url":"https://h/p"}}`,
	"{\"ref\":\"refs/heads/\xff\",\"after\":\"" + later + `","repository":{"clone_url":"https://h/p"}}`,
	strings.Repeat("[", 100_000), strings.Repeat(`{"repository":`, 50_000),
	`{"object_kind":"push","ref":"refs/heads/main","after":"` + later + `","project":null}`,
	`{"object_kind":"push","ref":"refs/heads/main","after":"` + later + `","project":{"visibility_level":"x"}}`,
}

func TestCraftedPayloads(t *testing.T) {
	for _, pair := range [][2]string{{"X-GitHub-Event", "push"}, {"X-Gitea-Event", "push"}, {"X-Forgejo-Event", "push"}, {"X-Gitlab-Event", "Push Hook"}} {
		for _, body := range crafted {
			d, err := webhook.Identify(headers(pair[0], pair[1], "Content-Type", "application/json"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := d.Decode([]byte(body)); err == nil || got.Push != nil {
				t.Errorf("%s: %.80q is accepted: %+v", d.Forge, body, got)
			} else if len(err.Error()) > 300 {
				t.Errorf("%s: %.80q: a long error: %v", d.Forge, body, err)
			}
		}
	}
}

func TestContentTypes(t *testing.T) {
	for _, test := range []struct{ kind, body string }{
		{"", "{}"}, {"text/plain", "{}"}, {"application/json;;", "{}"}, {"multipart/form-data; boundary=x", "--x--"},
		{"application/x-www-form-urlencoded", "a=b"}, {"application/x-www-form-urlencoded", "payload={}&payload={}"}, {"application/x-www-form-urlencoded", "payload=%zz"},
	} {
		d, err := webhook.Identify(headers("X-GitHub-Event", "push", "Content-Type", test.kind))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Decode([]byte(test.body)); err == nil {
			t.Errorf("%q: %q is accepted", test.kind, test.body)
		}
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "payload", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body, false)
		f.Add([]byte("payload="+url.QueryEscape(string(body))), true)
	}
	for _, body := range crafted {
		f.Add([]byte(body), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, form bool) {
		kind := "application/json"
		if form {
			kind = "application/x-www-form-urlencoded"
		}
		for _, pair := range [][2]string{{"X-GitHub-Event", "push"}, {"X-Gitea-Event", "push"}, {"X-Forgejo-Event", "push"}, {"X-Gitlab-Event", "Push Hook"}, {"X-Gitlab-Event", "System Hook"}} {
			d, err := webhook.Identify(headers(pair[0], pair[1], "Content-Type", kind))
			if err != nil {
				t.Fatal(err)
			}
			e, err := d.Decode(body)
			if err != nil || e.Push == nil {
				continue
			}
			p := e.Push
			if !strings.HasPrefix(p.Ref, "refs/") || p.Deleted != (p.After == "") && !p.Deleted || len(p.Repository.URLs) == 0 || slices.Contains(p.Repository.URLs, "") {
				t.Errorf("%+v", p)
			}
		}
	})
}
