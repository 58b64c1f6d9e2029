package gate

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/pkg/oidctest"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/limits"
)

// TestLook: a viewer sees what its token is for, as long as it is; others are
// told no more than agents and clients are, and held up as they are.
func TestLook(t *testing.T) {
	issuer := oidctest.New(t)
	dir := t.TempDir()
	tokens, policy := filepath.Join(dir, "tokens"), filepath.Join(dir, "policy.yaml")
	all, allLine := made(t, "all", "viewer,client")
	some, someLine, err := access.MakeToken("some", []access.Role{access.Viewer}, []string{"acme/**"})
	if err != nil {
		t.Fatal(err)
	}
	ci, ciLine := made(t, "ci", "agent,client")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(tokens, allLine+"\n"+someLine+"\n"+ciLine+"\n")
	write(policy, "issuers:\n  - issuer: "+issuer.URL+"\n    audience: "+audience+"\n    rules:\n      - {name: staff, role: viewer, claims: {groups: staff}, ids: [\"team/**\"]}\n")
	guard, err := access.Open(access.Config{Tokens: tokens, Policy: policy})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	g := New(Config{
		Guard: guard, Limits: limits.New(limits.Config{Failures: 2}), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		AddrOf: func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("X-Test")) },
	})
	look := func(from, authorization string) (*Viewer, error) {
		r := httptest.NewRequest(http.MethodGet, "/sessions", nil)
		r.Header.Set("X-Test", from)
		return g.Look(r, authorization)
	}
	staff := issuer.Token(audience, oidctest.Claims{"groups": []string{"staff"}})
	for credential, sees := range map[string][3]bool{all: {true, true, true}, some: {true, false, false}, staff: {false, true, false}} {
		v, err := look("192.0.2.1", "Bearer "+credential)
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range []string{"acme/1", "team/1", "other"} {
			if v.Sees(id) != sees[i] {
				t.Errorf("%s sees %s: %v", v.Name(), id, !sees[i])
			}
		}
		if v.Until().IsZero() != (credential != staff) {
			t.Errorf("%s may look until %v", v.Name(), v.Until())
		}
		v.End()
	}
	status := func(err error) int {
		var refusal *Refusal
		if !errors.As(err, &refusal) {
			t.Fatalf("%v", err)
		}
		return refusal.Status
	}
	_, err = look("192.0.2.1", "Bearer "+ci)
	if status(err) != http.StatusForbidden || !strings.Contains(err.Error(), "not for viewers") {
		t.Errorf("an agent's token: %v", err)
	}
	_, err = look("192.0.2.2", "Bearer "+issuer.Token(audience, oidctest.Claims{"groups": []string{"guests"}}))
	if status(err) != http.StatusForbidden {
		t.Errorf("a guest: %v", err)
	}
	// Looking at the door is no guess; guessing is.
	for range 5 {
		if _, err := look("192.0.2.3", ""); status(err) != http.StatusUnauthorized {
			t.Errorf("without a token: %v", err)
		}
	}
	for _, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
		_, err := look("192.0.2.3", "Bearer guess")
		if status(err) != want {
			t.Errorf("a guess: %v, want %d", err, want)
		}
	}
	if _, err := look("192.0.2.3", "Bearer "+all); status(err) != http.StatusTooManyRequests {
		t.Errorf("after that: %v", err)
	}

	// What the token may see changes with the file, and it may go.
	v, err := look("192.0.2.1", "Bearer "+some)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := look("192.0.2.1", "Bearer "+all); err != nil || other.Owner() == v.Owner() {
		t.Errorf("two tokens have one owner: %v", err)
	}
	if again, err := look("192.0.2.1", "Bearer "+some); err != nil || again.Owner() != v.Owner() {
		t.Errorf("one token has two owners: %v", err)
	}
	gone := make(chan struct{})
	v.Follow(func() { close(gone) })
	write(tokens, strings.Replace(someLine, "acme/**", "team/**", 1))
	guard.Reload()
	if v.Sees("acme/1") || !v.Sees("team/1") {
		t.Error("it sees what it saw before")
	}
	select {
	case <-gone:
		t.Error("it was ended")
	default:
	}
	write(tokens, ciLine)
	guard.Reload()
	<-gone
	if v.Sees("team/1") {
		t.Error("a revoked token sees something")
	}
	v.End()
	// The files may be others, but not none.
	write(filepath.Join(dir, "others"), allLine)
	if err := guard.Use(filepath.Join(dir, "others"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := look("192.0.2.4", "Bearer "+all); err != nil {
		t.Errorf("from another file: %v", err)
	}
	if err := guard.Use("", ""); err == nil {
		t.Error("the server is open now")
	}
	if err := guard.Use(filepath.Join(dir, "nowhere"), ""); err == nil {
		t.Error("no file is a file")
	}
	if _, err := look("192.0.2.4", "Bearer "+all); err != nil {
		t.Errorf("after a mistake: %v", err)
	}
	for _, secret := range []string{all, some, ci} {
		if strings.Contains(log.String(), secret) {
			t.Error("the log holds a token")
		}
	}
}

// TestOpenServerHasNoViewers: who may do everything else still sees nobody.
func TestOpenServerHasNoViewers(t *testing.T) {
	guard, err := access.Open(access.Config{})
	if err != nil {
		t.Fatal(err)
	}
	g := New(Config{Guard: guard, AddrOf: func(*http.Request) netip.Addr { return netip.Addr{} }})
	for _, authorization := range []string{"", "Bearer x", "Bearer x.y.z"} {
		if _, err := g.Look(httptest.NewRequest(http.MethodGet, "/", nil), authorization); err == nil {
			t.Errorf("%q may look", authorization)
		}
	}
	if err := guard.Use("tokens", ""); err == nil {
		t.Error("an open server was closed while it ran")
	}
}
