package gate

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/oidctest"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
	"example.com/converge/server/internal/limits"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what no test reaches, however loaded the machine is.
const patience = time.Minute

const audience = "wss://converge.example.org"

// house is a gate before a hub, behind a real HTTP server, with files of its
// own.
type house struct {
	t      *testing.T
	guard  *access.Guard
	trail  *lines
	rv     rendezvous.Server
	tokens string // files
	policy string
}

// lines is an audit log that can be waited for.
type lines struct {
	mu      sync.Mutex
	changed *sync.Cond
	text    bytes.Buffer
	events  []audit.Event
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	var e audit.Event
	if err := json.Unmarshal(p, &e); err != nil {
		panic(err)
	}
	l.events = append(l.events, e)
	l.changed.Broadcast()
	return len(p), nil
}

// next waits for an event of that name, and takes it and all before it away.
func (l *lines) next(name string) audit.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for i, e := range l.events {
			if e.Event == name {
				l.events = l.events[i+1:]
				return e
			}
		}
		l.changed.Wait()
	}
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// open starts one. An empty policy or token file is none. Requests come from
// the address in X-Test, if there is one.
func open(t *testing.T, tokens, policy string, most limits.Config) *house {
	t.Helper()
	h := &house{t: t, trail: &lines{}}
	h.trail.changed = sync.NewCond(&h.trail.mu)
	dir := t.TempDir()
	if tokens != "" {
		h.tokens = filepath.Join(dir, "tokens")
		h.write(h.tokens, tokens)
	}
	if policy != "" {
		h.policy = filepath.Join(dir, "policy.yaml")
		h.write(h.policy, policy)
	}
	var err error
	if h.guard, err = access.Open(access.Config{Tokens: h.tokens, Policy: h.policy}); err != nil {
		t.Fatal(err)
	}
	trail, err := audit.Open("", h.trail, nil)
	if err != nil {
		t.Fatal(err)
	}
	g := New(Config{
		Guard: h.guard, Audit: trail, Limits: limits.New(most),
		AddrOf: func(r *http.Request) netip.Addr {
			if addr, err := netip.ParseAddr(r.Header.Get("X-Test")); err == nil {
				return addr
			}
			return netip.MustParseAddr("127.0.0.1")
		},
	})
	joiner := hub.New(hub.Config{PassOf: PassOf})
	door := front.New(front.Config{Endpoints: g.To(joiner), Pages: http.NotFoundHandler()})
	server := httptest.NewServer(door)
	h.rv = rendezvous.Server{Host: server.Listener.Addr().String()}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := joiner.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		server.Close()
		trail.Close()
	})
	return h
}

func (h *house) write(path, text string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// visitor is how somebody comes.
type visitor struct {
	token string
	key   ed25519.PrivateKey // nil makes one
	named ed25519.PublicKey  // that the header says; nil is the key's own
	from  string             // an address
}

func (v visitor) header() http.Header {
	header := http.Header{}
	if v.token != "" {
		header.Set("Authorization", "Bearer "+v.token)
	}
	if v.named != nil {
		header.Set(rendezvous.KeyHeader, base64.RawURLEncoding.EncodeToString(v.named))
	}
	if v.from != "" {
		header.Set("X-Test", v.from)
	}
	return header
}

// register registers an agent. Its error is a *transport.RefusedError, a
// *rendezvous.Refused or something worse.
func (h *house) register(id string, v visitor) (*wsconn.Conn, error) {
	if v.key == nil {
		v.key = fakeagent.NewKey()
	}
	if v.named == nil {
		v.named, _ = v.key.Public().(ed25519.PublicKey)
	}
	conn, err := wsconn.Dial(h.t.Context(), h.rv.AgentURL(id), fakeagent.Transport(), v.header(), wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { _ = conn.Close() })
	if err := rendezvous.Send(conn, fakeagent.Hello(v.key)); err != nil {
		return conn, err
	}
	m, err := rendezvous.Receive(conn)
	if err != nil || m.Challenge == nil {
		return conn, fmt.Errorf("got %+v, %w", m, err)
	}
	if err := rendezvous.Send(conn, rendezvous.Message{Proof: rendezvous.Prove(v.key, m.Challenge.Nonce, id)}); err != nil {
		return conn, err
	}
	if m, err = rendezvous.Receive(conn); err == nil && m.Refused != nil {
		err = m.Refused
	}
	return conn, err
}

// in registers an agent that must be let in.
func (h *house) in(id string, v visitor) *wsconn.Conn {
	h.t.Helper()
	conn, err := h.register(id, v)
	if err != nil {
		h.t.Fatal(err)
	}
	return conn
}

// client comes as a client.
func (h *house) client(id string, v visitor) error {
	conn, err := frame.Dial(h.t.Context(), h.rv.ClientURL(id), fakeagent.Transport(), v.header(), frame.Options{})
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// wantRefused wants an HTTP status, or 0 for a refusal over the control
// connection, and a sentence.
func wantRefused(t *testing.T, err error, status int, sentence string) {
	t.Helper()
	var http *transport.RefusedError
	var later *rendezvous.Refused
	switch {
	case err == nil:
		t.Errorf("it was let in, want %d %q", status, sentence)
	case errors.As(err, &http) && http.Status == status && strings.Contains(http.Text, sentence):
	case errors.As(err, &later) && status == 0 && later.Code == rendezvous.RefusedAccess && strings.Contains(later.Text, sentence):
	default:
		t.Errorf("got %v, want %d %q", err, status, sentence)
	}
}

// github are the claims of a job of GitHub Actions.
func github(extra oidctest.Claims) oidctest.Claims {
	claims := oidctest.Claims{
		"sub": "repo:acme/widgets:ref:refs/heads/main", "repository": "acme/widgets", "repository_id": "42",
		"repository_owner": "acme", "repository_owner_id": "7", "event_name": "push", "ref": "refs/heads/main", "run_id": "99",
	}
	for name, value := range extra {
		claims[name] = value
	}
	return claims
}

// gitlab are the claims of a job of GitLab CI.
func gitlab(extra oidctest.Claims) oidctest.Claims {
	claims := oidctest.Claims{
		"sub": "project_path:acme/widgets:ref_type:branch:ref:main", "project_path": "acme/widgets", "project_id": "1234",
		"namespace_path": "acme", "namespace_id": "7", "ref": "main", "ref_type": "branch", "ref_protected": "true",
		"runner_id": 5, "pipeline_source": "push",
	}
	for name, value := range extra {
		claims[name] = value
	}
	return claims
}

// policyFor is the policy of most tests.
func policyFor(issuer *oidctest.Issuer) string {
	return `issuers:
  - issuer: ` + issuer.URL + `
    audience: ` + audience + `
    rules:
      - name: acme
        claims:
          repository: acme/*
          repository_owner_id: 7
          event_name: [push, schedule, workflow_dispatch]
        ids: ["{repository}/**"]
      - name: gitlab
        claims: {project_id: 1234, ref_protected: true, runner_id: [5, 6]}
        ids: [gitlab/**]
      - name: people
        role: client
        claims: {groups: staff}
        ids: ["**"]
`
}
