package forge

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"example.com/converge/pkg/apicall"
)

const token = "T0KENT0KEN"

// local is a forge on this machine.
type local struct {
	*httptest.Server
	ca string

	mu  sync.Mutex
	got []request
}

type request struct {
	line   string // method and path as it was escaped, with the query
	header http.Header
	body   map[string]any
}

// newLocal answers as answer does, which is called for one request at a time.
func newLocal(t *testing.T, answer func(http.ResponseWriter, request)) *local {
	t.Helper()
	l := &local{}
	l.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := request{line: r.Method + " " + r.URL.RequestURI(), header: r.Header}
		text, _ := io.ReadAll(r.Body)
		if len(text) > 0 {
			if err := json.Unmarshal(text, &q.body); err != nil || r.Header.Get("Content-Type") != "application/json" {
				t.Errorf("%v: %q %v", err, text, r.Header)
			}
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.got = append(l.got, q)
		w.Header().Set("Content-Type", "application/json")
		answer(w, q)
	}))
	l.Config.ErrorLog = log.New(io.Discard, "", 0)
	l.StartTLS()
	t.Cleanup(l.Close)
	l.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(l.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *local) client(t *testing.T, kind Kind) *Client {
	t.Helper()
	c, err := NewClient(Config{Kind: kind, URL: l.URL, Token: token, CAFile: l.ca, UserAgent: "converge-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (l *local) all() []request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.got)
}

// TestSetStatus has what each forge documents of its statuses.
func TestSetStatus(t *testing.T) {
	for kind, want := range map[Kind]struct {
		path, name, authorization string
		states                    []string // of Pending to Error
		most                      int
	}{
		GitHub: {"/api/v3/repos/acme/app/statuses/" + sha, "context", "Bearer " + token, []string{"pending", "pending", "success", "failure", "error"}, 140},
		Gitea:  {"/api/v1/repos/acme/app/statuses/" + sha, "context", "token " + token, []string{"pending", "pending", "success", "failure", "error"}, 255},
		GitLab: {"/api/v4/projects/acme%2Fapp/statuses/" + sha, "name", "Bearer " + token, []string{"pending", "running", "success", "failed", "failed"}, 255},
	} {
		t.Run(string(kind), func(t *testing.T) {
			l := newLocal(t, func(w http.ResponseWriter, _ request) { w.WriteHeader(201); fmt.Fprint(w, `{"id":1}`) })
			c := l.client(t, kind)
			for _, state := range []State{Pending, Running, Success, Failure, Error} {
				err := c.SetStatus(t.Context(), "acme/app", sha, Status{
					State: state, Context: "Albatros default", Description: strings.Repeat("é", 300), Target: "https://ci.example/build?job=x", Pipeline: "99",
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			for i, q := range l.all() {
				if q.line != "POST "+want.path || q.header.Get("Authorization") != want.authorization || q.header.Get("User-Agent") != "converge-test" {
					t.Errorf("%s %v", q.line, q.header)
				}
				if kind == GitHub && (q.header.Get("Accept") != "application/vnd.github+json" || q.header.Get("X-Github-Api-Version") != "2022-11-28") {
					t.Errorf("%v", q.header)
				}
				if q.body["state"] != want.states[i] || q.body[want.name] != "Albatros default" || q.body["target_url"] != "https://ci.example/build?job=x" {
					t.Errorf("%v", q.body)
				}
				if n := utf8.RuneCountInString(q.body["description"].(string)); n != want.most {
					t.Errorf("a description of %d characters", n)
				}
				fields := 4
				if kind == GitLab {
					if fields++; q.body["pipeline_id"] != float64(99) {
						t.Errorf("pipeline %v", q.body["pipeline_id"])
					}
				}
				if len(q.body) != fields {
					t.Errorf("%v", q.body)
				}
			}
		})
	}
}

// TestGitLabMoves: a status that GitLab would refuse, since it has it or goes one
// step at a time, gets there, whatever order it is told in and however often.
func TestGitLabMoves(t *testing.T) {
	state := ""
	l := newLocal(t, func(w http.ResponseWriter, q request) {
		next := q.body["state"].(string)
		rank := map[string]int{"": 0, "pending": 1, "running": 2}
		done := next == "success" || next == "failed"
		if done && state == "pending" || !done && rank[next] <= rank[state] {
			w.WriteHeader(400)
			fmt.Fprintf(w, `{"message":"Cannot transition status via :run from :%s (Reason(s): Status cannot transition via \"run\")"}`, state)
			return
		}
		if state = next; done { // the next one begins anew
			state = ""
		}
		w.WriteHeader(201)
	})
	c := l.client(t, GitLab)
	for _, s := range []State{Pending, Pending, Running, Running, Pending, Success, Success, Pending, Failure, Running, Error} {
		if err := c.SetStatus(t.Context(), "a/b/c", sha, Status{State: s, Context: "x"}); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	var told []string
	for _, q := range l.all() {
		told = append(told, q.body["state"].(string))
	}
	if got := strings.Join(told, " "); got != "pending pending running running pending success success pending failed running failed running failed" {
		t.Errorf("%s", got)
	}
}

func TestSetStatusRefuses(t *testing.T) {
	l := newLocal(t, func(w http.ResponseWriter, _ request) { w.WriteHeader(500); fmt.Fprint(w, `{"message":"`+token+`"}`) })
	c := l.client(t, Gitea)
	for _, test := range [][3]string{
		{"acme", sha, "no path"}, {"acme/../x", sha, "no path"}, {"acme/app?x", sha, "no path"}, {"acme/app", "main", "no full object id"},
	} {
		if err := c.SetStatus(t.Context(), test[0], test[1], Status{State: Pending}); err == nil || !strings.Contains(err.Error(), test[2]) {
			t.Errorf("%v: %v", test, err)
		}
	}
	if len(l.all()) != 0 {
		t.Error("it was asked all the same")
	}
	err := c.SetStatus(t.Context(), "acme/app", sha, Status{State: Pending})
	var e *apicall.Error
	if !errors.As(err, &e) || !e.Retry || !strings.Contains(err.Error(), "500") || strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("%v", err)
	}
}

func TestUser(t *testing.T) {
	answer, status := "", 200
	l := newLocal(t, func(w http.ResponseWriter, _ request) { w.WriteHeader(status); fmt.Fprint(w, answer) })
	for kind, test := range map[Kind][2]string{
		GitHub: {`{"id":7,"login":"octo-cat","name":"x"}`, "GET /api/v3/user"},
		Gitea:  {`{"id":7,"login":"octo-cat","username":"octo-cat"}`, "GET /api/v1/user"},
		GitLab: {`{"id":7,"username":"octo-cat","login":"no"}`, "GET /api/v4/user"},
	} {
		l.mu.Lock()
		answer = test[0]
		l.mu.Unlock()
		if u, err := l.client(t, kind).User(t.Context()); err != nil || u != (User{"7", "octo-cat"}) {
			t.Errorf("%s: %v, %v", kind, u, err)
		}
		if all := l.all(); all[len(all)-1].line != test[1] {
			t.Errorf("%s", all[len(all)-1].line)
		}
	}
	c := l.client(t, Gitea)
	for _, text := range []string{"", "[]", `{"login":"x"}`, `{"id":7}`, `{"id":-1,"login":"x"}`, `{"id":7,"login":"a\u001b[2J"}`, `{"id":7,"login":"` + strings.Repeat("x", 300) + `"}`} {
		l.mu.Lock()
		answer = text
		l.mu.Unlock()
		if u, err := c.User(t.Context()); err == nil {
			t.Errorf("%s: %v", text, u)
		}
	}
	l.mu.Lock()
	status = 401
	l.mu.Unlock()
	if _, err := c.User(t.Context()); !errors.Is(err, ErrToken) || strings.Contains(err.Error(), "T0KEN") {
		t.Errorf("%v", err)
	}
	// Another's token goes in its own name.
	l.mu.Lock()
	status, answer = 200, `{"id":7,"login":"x"}`
	l.mu.Unlock()
	if _, err := c.As("other").User(t.Context()); err != nil {
		t.Error(err)
	}
	if all := l.all(); all[len(all)-1].header.Get("Authorization") != "token other" {
		t.Errorf("%v", all[len(all)-1].header)
	}
}

func TestMayRead(t *testing.T) {
	answer, status, after := "", 200, ""
	l := newLocal(t, func(w http.ResponseWriter, _ request) {
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, answer)
	})
	for _, test := range []struct {
		kind   Kind
		status int
		answer string
		may    bool
		wrong  string
	}{
		{Gitea, 200, `{"permissions":{"admin":false,"push":false,"pull":true}}`, true, ""},
		{Gitea, 200, `{"permissions":{"pull":false}}`, false, ""}, // sees its issues only
		{Gitea, 200, `{}`, false, ""},
		{Gitea, 404, ``, false, ""},
		{Gitea, 403, ``, false, ""},
		{Gitea, 200, `[`, false, "something else"},
		{Gitea, 500, ``, false, "500"},
		{Gitea, 301, ``, false, "301"},
		{GitHub, 200, `{"permissions":{"pull":true}}`, true, ""},
		{GitLab, 200, `[]`, true, ""},
		{GitLab, 403, `{"message":"403 Forbidden"}`, false, ""}, // a guest sees the project, and not its code
		{GitLab, 404, ``, false, ""},
		{GitLab, 401, ``, false, "does not accept the token"},
	} {
		l.mu.Lock()
		status, answer = test.status, test.answer
		l.mu.Unlock()
		may, err := l.client(t, test.kind).MayRead(t.Context(), "acme/app")
		if may != test.may || (err == nil) != (test.wrong == "") || err != nil && !strings.Contains(err.Error(), test.wrong) {
			t.Errorf("%+v: %v, %v", test, may, err)
		}
		all := l.all()
		want := map[Kind]string{
			Gitea: "GET /api/v1/repos/acme/app", GitHub: "GET /api/v3/repos/acme/app", GitLab: "GET /api/v4/projects/acme%2Fapp/repository/branches?per_page=1",
		}[test.kind]
		if got := all[len(all)-1].line; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	c := l.client(t, GitHub)
	l.mu.Lock()
	status, after = 403, "30"
	l.mu.Unlock()
	if _, err := c.MayRead(t.Context(), "acme/app"); err == nil { // too many requests is no answer
		t.Error("a limit was taken for an answer")
	}
	l.mu.Lock()
	status, after = 401, ""
	l.mu.Unlock()
	if _, err := c.MayRead(t.Context(), "acme/app"); !errors.Is(err, ErrToken) {
		t.Errorf("%v", err)
	}
	if _, err := c.MayRead(t.Context(), "acme/../../user"); err == nil {
		t.Error("any path does")
	}
}

// TestComments has the addresses and fields that each forge documents.
func TestComments(t *testing.T) {
	u := parse(t, "https://git.example")
	for _, test := range []struct {
		kind                  Kind
		pull                  string
		field, added, changed string
	}{
		{GitHub, "12", "body", "POST /repos/acme/app/issues/12/comments", "PATCH /repos/acme/app/issues/comments/4711"},
		{GitHub, "", "body", "POST /repos/acme/app/commits/" + sha + "/comments", "PATCH /repos/acme/app/comments/4711"},
		{GitLab, "12", "body", "POST /projects/acme%2Fapp/merge_requests/12/notes", "PUT /projects/acme%2Fapp/merge_requests/12/notes/4711"},
		{GitLab, "", "note", "POST /projects/acme%2Fapp/repository/commits/" + sha + "/comments", ""},
		{Gitea, "12", "body", "POST /repos/acme/app/issues/12/comments", "PATCH /repos/acme/app/issues/comments/4711"},
	} {
		p := Page{Repository: Repository{test.kind, u, "acme/app"}, Commit: sha, Pull: test.pull}
		add := p.AddComment("text")
		if got := add.Method + " " + add.Path; got != test.added || len(add.Body) != 1 || add.Body[test.field] != "text" || !p.CanComment() {
			t.Errorf("%s %v, want %s", got, add.Body, test.added)
		}
		edit, ok := p.EditComment("4711", "more")
		if got := edit.Method + " " + edit.Path; ok != (test.changed != "") || ok && (got != test.changed || edit.Body["body"] != "more") {
			t.Errorf("%s, want %s", got, test.changed)
		}
	}
	if (Page{Repository: Repository{Kind: Gitea}, Commit: sha}).CanComment() || (Page{Repository: Repository{Kind: GitHub}}).CanComment() {
		t.Error("comments on what cannot be commented on")
	}
	if got := CommentID([]byte(`{"id":4711,"body":"x"}`)); got != "4711" {
		t.Errorf("%q", got)
	}
}

func FuzzCommentID(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		if got := CommentID(text); got != "" && !IsNumber(got) {
			t.Errorf("%q", got)
		}
	})
}

func FuzzDecodeUser(f *testing.F) {
	f.Add("gitea", []byte(`{"id":7,"login":"x"}`))
	f.Add("gitlab", []byte(`{"id":7,"username":"x"}`))
	f.Fuzz(func(t *testing.T, kind string, text []byte) {
		u, err := decodeUser(Kind(kind), text)
		if (err == nil) != (u.Login != "" && IsNumber(u.ID)) || len(u.Login) > maxLogin {
			t.Errorf("%v, %v", u, err)
		}
	})
}

func FuzzDecodePull(f *testing.F) {
	f.Add([]byte(`{"permissions":{"pull":true}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if may, err := decodePull(text); may && (err != nil || !strings.Contains(strings.ToLower(string(text)), "true")) {
			t.Errorf("%s", text)
		}
	})
}
