// Package oidctest is an OpenID Connect issuer for tests: it serves discovery,
// keys and the token endpoint of a CI system on a loopback address, and signs
// whatever a test asks for, right or wrong. It shares no code with what
// verifies tokens, and must not be part of a program.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// Claims are the members of a token's payload.
type Claims map[string]any

// Key is a signing key with its name.
type Key struct {
	// ID is the key's kid.
	ID string
	// Signer is an RSA, P-256 or Ed25519 key.
	Signer crypto.Signer
}

// Issuer is a running issuer. Its methods may be called concurrently.
type Issuer struct {
	// URL is the issuer's identifier, http on a loopback address.
	URL string

	t    testing.TB
	http *httptest.Server

	mu      sync.Mutex
	keys    []Key // published; the last one signs
	broken  bool
	fetches int
	count   int
	github  Claims // of what the token endpoint answers
	asked   []string
}

// New starts an issuer with one ECDSA key, which the test's end stops.
func New(t testing.TB) *Issuer {
	t.Helper()
	i := &Issuer{t: t}
	i.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.serveDiscovery)
	mux.HandleFunc("GET /keys", i.serveKeys)
	mux.HandleFunc("GET /token", i.serveToken)
	i.http = httptest.NewServer(mux)
	i.URL = i.http.URL
	t.Cleanup(i.http.Close)
	return i
}

// NewKey makes a key for an algorithm: RS256, ES256 or EdDSA.
func NewKey(t testing.TB, id, alg string) Key {
	t.Helper()
	var signer crypto.Signer
	var err error
	switch alg {
	case "RS256":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("oidctest makes no key for %q", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return Key{id, signer}
}

// Rotate replaces the published keys by a fresh one and returns it.
func (i *Issuer) Rotate() Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.count++
	key := NewKey(i.t, fmt.Sprintf("key-%d", i.count), "ES256")
	i.keys = []Key{key}
	return key
}

// Publish adds a key, which signs from now on.
func (i *Issuer) Publish(key Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = append(i.keys, key)
}

// Key returns the key that signs.
func (i *Issuer) Key() Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys[len(i.keys)-1]
}

// Break makes the issuer answer everything with 500, or mends it.
func (i *Issuer) Break(broken bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.broken = broken
}

// Fetches says how often the keys were asked for.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Standard returns the registered claims of a token that is good now, with an
// audience and a fresh jti, and those of extra on top; a nil one is left out.
func (i *Issuer) Standard(audience string, extra Claims) Claims {
	now := time.Now()
	claims := Claims{
		"iss": i.URL, "aud": audience, "sub": "test", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(claims, extra)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return claims
}

// Token signs Standard with the present key.
func (i *Issuer) Token(audience string, extra Claims) string {
	return Sign(i.t, i.Key(), i.Standard(audience, extra), nil)
}

// Sign makes a compact JWS (RFC 7515 §7.1). header replaces or, with nil,
// removes members of {alg, kid, typ}; it does not change how it is signed.
func Sign(t testing.TB, key Key, claims Claims, header Claims) string {
	t.Helper()
	head := Claims{"alg": algorithm(key.Signer), "kid": key.ID, "typ": "JWT"}
	maps.Copy(head, header)
	maps.DeleteFunc(head, func(_ string, v any) bool { return v == nil })
	input := encode(t, head) + "." + encode(t, claims)
	signature, err := sign(key.Signer, []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// SignHMAC makes a token signed with HS256 and any bytes as the key.
func SignHMAC(t testing.TB, secret []byte, kid string, claims Claims) string {
	t.Helper()
	input := encode(t, Claims{"alg": "HS256", "kid": kid, "typ": "JWT"}) + "." + encode(t, claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// Unsigned makes a token with the algorithm none and no signature.
func Unsigned(t testing.TB, claims Claims) string {
	t.Helper()
	return encode(t, Claims{"alg": "none", "typ": "JWT"}) + "." + encode(t, claims) + "."
}

func encode(t testing.TB, v Claims) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

func algorithm(signer crypto.Signer) string {
	switch signer.(type) {
	case *rsa.PrivateKey:
		return "RS256"
	case *ecdsa.PrivateKey:
		return "ES256"
	}
	return "EdDSA"
}

// sign is RFC 7518 §3.3 and §3.4, and RFC 8037 §3.1.
func sign(signer crypto.Signer, input []byte) ([]byte, error) {
	sum := sha256.Sum256(input)
	switch key := signer.(type) {
	case *rsa.PrivateKey:
		return key.Sign(rand.Reader, sum[:], crypto.SHA256)
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			return nil, err
		}
		return slices.Concat(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))), nil
	}
	return signer.Sign(rand.Reader, input, crypto.Hash(0))
}

// PublicJWK is a key's public half as a JSON Web Key (RFC 7517).
func PublicJWK(key Key) map[string]string {
	text := base64.RawURLEncoding.EncodeToString
	jwk := map[string]string{"kid": key.ID, "use": "sig", "alg": algorithm(key.Signer)}
	switch public := key.Signer.Public().(type) {
	case *rsa.PublicKey:
		jwk["kty"], jwk["n"], jwk["e"] = "RSA", text(public.N.Bytes()), text(big.NewInt(int64(public.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, x, y
		if err != nil {
			panic(err) // a key of ours is on its curve
		}
		jwk["kty"], jwk["crv"], jwk["x"], jwk["y"] = "EC", "P-256", text(point[1:33]), text(point[33:])
	case ed25519.PublicKey:
		jwk["kty"], jwk["crv"], jwk["x"] = "OKP", "Ed25519", text(public)
	}
	return jwk
}

// answer writes JSON, unless the issuer is broken.
func (i *Issuer) answer(w http.ResponseWriter, v any) {
	i.mu.Lock()
	broken := i.broken
	i.mu.Unlock()
	if broken {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (i *Issuer) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	i.answer(w, map[string]any{
		"issuer": i.URL, "jwks_uri": i.URL + "/keys",
		"authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
		"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "EdDSA"},
	})
}

func (i *Issuer) serveKeys(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	i.fetches++
	set := []map[string]string{}
	for _, key := range i.keys {
		set = append(set, PublicJWK(key))
	}
	i.mu.Unlock()
	i.answer(w, map[string]any{"keys": set})
}

// requestToken is what a job of GitHub Actions has to show for a token.
const requestToken = "request-token"

// GitHub makes the issuer answer a GitHub Actions job's request for a token
// with these claims, and returns the variables of such a job.
func (i *Issuer) GitHub(claims Claims) map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.github = claims
	return map[string]string{
		"GITHUB_ACTIONS":                 "true",
		"ACTIONS_ID_TOKEN_REQUEST_URL":   i.URL + "/token?api-version=2.0",
		"ACTIONS_ID_TOKEN_REQUEST_TOKEN": requestToken,
	}
}

// Asked returns the audiences for which jobs have asked for tokens.
func (i *Issuer) Asked() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.asked)
}

func (i *Issuer) serveToken(w http.ResponseWriter, r *http.Request) {
	audience := r.URL.Query().Get("audience")
	i.mu.Lock()
	claims := i.github
	i.asked = append(i.asked, audience)
	i.mu.Unlock()
	if claims == nil || r.Header.Get("Authorization") != "Bearer "+requestToken {
		http.Error(w, "not a job of ours", http.StatusUnauthorized)
		return
	}
	i.answer(w, map[string]any{"value": i.Token(audience, claims), "count": 1})
}
