package forgekeys

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/keys"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// forge is a server with pages of a test's choice.
type forge struct {
	*httptest.Server
	ca string // file

	mu    sync.Mutex
	pages map[string]answer // by path and query, or by path alone
	asked []string          // "PATH?QUERY AUTHORIZATION"
}

type answer struct {
	status int // 0 is 200
	kind   string
	text   string
	to     string // a redirect
}

func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{pages: map[string]answer{}}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	f.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	f.ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw})
	if err := os.WriteFile(f.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *forge) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.URL.RequestURI()+" "+r.Header.Get("Authorization")))
	p, ok := f.pages[r.URL.RequestURI()]
	if !ok {
		p, ok = f.pages[r.URL.EscapedPath()]
	}
	f.mu.Unlock()
	switch {
	case !ok:
		http.NotFound(w, r)
	case p.to != "":
		http.Redirect(w, r, p.to, http.StatusFound)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if p.kind != "" {
			w.Header().Set("Content-Type", p.kind)
		}
		if p.status != 0 {
			w.WriteHeader(p.status)
		}
		_, _ = w.Write([]byte(p.text))
	}
}

func (f *forge) set(path string, p answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pages[path] = p
}

func (f *forge) log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

// server is the forge as one of a kind.
func (f *forge) server(t testing.TB, kind Forge, token string) Server {
	t.Helper()
	s, err := NewServer(kind, f.URL+"/", token)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newStore makes a store that does not wait before it tries again.
func (f *forge) store(t testing.TB, log *bytes.Buffer, sources ...Source) *Store {
	t.Helper()
	cfg := Config{Sources: sources, CAFile: f.ca}
	if log != nil {
		cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.retries = []time.Duration{0, 0}
	return s
}

func newKey(t testing.TB) (line string, sum keys.Digest) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), keys.Sum(key)
}

// must is for constructors.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func toJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

type object = map[string]any

