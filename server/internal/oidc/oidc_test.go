package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const self = "wss://converge.example.org"

// verifier makes one for an issuer, with a clock that the test moves.
func verifier(t *testing.T, issuer *oidctest.Issuer) (*Verifier, *time.Time) {
	t.Helper()
	v, err := New([]Issuer{{URL: issuer.URL, Audiences: []string{"other", self}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	v.now = func() time.Time { return now }
	return v, &now
}

// TestAlgorithms: what is signed by each kind of key is verified, and a policy
// may take fewer.
func TestAlgorithms(t *testing.T) {
	issuer := oidctest.New(t)
	v, now := verifier(t, issuer)
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		issuer.Publish(oidctest.NewKey(t, alg, alg))
		*now = now.Add(refetch)
		identity, err := v.Verify(t.Context(), issuer.Token(self, oidctest.Claims{"sub": alg, "jti": "7"}))
		if err != nil || identity.Subject != alg || identity.Issuer != issuer.URL || identity.ID != "7" || !identity.Expiry.After(*now) {
			t.Errorf("%s: %+v, %v", alg, identity, err)
		}
	}
	narrow, err := New([]Issuer{{URL: issuer.URL, Audiences: []string{self}, Algorithms: []string{"RS256"}}}, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := narrow.Verify(t.Context(), issuer.Token(self, nil)); err == nil || !strings.Contains(err.Error(), "the algorithm EdDSA, which is not accepted: RS256") {
		t.Errorf("one that is not accepted: %v", err)
	}
}

// TestLeeway: a minute either way, and not two.
func TestLeeway(t *testing.T) {
	issuer := oidctest.New(t)
	v, now := verifier(t, issuer)
	for _, test := range []struct {
		claims oidctest.Claims
		ok     bool
	}{
		{oidctest.Claims{"exp": now.Add(-50 * time.Second).Unix(), "iat": now.Add(-time.Hour).Unix(), "nbf": nil}, true},
		{oidctest.Claims{"exp": now.Add(-70 * time.Second).Unix(), "iat": now.Add(-time.Hour).Unix(), "nbf": nil}, false},
		{oidctest.Claims{"nbf": now.Add(50 * time.Second).Unix()}, true},
		{oidctest.Claims{"nbf": now.Add(70 * time.Second).Unix()}, false},
		{oidctest.Claims{"iat": now.Add(50 * time.Second).Unix()}, true},
		{oidctest.Claims{"iat": now.Add(70 * time.Second).Unix()}, false},
		{oidctest.Claims{"exp": 1e300}, false},
		{oidctest.Claims{"exp": -1}, false},
		{oidctest.Claims{"exp": "tomorrow"}, false},
		{oidctest.Claims{"aud": []string{"x", self}}, true},
		{oidctest.Claims{"aud": 7}, false},
	} {
		if _, err := v.Verify(t.Context(), issuer.Token(self, test.claims)); (err == nil) != test.ok {
			t.Errorf("%v: %v", test.claims, err)
		}
	}
}

// TestRotation: a new key is fetched when it is needed, an old one is forgotten
// within the hour, and nobody can make the server ask often.
func TestRotation(t *testing.T) {
	issuer := oidctest.New(t)
	v, now := verifier(t, issuer)
	verify := func(token string) error {
		_, err := v.Verify(t.Context(), token)
		return err
	}
	old := issuer.Key()
	stolen := oidctest.Sign(t, old, issuer.Standard(self, oidctest.Claims{"exp": now.Add(20 * time.Hour).Unix()}), nil)
	if err := verify(stolen); err != nil {
		t.Fatal(err)
	}
	issuer.Rotate()
	fresh := issuer.Token(self, oidctest.Claims{"exp": now.Add(20 * time.Hour).Unix()})
	if err := verify(fresh); err == nil || issuer.Fetches() != 1 {
		t.Errorf("a second look within seconds: %v, %d fetches", err, issuer.Fetches())
	}
	*now = now.Add(refetch)
	var crowd sync.WaitGroup
	for range 20 { // one fetch is enough for all
		crowd.Go(func() {
			if err := verify(fresh); err != nil {
				t.Error(err)
			}
		})
	}
	crowd.Wait()
	if n := issuer.Fetches(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	if err := verify(stolen); err == nil {
		t.Error("a key that was withdrawn is good")
	}
	for range 50 {
		unknown := oidctest.NewKey(t, "unknown", "EdDSA")
		if err := verify(oidctest.Sign(t, unknown, issuer.Standard(self, nil), nil)); err == nil {
			t.Error("an unknown key is good")
		}
	}
	if n := issuer.Fetches(); n != 2 {
		t.Errorf("unknown keys led to %d fetches", n-2)
	}

	// While the issuer is gone its keys are good for a day, and then it is
	// asked every few seconds at most.
	issuer.Break(true)
	*now = now.Add(fresh5h)
	if err := verify(fresh); err != nil {
		t.Errorf("while the issuer is gone: %v", err)
	}
	long := issuer.Standard(self, oidctest.Claims{"iat": now.Add(stale).Unix(), "nbf": nil, "exp": now.Add(stale + time.Hour).Unix()})
	*now = now.Add(stale)
	token := oidctest.Sign(t, issuer.Key(), long, nil)
	before := issuer.Fetches()
	for range 5 {
		if err := verify(token); !IsUnavailable(err) {
			t.Errorf("with keys of yesterday: %v", err)
		}
	}
	if n := issuer.Fetches() - before; n > 1 {
		t.Errorf("%d fetches in a row", n)
	}
	issuer.Break(false)
	*now = now.Add(retry)
	if err := verify(token); err != nil {
		t.Errorf("when the issuer is back: %v", err)
	}
}

const fresh5h = 5 * fresh

// TestBlackhole: while an issuer says nothing, its keys of today are good at
// once, what needs others waits no longer than its asker does, and nothing is
// left of it when the server ends.
func TestBlackhole(t *testing.T) {
	key := oidctest.NewKey(t, "k", "ES256")
	text, err := json.Marshal(map[string]any{"keys": []any{oidctest.PublicJWK(key)}})
	if err != nil {
		t.Fatal(err)
	}
	came := make(chan struct{}, 100)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		came <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	v, err := New([]Issuer{{URL: server.URL, Audiences: []string{self}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	s := v.issuers[server.URL].keys
	if s.keys, err = parseKeys(text); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	s.glance = 0
	s.fetched, s.tried = now.Add(-2*fresh), now.Add(-2*fresh)
	claims := oidctest.Claims{"iss": server.URL, "aud": self, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	good := oidctest.Sign(t, key, claims, nil)
	for range 3 {
		if _, err := v.Verify(t.Context(), good); err != nil {
			t.Fatal(err)
		}
	}
	<-came // it is looked at behind
	s.mu.Lock()
	f := s.flight
	s.mu.Unlock()
	if f == nil {
		t.Fatal("they waited for the issuer")
	}
	unknown := oidctest.Sign(t, oidctest.NewKey(t, "unknown", "ES256"), claims, nil)
	gone, leave := context.WithCancel(t.Context())
	leave()
	if _, err := v.Verify(gone, unknown); !IsUnavailable(err) || !errors.Is(err, context.Canceled) {
		t.Errorf("an asker that has gone: %v", err)
	}
	select {
	case <-f.done:
		t.Error("it waited for the issuer")
	default:
	}
	v.Close()
	<-f.done
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Errorf("after the end: %v", err)
	}
	if n := len(came); n != 0 {
		t.Errorf("%d more requests", n)
	}
}

// TestWithdrawn: after a quiet time an issuer that answers is asked before its
// old keys are believed.
func TestWithdrawn(t *testing.T) {
	issuer := oidctest.New(t)
	v, now := verifier(t, issuer)
	defer v.Close()
	v.issuers[issuer.URL].keys.glance = time.Hour
	stolen := issuer.Token(self, oidctest.Claims{"exp": now.Add(20 * time.Hour).Unix()})
	if _, err := v.Verify(t.Context(), stolen); err != nil {
		t.Fatal(err)
	}
	issuer.Rotate()
	*now = now.Add(fresh)
	if _, err := v.Verify(t.Context(), stolen); err == nil {
		t.Error("a key that was withdrawn an hour ago is good")
	}
}

// TestAdopt: a reload of the policy does not fetch anew, and does not share
// what it should not.
func TestAdopt(t *testing.T) {
	issuer := oidctest.New(t)
	v, _ := verifier(t, issuer)
	if _, err := v.Verify(t.Context(), issuer.Token(self, nil)); err != nil {
		t.Fatal(err)
	}
	next, err := New([]Issuer{{URL: issuer.URL, Audiences: []string{self}}}, v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.Verify(t.Context(), issuer.Token(self, nil)); err != nil || issuer.Fetches() != 1 {
		t.Errorf("%v, %d fetches", err, issuer.Fetches())
	}
	if _, err := next.Verify(t.Context(), issuer.Token("other", nil)); err == nil {
		t.Error("an audience of the old policy is good")
	}
}

// TestBadIssuers answer with what must not be taken.
func TestBadIssuers(t *testing.T) {
	key := oidctest.NewKey(t, "k", "ES256")
	good, err := json.Marshal(map[string]any{"keys": []any{oidctest.PublicJWK(key)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		discovery, keys string // ISSUER is its own URL
		ok              bool
	}{
		"right":              {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, string(good), true},
		"beside unknown":     {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, `{"keys":[{"kty":"new"},7,` + string(good[9:]), true},
		"another's name":     {`{"issuer":"https://else.example.org","jwks_uri":"ISSUER/keys"}`, string(good), false},
		"plain elsewhere":    {`{"issuer":"ISSUER","jwks_uri":"http://192.0.2.1/keys"}`, string(good), false},
		"no keys":            {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, `{"keys":[]}`, false},
		"shared secret":      {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, `{"keys":[{"kty":"oct","kid":"k","k":"AAAA"}]}`, false},
		"for encryption":     {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, strings.Replace(string(good), `"sig"`, `"enc"`, 1), false},
		"no JSON":            {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, `<html>`, false},
		"endless":            {`{"issuer":"ISSUER","jwks_uri":"ISSUER/keys"}`, strings.Repeat(" ", maxAnswer) + string(good), false},
		"redirects the keys": {`{"issuer":"ISSUER","jwks_uri":"ISSUER/away"}`, string(good), false},
	} {
		t.Run(name, func(t *testing.T) {
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				switch r.URL.Path {
				case "/keys":
					_, _ = w.Write([]byte(test.keys))
				case "/away":
					http.Redirect(w, r, "/keys", http.StatusFound)
				default:
					_, _ = w.Write([]byte(strings.ReplaceAll(test.discovery, "ISSUER", server.URL)))
				}
			}))
			defer server.Close()
			v, err := New([]Issuer{{URL: server.URL, Audiences: []string{self}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			token := oidctest.Sign(t, key, oidctest.Claims{"iss": server.URL, "aud": self, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()}, nil)
			_, err = v.Verify(t.Context(), token)
			if test.ok && err != nil || !test.ok && !IsUnavailable(err) {
				t.Errorf("%v (%v)", err, errors.Unwrap(err))
			}
		})
	}
}

func TestCheckIssuer(t *testing.T) {
	a := []string{self}
	for name, issuer := range map[string]Issuer{
		"none":         {Audiences: a},
		"plain":        {URL: "http://issuer.example.org", Audiences: a},
		"with a query": {URL: "https://issuer.example.org?x", Audiences: a},
		"no audience":  {URL: "https://issuer.example.org"},
		"empty":        {URL: "https://issuer.example.org", Audiences: []string{""}},
		"shared":       {URL: "https://issuer.example.org", Audiences: a, Algorithms: []string{"HS256"}},
		"unsigned":     {URL: "https://issuer.example.org", Audiences: a, Algorithms: []string{"none"}},
		"no CA":        {URL: "https://issuer.example.org", Audiences: a, CAFile: filepath.Join(t.TempDir(), "none")},
	} {
		if _, err := New([]Issuer{issuer}, nil); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	one := Issuer{URL: "https://issuer.example.org/path", Audiences: a}
	if _, err := New([]Issuer{one, one}, nil); err == nil {
		t.Error("one that is there twice is taken")
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	one.CAFile = file
	if _, err := New([]Issuer{one}, nil); err == nil {
		t.Error("a CA that is none is taken")
	}
}

func TestClaims(t *testing.T) {
	claims, err := ParseClaims([]byte(`{"s":"x","n":1234567890123456789,"f":1e3,"t":true,"l":["a",1,false,["no"],{"no":1}],
		"o":{"p":{"q":"deep","r":{"s":{"t":"too deep"}}},"l":["m"]},"null":null,"o/p":"its own"}`))
	want := Claims{"s": {"x"}, "n": {"1234567890123456789"}, "f": {"1e3"}, "t": {"true"}, "l": {"a", "1", "false"},
		"o/p/q": {"deep"}, "o/l": {"m"}, "o/p": {"its own"}}
	if err != nil || !reflect.DeepEqual(claims, want) {
		t.Errorf("%v, %v", claims, err)
	}
	if _, err := ParseClaims([]byte(`[1]`)); err == nil {
		t.Error("a list is taken for claims")
	}
}

// FuzzVerify: no token of a stranger's gets in, and none does harm.
func FuzzVerify(f *testing.F) {
	v, err := New([]Issuer{{URL: "https://issuer.invalid", Audiences: []string{self}}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	s := v.issuers["https://issuer.invalid"]
	key := oidctest.PublicJWK(oidctest.NewKey(f, "k", "ES256"))
	text, err := json.Marshal(map[string]any{"keys": []any{key}})
	if err != nil {
		f.Fatal(err)
	}
	if s.keys.keys, err = parseKeys(text); err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	s.keys.fetched, s.keys.tried = now, now
	v.now = func() time.Time { return now }
	f.Fuzz(func(t *testing.T, token string) {
		identity, err := v.Verify(t.Context(), token)
		if err == nil {
			t.Fatalf("let in as %+v", identity)
		}
		if text := err.Error(); strings.ContainsAny(text, "\n\r\x1b") || len(text) > 1000 {
			t.Errorf("said %q", text)
		}
	})
}

// FuzzClaims: what is read is text, and reading it again gives the same.
func FuzzClaims(f *testing.F) {
	f.Fuzz(func(t *testing.T, payload []byte) {
		claims, err := ParseClaims(payload)
		if err != nil {
			return
		}
		for name, values := range claims {
			if values == nil {
				t.Errorf("%q has no values", name)
			}
		}
	})
}

// FuzzKeys: only keys that can be used are taken.
func FuzzKeys(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err != nil {
			return
		}
		if len(keys) == 0 || len(keys) > maxKeys {
			t.Errorf("%d keys", len(keys))
		}
		for _, key := range keys {
			if !usableKey(key) {
				t.Errorf("%+v is taken", key)
			}
		}
	})
}
