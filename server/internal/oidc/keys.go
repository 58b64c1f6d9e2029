package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// Limits of an issuer's keys.
const (
	// fetchWait bounds one fetch of discovery and keys.
	fetchWait = 10 * time.Second
	// maxAnswer bounds each of an issuer's answers, in bytes.
	maxAnswer = 512 << 10
	// maxKeys is how many keys of an issuer are kept.
	maxKeys = 64
	// fresh is how long keys are used without a look at the issuer; stale is
	// how long they are while it cannot be reached. A token whose key is at hand
	// waits for a look no longer than glance from its beginning, which is for
	// issuers that answer, and not at all after a look that failed.
	fresh, stale = time.Hour, 24 * time.Hour
	glance       = 2 * time.Second
	// refetch is how long after a fetch another may be caused by a key that is
	// not known, and retry how long after one that failed: whoever shows tokens
	// with invented keys is not to make us a nuisance to the issuer.
	refetch, retry = 30 * time.Second, 5 * time.Second
	// minRSA is the least number of bits of an RSA key (RFC 7518 §3.3).
	minRSA = 2048
)

// keySet is what is known of an issuer's keys. Its methods may be called
// concurrently.
type keySet struct {
	issuer  string
	client  *http.Client
	now     func() time.Time
	fetches *fetches
	glance  time.Duration

	mu      sync.Mutex
	flight  *flight // the fetch that is under way, or nil
	keys    []jose.JSONWebKey
	fetched time.Time // when keys came; zero for never
	tried   time.Time // when they were last asked for
	failure error     // of the last try
}

// newKeySet makes one that knows no key yet.
func newKeySet(issuer, caFile string, now func() time.Time, fetches *fetches) (*keySet, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the CA file of the issuer %s: %w", issuer, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA file %s of the issuer %s holds no PEM certificate", caFile, issuer)
		}
	}
	return &keySet{issuer: issuer, now: now, fetches: fetches, glance: glance, client: &http.Client{
		Timeout: fetchWait,
		Transport: bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: config,
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		}},
		// A key that comes from elsewhere is somebody else's.
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the issuer redirects, which is not followed")
		},
	}}, nil
}

// bounded is a RoundTripper whose answers have an end.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// adopt takes over what another set of the same issuer knows.
func (s *keySet) adopt(former *keySet) {
	former.mu.Lock()
	defer former.mu.Unlock()
	s.keys, s.fetched, s.tried, s.failure = former.keys, former.fetched, former.tried, former.failure
}

// find returns the keys by which a token with that header may be signed. It
// waits for a fetch while ctx lasts.
func (s *keySet) find(ctx context.Context, head header) (publicKeys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys, due := s.look(head)
	if due {
		f := s.fetch()
		wait := len(keys) == 0
		var enough <-chan time.Time
		if left := time.Until(f.began.Add(s.glance)); !wait && s.failure == nil && left > 0 {
			timer := time.NewTimer(left)
			defer timer.Stop()
			wait, enough = true, timer.C
		}
		if wait {
			s.mu.Unlock()
			select {
			case <-f.done:
			case <-enough:
			case <-ctx.Done():
			}
			s.mu.Lock()
			keys, _ = s.look(head)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	if s.usable() && ctx.Err() == nil {
		return nil, bad("the OIDC token is signed with the key %s, which its issuer does not have: ask for a fresh one", shown(head.Kid))
	}
	return nil, &Error{Unavailable: true, cause: errors.Join(s.failure, ctx.Err()),
		text: "the server cannot get the keys of the issuer " + s.issuer + " just now: try again in a moment"}
}

// usable reports whether the keys are young enough. mu is held.
func (s *keySet) usable() bool {
	return !s.fetched.IsZero() && s.now().Sub(s.fetched) < stale
}

// look searches the keys at hand and reports whether they should be fetched. mu
// is held.
func (s *keySet) look(head header) (found publicKeys, due bool) {
	if s.usable() {
		for _, key := range s.keys {
			if (head.Kid == "" || key.KeyID == head.Kid) && (key.Algorithm == "" || key.Algorithm == head.Alg) {
				found = append(found, key.Key)
			}
		}
	}
	pause := refetch
	if s.failure != nil {
		pause = retry
	}
	old := s.fetched.IsZero() || s.now().Sub(s.fetched) >= fresh
	return found, (len(found) == 0 || old) && (s.tried.IsZero() || s.now().Sub(s.tried) >= pause)
}

// fetch has the issuer asked, once for all who wait. mu is held.
func (s *keySet) fetch() *flight {
	if s.flight != nil {
		return s.flight
	}
	f := &flight{began: time.Now(), done: make(chan struct{})}
	s.flight = f
	// Not with the context of the one who came: others wait too.
	if !s.fetches.start(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, fetchWait)
		defer cancel()
		keys, err := s.ask(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tried, s.failure, s.flight = s.now(), err, nil
		if err == nil {
			s.keys, s.fetched = keys, s.tried
		}
		close(f.done)
	}) {
		s.flight, s.failure = nil, errors.New("the server is ending")
		close(f.done)
	}
	return f
}

// ask does discovery (OpenID Connect Discovery §4) and reads the keys that it
// names.
func (s *keySet) ask(ctx context.Context) ([]jose.JSONWebKey, error) {
	provider, err := gooidc.NewProvider(gooidc.ClientContext(ctx, s.client), s.issuer)
	if err != nil {
		return nil, fmt.Errorf("cannot discover the issuer: %w", err)
	}
	var found struct {
		Keys string `json:"jwks_uri"`
	}
	if err := provider.Claims(&found); err != nil {
		return nil, fmt.Errorf("cannot discover the issuer: %w", err)
	}
	if u, err := url.Parse(found.Keys); err != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return nil, errors.New("the address of the issuer's keys is not https")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, found.Keys, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the issuer's keys: %w", err)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cannot ask for the issuer's keys: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the issuer's keys: %w", err)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("cannot read the issuer's keys: it answered %s", resp.Status)
	}
	return parseKeys(text)
}

// parseKeys reads a JSON Web Key Set (RFC 7517 §5). Keys that cannot be used
// are left out: there may be others beside them.
func parseKeys(text []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("cannot read the issuer's keys: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, raw := range set.Keys {
		var key jose.JSONWebKey
		if len(keys) < maxKeys && key.UnmarshalJSON(raw) == nil && usableKey(key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("the issuer has no key that can be used")
	}
	return keys, nil
}

// usableKey reports whether a key is public, asymmetric, long enough and for
// signatures.
func usableKey(key jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	switch public := key.Key.(type) {
	case *rsa.PublicKey:
		return public.N.BitLen() >= minRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}