// Each forge is asked at its own addresses, with its own token, and each
// member of a team who counts may log in.
func TestForges(t *testing.T) {
	line := map[string]string{}
	sum := map[string]keys.Digest{}
	for _, name := range []string{"alice", "bob", "carol", "dave"} {
		line[name], sum[name] = newKey(t)
	}
	now := time.Now()
	key := func(name string, more ...string) string {
		o := object{"id": 1, "key": line[name], "title": "laptop"}
		for i := 0; i+1 < len(more); i += 2 {
			o[more[i]] = more[i+1]
		}
		return toJSON(t, []object{o})
	}
	user := func(name string) func(Server) (Source, error) {
		return func(s Server) (Source, error) { return s.User(name) }
	}
	team := func(name string) func(Server) (Source, error) {
		return func(s Server) (Source, error) { return s.Team(name) }
	}
	for name, test := range map[string]struct {
		forge  Forge
		token  string
		source func(Server) (Source, error)
		pages  map[string]string
		in     string // who may log in
		asked  string // one of the requests
	}{
		"GitHub user": {GitHub, "", user("alice"), map[string]string{
			"/alice.keys": line["alice"] + "\n" + line["bob"] + "\n",
		}, "alice bob", "/alice.keys"},
		"GitHub user, token": {GitHub, "s3cret", user("alice"), map[string]string{
			"/api/v3/users/alice/keys?page=1&per_page=100": key("alice"),
			"/api/v3/users/alice/keys?page=2&per_page=100": key("bob"),
			"/api/v3/users/alice/keys?page=3&per_page=100": "[]",
		}, "alice bob", "/api/v3/users/alice/keys?page=1&per_page=100 Bearer s3cret"},
		"GitHub team": {GitHub, "s3cret", team("acme/ops"), map[string]string{
			"/api/v3/orgs/acme/teams/ops/members?page=1&per_page=100": toJSON(t, []object{{"login": "alice", "type": "User"}, {"login": "robot", "type": "Bot"}}),
			"/api/v3/orgs/acme/teams/ops/members?page=2&per_page=100": toJSON(t, []object{{"login": "bob", "type": "User"}, {"login": "../carol", "type": "User"}, {"login": "gone", "type": "User"}}),
			"/api/v3/orgs/acme/teams/ops/members?page=3&per_page=100": "[]",
			"/api/v3/users/alice/keys?page=1&per_page=100":            key("alice"),
			"/api/v3/users/alice/keys?page=2&per_page=100":            "[]",
			"/api/v3/users/bob/keys?page=1&per_page=100":              key("bob"),
			"/api/v3/users/bob/keys?page=2&per_page=100":              "[]",
		}, "alice bob", "/api/v3/orgs/acme/teams/ops/members?page=1&per_page=100 Bearer s3cret"},
		"GitLab user": {GitLab, "", user("alice"), map[string]string{
			"/alice.keys": line["alice"] + " Alice (git.example.com)",
		}, "alice", "/alice.keys"},
		"GitLab user, token": {GitLab, "s3cret", user("alice"), map[string]string{
			"/api/v4/users/alice/keys?page=1&per_page=100": key("alice", "usage_type", "auth_and_signing", "expires_at", now.Add(time.Hour).Format(time.RFC3339)),
			"/api/v4/users/alice/keys?page=2&per_page=100": key("bob", "usage_type", "signing"),
			"/api/v4/users/alice/keys?page=3&per_page=100": key("carol", "expires_at", now.Add(-time.Hour).Format("2006-01-02T15:04:05.000Z07:00")),
			"/api/v4/users/alice/keys?page=4&per_page=100": key("dave", "expires_at", "soon"),
			"/api/v4/users/alice/keys?page=5&per_page=100": "[]",
		}, "alice", "/api/v4/users/alice/keys?page=2&per_page=100 Bearer s3cret"},
		"GitLab group": {GitLab, "s3cret", team("acme/infra/ops"), map[string]string{
			"/api/v4/groups/acme%2Finfra%2Fops/members/all?page=1&per_page=100": toJSON(t, []object{
				{"username": "alice", "state": "active", "access_level": 30, "expires_at": nil, "membership_state": "active"},
				{"username": "bob", "state": "blocked", "access_level": 50},
				{"username": "carol", "state": "active", "access_level": 20},
				{"username": "dave", "state": "active", "access_level": 40, "expires_at": "2001-01-01"},
			}),
			"/api/v4/groups/acme%2Finfra%2Fops/members/all?page=2&per_page=100": "[]",
			"/api/v4/users/alice/keys?page=1&per_page=100":                      key("alice"),
			"/api/v4/users/alice/keys?page=2&per_page=100":                      "[]",
		}, "alice", "/api/v4/users/alice/keys?page=1&per_page=100 Bearer s3cret"},
		"Gitea user": {Gitea, "", user("alice"), map[string]string{"/alice.keys": line["alice"]}, "alice", "/alice.keys"},
		"Gitea organisation": {Gitea, "", team("acme"), map[string]string{
			"/api/v1/orgs/acme/public_members?limit=50&page=1": toJSON(t, []object{{"login": "alice", "username": "alice"}}),
			"/api/v1/orgs/acme/public_members?limit=50&page=2": "[]",
			"/alice.keys": line["alice"],
		}, "alice", "/api/v1/orgs/acme/public_members?limit=50&page=1"},
		"Gitea organisation, token": {Gitea, "s3cret", team("acme"), map[string]string{
			"/api/v1/orgs/acme/members?limit=50&page=1":   toJSON(t, []object{{"login": "alice"}}),
			"/api/v1/orgs/acme/members?limit=50&page=2":   "[]",
			"/api/v1/users/alice/keys?limit=50&page=1":    key("alice"),
			"/api/v1/users/alice/keys?limit=50&page=2":    "[]",
			"/api/v1/orgs/acme/public_members?limit=50&p": "",
		}, "alice", "/api/v1/users/alice/keys?limit=50&page=1 token s3cret"},
		"SourceHut user": {Sourcehut, "", user("~alice"), map[string]string{"/~alice.keys": line["alice"]}, "alice", "/~alice.keys"},
		"URL": {"", "", nil, map[string]string{
			"/team/keys.txt?a=b": "# ours\r\n\r\n" + line["alice"] + "\r\n" + line["bob"] + " bob\r\n",
		}, "alice bob", "/team/keys.txt?a=b"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			for path, text := range test.pages {
				p := answer{text: text}
				if strings.HasPrefix(text, "[") {
					p.kind = "application/json"
				}
				f.set(path, p)
			}
			var source Source
			if test.source == nil {
				source = must[Source](t)(URL(f.URL + "/team/keys.txt?a=b"))
			} else {
				source = must[Source](t)(test.source(f.server(t, test.forge, test.token)))
			}
			var log bytes.Buffer
			s := f.store(t, &log, source)
			if err := s.Load(t.Context()); err != nil {
				t.Fatalf("%v; asked %q", err, f.log())
			}
			for name, sum := range sum {
				owner, ok := s.Owner(sum)
				if want := strings.Contains(test.in, name); ok != want || ok && owner == "" {
					t.Errorf("%s: %v %q", name, ok, owner)
				}
			}
			found := false
			for _, asked := range f.log() {
				found = found || asked == test.asked
				if test.token != "" && !strings.Contains(asked, test.token) {
					t.Errorf("asked without token: %s", asked)
				}
			}
			if !found {
				t.Errorf("not asked for %s, but %q", test.asked, f.log())
			}
			if strings.Contains(log.String(), "s3cret") || strings.Contains(source.String(), "s3cret") || strings.Contains(source.String(), "a=b") {
				t.Errorf("a secret is told: %s %s", source, &log)
			}
		})
	}
}

