package nomadtest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Consul is a running fake: its key-value store.
type Consul struct {
	faults

	state sync.Mutex
	kv    map[string][]byte
}

// NewConsul starts one, which the test's end stops.
func NewConsul(t testing.TB) *Consul {
	t.Helper()
	c := &Consul{kv: map[string][]byte{}}
	c.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, ok := strings.CutPrefix(r.URL.Path, "/v1/kv/")
		switch {
		case r.Method != http.MethodGet:
			http.Error(w, "only reads are faked", http.StatusMethodNotAllowed)
		case r.URL.Path == "/v1/status/leader":
			answer(w, "127.0.0.1:8300")
		case !ok:
			http.NotFound(w, r)
		default:
			c.state.Lock()
			value, ok := c.kv[key]
			c.state.Unlock()
			if !ok {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			answer(w, []map[string]any{{"Key": key, "Value": value, "Flags": 0, "LockIndex": 0, "CreateIndex": 1, "ModifyIndex": 1}})
		}
	}))
	return c
}

// Put configures a repository, by Albatros' key; v is a string of JSON, or what
// JSON is made of.
func (c *Consul) Put(repo string, v any) {
	text, ok := v.(string)
	if !ok {
		made, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		text = string(made)
	}
	c.state.Lock()
	defer c.state.Unlock()
	c.kv["albatros/"+base64.StdEncoding.EncodeToString([]byte(repo))] = []byte(text)
}

// Status is a status of a commit as it was sent.
type Status struct {
	State       string `json:"state"`
	Context     string `json:"context"`
	Description string `json:"description"`
	Target      string `json:"target_url"`
}

// Gitea is a running fake: commit statuses, keys of users, and who may read.
type Gitea struct {
	faults

	// Token is what must be shown to set a status.
	Token string

	state    sync.Mutex
	statuses map[string][]Status
	keys     map[string][]string
	users    map[string]User // by token
	changed  chan struct{}
}

// User is somebody with a token.
type User struct {
	ID    int
	Login string
	// Reads are the repositories, OWNER/NAME, that he may read.
	Reads []string
}

// NewGitea starts one, which the test's end stops.
func NewGitea(t testing.TB) *Gitea {
	t.Helper()
	g := &Gitea{Token: "forge-token", statuses: map[string][]Status{}, keys: map[string][]string{}, users: map[string]User{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/repos/{owner}/{name}/statuses/{sha}", g.setStatus)
	mux.HandleFunc("GET /api/v1/user", g.user)
	mux.HandleFunc("GET /api/v1/repos/{owner}/{name}", g.repository)
	mux.HandleFunc("GET /api/v1/version", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]string{"version": "1.23.0"}) })
	mux.HandleFunc("GET /{file}", g.userKeys)
	g.serve(t, mux)
	return g
}

// CloneURL is that of a repository OWNER/NAME.
func (g *Gitea) CloneURL(path string) string { return g.URL + "/" + path + ".git" }

// AddUser lets somebody in by a token, with public keys.
func (g *Gitea) AddUser(token string, u User, keys ...string) {
	g.state.Lock()
	defer g.state.Unlock()
	g.users[token] = u
	g.keys[u.Login] = keys
}

// Statuses are those of a commit, oldest first.
func (g *Gitea) Statuses(path, sha string) []Status {
	g.state.Lock()
	defer g.state.Unlock()
	return slices.Clone(g.statuses[path+" "+sha])
}

// Changed is closed at the next status.
func (g *Gitea) Changed() <-chan struct{} {
	g.state.Lock()
	defer g.state.Unlock()
	return g.changed
}

// WaitStatus waits until the last status of a commit is one that is looked for,
// and returns it.
func (g *Gitea) WaitStatus(t testing.TB, path, sha string, is func(Status) bool) Status {
	t.Helper()
	for {
		changed := g.Changed()
		all := g.Statuses(path, sha)
		if len(all) > 0 && is(all[len(all)-1]) {
			return all[len(all)-1]
		}
		select {
		case <-changed:
		case <-t.Context().Done():
			t.Fatalf("no such status came: %+v", all)
		}
	}
}

func token(r *http.Request) string {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return token
}

func (g *Gitea) setStatus(w http.ResponseWriter, r *http.Request) {
	var s Status
	if err := decode(r.Body, &s); err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	switch {
	case token(r) != g.Token:
		http.Error(w, `{"message":"invalid token"}`, http.StatusUnauthorized)
		return
	case !slices.Contains([]string{"pending", "success", "failure", "error", "warning"}, s.State):
		http.Error(w, `{"message":"unknown state"}`, http.StatusUnprocessableEntity)
		return
	}
	g.state.Lock()
	key := r.PathValue("owner") + "/" + r.PathValue("name") + " " + r.PathValue("sha")
	g.statuses[key] = append(g.statuses[key], s)
	close(g.changed)
	g.changed = make(chan struct{})
	g.state.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(s)
}

func (g *Gitea) find(r *http.Request) (User, bool) {
	g.state.Lock()
	defer g.state.Unlock()
	if token(r) == g.Token {
		return User{ID: 1, Login: "ci-bot"}, true
	}
	u, ok := g.users[token(r)]
	return u, ok
}

func (g *Gitea) user(w http.ResponseWriter, r *http.Request) {
	u, ok := g.find(r)
	if !ok {
		http.Error(w, `{"message":"invalid token"}`, http.StatusUnauthorized)
		return
	}
	answer(w, map[string]any{"id": u.ID, "login": u.Login})
}

func (g *Gitea) repository(w http.ResponseWriter, r *http.Request) {
	path := r.PathValue("owner") + "/" + r.PathValue("name")
	u, ok := g.find(r)
	switch {
	case !ok:
		http.Error(w, `{"message":"invalid token"}`, http.StatusUnauthorized)
	case u.Login != "ci-bot" && !slices.Contains(u.Reads, path):
		http.Error(w, `{"message":"not found"}`, http.StatusNotFound)
	default:
		answer(w, map[string]any{"full_name": path, "clone_url": g.CloneURL(path), "permissions": map[string]bool{"pull": true, "push": u.Login == "ci-bot"}})
	}
}

func (g *Gitea) userKeys(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutSuffix(r.PathValue("file"), ".keys")
	g.state.Lock()
	keys := g.keys[name]
	g.state.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	for _, key := range keys {
		fmt.Fprintln(w, key)
	}
}
