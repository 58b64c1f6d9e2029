package notify

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"

	"example.com/converge/pkg/forge"
	"example.com/converge/pkg/watchtest"
)

// forgeTold tells the story to a forge that answers as the kind does, and returns
// what it got.
func forgeTold(t *testing.T, kind, how string, place Job) []request {
	t.Helper()
	state := ""
	r := newReceiver(t, func(w http.ResponseWriter, q request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case kind == "gitlab" && strings.Contains(q.path, "/statuses/"):
			// GitLab moves a status forward only.
			next := q.object(t)["state"].(string)
			if next == state || state == "pending" && next == "success" {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"message":"Cannot transition status via :run from :%s"}`, state)
				t.Errorf("from %q to %q", state, next)
				return
			}
			state = next
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id":5}`)
		case kind == "gitlab" && strings.Contains(q.path, "/repository/commits/"):
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"note":"x"}`) // these comments have no number
		case q.method == http.MethodPost:
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"id":4711,"body":"x"}`)
		default:
			fmt.Fprint(w, `{"id":4711}`)
		}
	})
	var j watchtest.Output
	place.Name, place.URL = job.Name, job.URL
	tell(t, Config{
		Targets: []string{how}, Token: "T0KENT0KEN", Forge: kind, ForgeURL: r.URL, CAFile: r.ca, Job: place, Logger: logger(&j),
	})
	if said := j.String(); strings.Contains(said, "T0KEN") || strings.Contains(said, "level=WARN") {
		t.Errorf("it logged\n%s", said)
	}
	r.Close()
	close(r.got)
	var all []request
	for q := range r.got {
		want := "Bearer T0KENT0KEN"
		if kind == "gitea" {
			want = "token T0KENT0KEN"
		}
		if got := q.header.Get("Authorization"); got != want {
			t.Errorf("Authorization %q", got)
		}
		if kind == "github" && (q.header.Get("Accept") != "application/vnd.github+json" || q.header.Get("X-Github-Api-Version") != "2022-11-28") {
			t.Errorf("%v", q.header)
		}
		all = append(all, q)
	}
	return all
}

// TestStatus has what each forge documents of its statuses.
func TestStatus(t *testing.T) {
	for kind, want := range map[string]struct {
		path, name string
		states     []string
		most       int
	}{
		"github": {"/api/v3/repos/acme/app/statuses/" + sha, "context", []string{"pending", "pending", "success"}, 140},
		"gitea":  {"/api/v1/repos/acme/app/statuses/" + sha, "context", []string{"pending", "pending", "success"}, 255},
		"gitlab": {"/api/v4/projects/acme%2Fapp/statuses/" + sha, "name", []string{"running", "success"}, 255},
	} {
		t.Run(kind, func(t *testing.T) {
			got := forgeTold(t, kind, "status", Job{Repository: "acme/app", Commit: sha, Pipeline: "99"})
			if len(got) != len(want.states) {
				t.Fatalf("%d requests", len(got))
			}
			for i, q := range got {
				o := q.object(t)
				if q.method != "POST" || q.path != want.path || o["state"] != want.states[i] || o[want.name] != "converge: acme/app/7" || o["target_url"] != job.URL {
					t.Errorf("%s %s %v", q.method, q.path, o)
				}
				if n := utf8.RuneCountInString(o["description"].(string)); n == 0 || n > want.most {
					t.Errorf("a description of %d characters", n)
				}
				fields := []string{"state", "description", "target_url", want.name}
				if kind == "gitlab" {
					fields = append(fields, "pipeline_id")
					if o["pipeline_id"] != float64(99) {
						t.Errorf("pipeline %v", o["pipeline_id"])
					}
				}
				keys(t, o, fields...)
			}
			if first := got[0].object(t)["description"]; first != line {
				t.Errorf("the line is %q", first)
			}
		})
	}
}

// placeOf is a commit and a pull request of a repository.
func placeOf(kind forge.Kind) place {
	u := &url.URL{Scheme: "https", Host: "git.example"}
	return place{Page: forge.Page{Repository: forge.Repository{Kind: kind, Base: u, Path: "a/b"}, Commit: sha, Pull: "1"}}
}

// TestStatusOfLongLine does not cut it.
func TestStatusOfLongLine(t *testing.T) {
	n := story()[0]
	n.Access.SSH = strings.Repeat("x", forge.MaxDescription(forge.GitHub)+1)
	for kind, want := range map[forge.Kind]string{"github": "Waits for somebody to log in: the line is in the job's log.", "gitea": n.Access.SSH} {
		m, err := status{placeOf(kind)}.message(n)
		if err != nil || m.object.(object)["description"] != want {
			t.Errorf("%s: %v, %v", kind, m, err)
		}
	}
}

// TestComment: one comment, with the line, which is taken out at the end.
func TestComment(t *testing.T) {
	commit, pull := Job{Repository: "acme/app", Commit: sha}, Job{Repository: "acme/app", Commit: sha, Pull: "12"}
	for name, test := range map[string]struct {
		kind, field  string
		place        Job
		first, later string
	}{
		"github pull":   {"github", "body", pull, "POST /api/v3/repos/acme/app/issues/12/comments", "PATCH /api/v3/repos/acme/app/issues/comments/4711"},
		"github commit": {"github", "body", commit, "POST /api/v3/repos/acme/app/commits/" + sha + "/comments", "PATCH /api/v3/repos/acme/app/comments/4711"},
		"gitlab merge":  {"gitlab", "body", pull, "POST /api/v4/projects/acme%2Fapp/merge_requests/12/notes", "PUT /api/v4/projects/acme%2Fapp/merge_requests/12/notes/4711"},
		"gitlab commit": {"gitlab", "note", commit, "POST /api/v4/projects/acme%2Fapp/repository/commits/" + sha + "/comments", ""},
		"gitea pull":    {"gitea", "body", pull, "POST /api/v1/repos/acme/app/issues/12/comments", "PATCH /api/v1/repos/acme/app/issues/comments/4711"},
	} {
		t.Run(name, func(t *testing.T) {
			got := forgeTold(t, test.kind, "comment", test.place)
			wants := []string{test.first}
			if test.later != "" {
				wants = append(wants, test.later)
			}
			if len(got) != len(wants) {
				t.Fatalf("%d requests", len(got))
			}
			for i, want := range wants {
				o := got[i].object(t)
				keys(t, o, test.field)
				if said := got[i].method + " " + got[i].path; said != want {
					t.Errorf("%s, want %s", said, want)
				}
				if strings.Contains(o[test.field].(string), line) != (i == 0) {
					t.Errorf("%v", o)
				}
			}
		})
	}
}

// TestCommentLost: what was never made is not changed.
func TestCommentLost(t *testing.T) {
	c := &comment{place: placeOf(forge.GitHub)}
	if m, err := c.message(story()[3]); m != nil || err != nil {
		t.Errorf("%v, %v", m, err)
	}
	c.answered([]byte(`{"id":"../x"}`))
	c.answered([]byte(`nonsense`))
	if c.id != "" {
		t.Errorf("%q", c.id)
	}
	c.answered([]byte(`{"id":7}`))
	if m, err := c.message(story()[0]); err != nil || m.method != "PATCH" || m.path != "/repos/a/b/issues/comments/7" {
		t.Errorf("for another id: %v, %v", m, err)
	}
}