func TestPublicAddresses(t *testing.T) {
	for _, test := range []struct {
		forge Forge
		base  string
		want  string
	}{
		{GitHub, "https://github.com", "https://api.github.com/users/a/keys https://github.com/a.keys"},
		{GitHub, "https://acme.ghe.com", "https://api.acme.ghe.com/users/a/keys https://acme.ghe.com/a.keys"},
		{GitHub, "https://git.example.com/", "https://git.example.com/api/v3/users/a/keys https://git.example.com/a.keys"},
		{GitLab, "https://example.com/gitlab/", "https://example.com/gitlab/api/v4/users/a/keys https://example.com/gitlab/a.keys"},
		{Gitea, "https://codeberg.org:443", "https://codeberg.org:443/api/v1/users/a/keys https://codeberg.org:443/a.keys"},
		{Sourcehut, Sourcehut.Public(), "https://meta.sr.ht/api/v1/users/a/keys https://meta.sr.ht/~a.keys"},
	} {
		s := must[Server](t)(NewServer(test.forge, test.base, ""))
		if got := s.keysAPI("a") + " " + s.keysPage("a"); got != test.want {
			t.Errorf("%s: %s", test.base, got)
		}
	}
}

func TestNames(t *testing.T) {
	for _, address := range []string{
		"", "github.com", "http://github.com", "ftp://github.com", "https://", "https://:443", "https://a:hunter2@github.com",
		"https://github.com/#x", "https://github.com/?x=hunter2", "https://[::1", "file:///etc/passwd",
	} {
		if _, err := NewServer(GitHub, address, ""); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := URL("http://example.com/keys"); err == nil || !strings.Contains(err.Error(), "verified TLS") {
		t.Error(err)
	}
	for forge, names := range map[Forge][2]string{ // of users and teams
		GitHub: {"octocat alice_corp a-b", "acme/ops a/B.c_d"},
		GitLab: {"alice a.b", "acme acme/infra/ops a_b/c.d"},
		Gitea:  {"alice", "acme"},
	} {
		s := must[Server](t)(NewServer(forge, "https://example.com", "x"))
		for _, name := range strings.Fields(names[0]) {
			must[Source](t)(s.User(name))
		}
		for _, name := range strings.Fields(names[1]) {
			must[Source](t)(s.Team(name))
		}
		for _, name := range []string{"", ".", "..", "a/../b", "a b", "-x", "a?b", "a%2e", "a#b", "é", "/a", "a/", "~a", strings.Repeat("a", 300)} {
			if _, err := s.User(name); err == nil {
				t.Errorf("%s user %q is taken", forge, name)
			}
			if _, err := s.Team(name); err == nil {
				t.Errorf("%s team %q is taken", forge, name)
			}
		}
	}
	s := must[Server](t)(NewServer(GitHub, "https://example.com", ""))
	if _, err := s.Team("acme/ops"); err == nil || !strings.Contains(err.Error(), "--github-token") {
		t.Error(err)
	}
}

// What cannot be had, or has nobody in it, is an error that names it.
func TestLoadRefuses(t *testing.T) {
	line, sum := newKey(t)
	user := func(s Server) (Source, error) { return s.User("alice") }
	team := func(s Server) (Source, error) { return s.Team("acme/ops") }
	const members = "/api/v3/orgs/acme/teams/ops/members"
	many := func(n int) string {
		var list []object
		for i := range n {
			list = append(list, object{"login": fmt.Sprintf("user%d", i), "type": "User"})
		}
		return toJSON(t, list)
	}
	for name, test := range map[string]struct {
		token  string
		source func(Server) (Source, error)
		pages  map[string]answer
		want   string
		asked  int // how often
	}{
		"no such user":     {"", user, nil, "there is nothing of that name", 1},
		"no keys":          {"", user, map[string]answer{"/alice.keys": {text: "\n# none\n"}}, "has no public key: nobody could log in", 1},
		"only old keys":    {"", user, map[string]answer{"/alice.keys": {text: smallKey(t)}}, "has no key that is accepted (key 1 of alice at", 1},
		"options":          {"", user, map[string]answer{"/alice.keys": {text: `command="id" ` + line + "\npty " + line}}, "answered with something else than public keys", 1},
		"login page":       {"", user, map[string]answer{"/alice.keys": {kind: "text/html; charset=utf-8", text: "<html>" + line}}, "a page for people", 1},
		"text page":        {"", user, map[string]answer{"/alice.keys": {text: "<!DOCTYPE html>\n<p>Sign in\n"}}, "something else than public keys", 1},
		"redirect":         {"", user, map[string]answer{"/alice.keys": {to: "https://example.com/alice.keys"}}, "it sent the request elsewhere, to https://example.com/alice.keys", 1},
		"redirect to http": {"", user, map[string]answer{"/alice.keys": {to: "http://127.0.0.1/alice.keys"}}, "it sent the request elsewhere", 1},
		"redirects":        {"", user, map[string]answer{"/alice.keys": {to: "/alice.keys"}}, "it sent the request elsewhere", 4},
		"refused":          {"", user, map[string]answer{"/alice.keys": {status: 403}}, "HTTP 403", 1},
		"unauthorized":     {"bad", user, map[string]answer{"/api/v3/users/alice/keys": {status: 401}}, "it wants another token", 1},
		"too many":         {"", user, map[string]answer{"/alice.keys": {status: 429}}, "HTTP 429", 3},
		"broken":           {"", user, map[string]answer{"/alice.keys": {status: 502}}, "it answered 502 Bad Gateway", 3},
		"no content":       {"", user, map[string]answer{"/alice.keys": {status: 204}}, "it answered 204", 1},
		"large":            {"", user, map[string]answer{"/alice.keys": {text: strings.Repeat("#\n", maxPage)}}, "more than 1024 KiB", 1},
		"many keys":        {"", user, map[string]answer{"/alice.keys": {text: strings.Repeat(line+"\n", maxUserKeys+1)}}, "more than 200 keys", 1},
		"no JSON":          {"x", user, map[string]answer{"/api/v3/users/alice/keys": {text: "[{]"}}, "something else than public keys", 1},
		"other JSON":       {"x", user, map[string]answer{"/api/v3/users/alice/keys": {text: `{"message":"hello"}`}}, "something else than public keys", 1},
		"endless":          {"x", user, map[string]answer{"/api/v3/users/alice/keys": {text: `[{"key":"nonsense"}]`}}, "more than 20 pages", maxPages},
		"no such team":     {"x", team, nil, "there is nothing of that name, or the token may not see it", 1},
		"empty team":       {"x", team, map[string]answer{members: {text: "[]"}}, "has no member that is seen: nobody could log in", 1},
		"team of bots":     {"x", team, map[string]answer{members + "?page=1&per_page=100": {text: `[{"login":"a","type":"Bot"}]`}, members: {text: "[]"}}, "has no member that is seen", 2},
		"keyless team": {"x", team, map[string]answer{members + "?page=1&per_page=100": {text: many(3)}, members: {text: "[]"},
			"/api/v3/users/user0/keys": {text: "[]"}, "/api/v3/users/user1/keys": {text: "[]"}}, "has no public key: nobody could log in", 5},
		"large team":  {"x", team, map[string]answer{members: {text: many(100)}}, "more than 200 members", 3},
		"odd members": {"x", team, map[string]answer{members: {text: "7"}}, "something else than a list of members", 1},
		"member refused": {"x", team, map[string]answer{members + "?page=1&per_page=100": {text: many(1)}, members: {text: "[]"},
			"/api/v3/users/user0/keys": {status: 403}}, "its member user0: it refused (HTTP 403)", 3},
	} {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			for path, p := range test.pages {
				f.set(path, p)
			}
			source := must[Source](t)(test.source(f.server(t, GitHub, test.token)))
			s := f.store(t, nil, source)
			err := s.Load(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), source.String()) {
				t.Errorf("%v does not say %q of %s", err, test.want, source)
			}
			if n := len(f.log()); n != test.asked {
				t.Errorf("asked %d times: %q", n, f.log())
			}
			if _, ok := s.Owner(sum); ok {
				t.Error("a key is let in")
			}
		})
	}
}

// smallKey is a key that nobody should use any more.
func smallKey(t *testing.T) string {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0")
	private := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	key := must[ssh.PublicKey](t)(ssh.NewPublicKey(&private.PublicKey))
	return string(ssh.MarshalAuthorizedKey(key))
}

// A source that fails fails all; a good one beside it makes no difference.
func TestLoadAll(t *testing.T) {
	line, sum := newKey(t)
	f := newForge(t)
	f.set("/alice.keys", answer{text: line})
	server := f.server(t, GitLab, "")
	s := f.store(t, nil, must[Source](t)(server.User("alice")), must[Source](t)(server.User("nobody")))
	if err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
	f.set("/nobody.keys", answer{text: line})
	if err := s.Load(t.Context()); err != nil { // once more
		t.Error(err)
	}
	if owner, ok := s.Owner(sum); !ok || !strings.HasPrefix(owner, "nobody at 127.0.0.1:") {
		t.Errorf("%q %v", owner, ok)
	}
}

func TestUntrusted(t *testing.T) {
	line, _ := newKey(t)
	f := newForge(t)
	f.set("/alice.keys", answer{text: line})
	source := must[Source](t)(f.server(t, GitHub, "").User("alice"))
	s := must[*Store](t)(New(Config{Sources: []Source{source}}))
	if err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "--ca FILE") {
		t.Errorf("%v does not say --ca FILE", err)
	}
	if n := len(f.log()); n != 0 {
		t.Errorf("%d requests over TLS that is not verified", n)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	server := must[Server](t)(NewServer(GitHub, "https"+strings.TrimPrefix(plain.URL, "http"), ""))
	s = f.store(t, nil, must[Source](t)(server.User("alice")))
	if err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Error(err)
	}
	for _, file := range []string{"nowhere.pem", must[string](t)(os.Executable())} {
		if _, err := New(Config{Sources: []Source{source}, CAFile: file}); err == nil || !strings.Contains(err.Error(), "CA file") {
			t.Errorf("%s: %v", file, err)
		}
	}
	for _, cfg := range []Config{{}, {Sources: []Source{source}, Refresh: time.Second}, {Sources: []Source{source}, Refresh: time.Hour, MaxAge: time.Minute}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

func TestLoadEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := newForge(t)
	f.set("/alice.keys", answer{status: 503})
	s := f.store(t, nil, must[Source](t)(f.server(t, GitHub, "").User("alice")))
	s.retries = []time.Duration{time.Hour}
	s.log = slog.New(slog.NewTextHandler(writerFunc(cancel), nil)) // it says that it waits
	if err := s.Load(ctx); err == nil || ctx.Err() == nil {
		t.Error(err)
	}
}

type writerFunc func()

func (f writerFunc) Write(p []byte) (int, error) { f(); return len(p), nil }
