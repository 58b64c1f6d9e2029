// Package oidc verifies OpenID Connect tokens: who issued them, for whom, with
// which key and for how long. What a token's claims then allow is not its
// business, nor how a token comes here.
package oidc

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"

	"example.com/converge/pkg/transport"
)

const (
	// MaxToken is the longest token that is looked at, in bytes.
	MaxToken = 12 << 10
	// Leeway is by how much the clocks of issuer and server may differ.
	Leeway = time.Minute
	// DefaultLifetime is the longest that a token may be good for, from its
	// iat to its exp.
	DefaultLifetime = 24 * time.Hour
)

// Algorithms are the signatures that may be used at all (RFC 7518 §3.1, RFC
// 8037 §3.1): those with a public key. With a shared secret the server could
// make tokens itself, and whoever takes a public key for one, too.
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
}

// Issuer is one whose tokens are accepted.
type Issuer struct {
	// URL is the issuer's identifier, as its tokens' iss. It must be https, or
	// http on a loopback address.
	URL string
	// Audiences are what a token may be for; one of them must be in its aud.
	Audiences []string
	// Algorithms are the signatures that are accepted; none means all of
	// Algorithms.
	Algorithms []string
	// CAFile is a PEM file with the roots to trust in place of the system's
	// when the issuer's keys are fetched; "" for the system's.
	CAFile string
	// Lifetime bounds exp - iat; 0 is DefaultLifetime.
	Lifetime time.Duration
}

// Check says what is wrong with an issuer.
func (i Issuer) Check() error {
	u, err := url.Parse(i.URL)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("the issuer %q is no URL such as https://HOST/PATH", i.URL)
	case u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())):
		return fmt.Errorf("the issuer %s is not https: its keys could be swapped on the way", i.URL)
	case len(i.Audiences) == 0 || slices.Contains(i.Audiences, ""):
		return fmt.Errorf("the issuer %s has no audience: a token that was made for somebody else would do", i.URL)
	case i.Lifetime < 0:
		return fmt.Errorf("the lifetime of the tokens of %s is negative", i.URL)
	}
	for _, alg := range i.Algorithms {
		if !slices.Contains(Algorithms, alg) {
			return fmt.Errorf("the algorithm %q is none of %s", alg, strings.Join(Algorithms, ", "))
		}
	}
	return nil
}

// Error is why a token is not accepted. Its text is one sentence, fit to be
// sent to whoever showed the token, with no part of the token but what the
// issuer put into it in the clear.
type Error struct {
	// Unavailable is set where the fault is not the token's: the issuer's keys
	// could not be had, and the same token may be good a moment later.
	Unavailable bool
	text        string
	cause       error
}

func (e *Error) Error() string { return e.text }

// Unwrap gives the cause, which is for logs.
func (e *Error) Unwrap() error { return e.cause }

func bad(format string, a ...any) error { return &Error{text: fmt.Sprintf(format, a...)} }

// Identity is what a verified token says.
type Identity struct {
	// Issuer and Subject are the token's iss and sub.
	Issuer, Subject string
	// ID is the token's jti; it may be empty.
	ID string
	// Hash is the token's SHA-256.
	Hash [sha256.Size]byte
	// Expiry is when the token ends, Leeway included.
	Expiry time.Time

	payload []byte
}

// Verifier verifies the tokens of some issuers. Its methods may be called
// concurrently.
type Verifier struct {
	issuers map[string]*source
	now     func() time.Time
	fetches *fetches
}

// New makes a Verifier. Nothing is fetched before the first token comes. Keys
// that former has fetched are kept; it may be nil and goes on working, and Close
// of either ends the fetches of both.
func New(issuers []Issuer, former *Verifier) (*Verifier, error) {
	v := &Verifier{issuers: make(map[string]*source, len(issuers)), now: time.Now}
	if former != nil {
		v.fetches = former.fetches
	} else {
		v.fetches = newFetches()
	}
	for _, issuer := range issuers {
		if err := issuer.Check(); err != nil {
			return nil, err
		}
		if v.issuers[issuer.URL] != nil {
			return nil, fmt.Errorf("the issuer %s is there twice", issuer.URL)
		}
		s := &source{Issuer: issuer}
		if len(s.Algorithms) == 0 {
			s.Algorithms = Algorithms
		}
		if s.Lifetime == 0 {
			s.Lifetime = DefaultLifetime
		}
		var err error
		if s.keys, err = newKeySet(issuer.URL, issuer.CAFile, func() time.Time { return v.now() }, v.fetches); err != nil {
			return nil, err
		}
		if former != nil && former.issuers[issuer.URL] != nil {
			s.keys.adopt(former.issuers[issuer.URL].keys)
		}
		v.issuers[issuer.URL] = s
	}
	return v, nil
}

// Close ends the fetches of keys and waits for them. Tokens are verified on, with
// the keys at hand.
func (v *Verifier) Close() { v.fetches.close() }

// source is an issuer with its keys.
type source struct {
	Issuer
	keys *keySet
}

// header is a JWS's protected header, as far as it is looked at before the
// library sees it (RFC 7515 §4.1).
type header struct {
	Alg string `json:"alg"`
	Kid string `json:"kid"`
}

// LooksLikeToken reports whether a credential has the form of a token: three
// parts between dots.
func LooksLikeToken(credential string) bool { return strings.Count(credential, ".") == 2 }

// Verify checks a token. The error is an *Error. ctx is that of whoever waits;
// a fetch of keys that others wait for too does not end with it.
func (v *Verifier) Verify(ctx context.Context, token string) (*Identity, error) {
	if len(token) > MaxToken {
		return nil, bad("the OIDC token is longer than %d KiB", MaxToken>>10)
	}
	head, payload, err := peek(token)
	if err != nil {
		return nil, err
	}
	var claims registered
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, bad("the OIDC token is malformed: its claims are not what RFC 7519 wants: ask for a fresh one")
	}
	s := v.issuers[claims.Issuer]
	if s == nil {
		return nil, bad("the OIDC token is of the issuer %s, which this server does not accept", shown(claims.Issuer))
	}
	if !slices.Contains(s.Algorithms, head.Alg) {
		return nil, bad("the OIDC token is signed with the algorithm %s, which is not accepted: %s", shown(head.Alg), strings.Join(s.Algorithms, ", "))
	}
	// Before anything is fetched: what is refused anyway is not to cost a request.
	if err := s.check(claims, v.now()); err != nil {
		return nil, err
	}
	keys, err := s.keys.find(ctx, head)
	if err != nil {
		return nil, err
	}
	verifier := gooidc.NewVerifier(s.URL, &gooidc.StaticKeySet{PublicKeys: keys}, &gooidc.Config{
		SupportedSigningAlgs: s.Algorithms,
		SkipClientIDCheck:    true, // several audiences, and times with our leeway: check
		SkipExpiryCheck:      true,
	})
	verified, err := verifier.Verify(ctx, token)
	if err != nil {
		return nil, &Error{text: "the OIDC token's signature is not its issuer's", cause: err}
	}
	// What was peeked at is the very text that was signed, but the library's own
	// reading of it decides.
	if verified.Issuer != s.URL || !slices.ContainsFunc(verified.Audience, s.accepts) {
		return nil, bad("the OIDC token is not for this server")
	}
	return &Identity{
		Issuer: verified.Issuer, Subject: verified.Subject, ID: claims.ID,
		Hash: sha256.Sum256([]byte(token)), Expiry: verified.Expiry.Add(Leeway),
		payload: payload,
	}, nil
}

func (s *source) accepts(audience string) bool { return slices.Contains(s.Audiences, audience) }

// registered are the claims of RFC 7519 §4.1 that are checked here.
type registered struct {
	Issuer    string   `json:"iss"`
	Audience  audience `json:"aud"`
	Expiry    *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	IssuedAt  *float64 `json:"iat"`
	ID        string   `json:"jti"`
}

// audience is one string or several.
type audience []string

func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// check is the rest of RFC 7519 §4.1, with OpenID Connect Core §2 as to what
// must be there.
func (s *source) check(c registered, now time.Time) error {
	const far = 1 << 40 // seconds: 30 000 years, which still are a time.Time
	for _, t := range []*float64{c.Expiry, c.NotBefore, c.IssuedAt} {
		if t != nil && !(*t >= 0 && *t < far) {
			return bad("the OIDC token has a time that is none")
		}
	}
	at := func(t *float64) time.Time { return time.Unix(int64(*t), 0) }
	switch {
	case !slices.ContainsFunc(c.Audience, s.accepts):
		return bad("the OIDC token is for the audience %s, and this server is %s: ask for a token for that", shown(strings.Join(c.Audience, " ")), strings.Join(s.Audiences, " or "))
	case c.Expiry == nil || c.IssuedAt == nil:
		return bad("the OIDC token does not say when it was issued and when it ends")
	case now.After(at(c.Expiry).Add(Leeway)):
		return bad("the OIDC token expired at %s: ask for a fresh one", at(c.Expiry).UTC().Format(time.RFC3339))
	case c.NotBefore != nil && now.Add(Leeway).Before(at(c.NotBefore)):
		return bad("the OIDC token is not valid before %s: check the clocks", at(c.NotBefore).UTC().Format(time.RFC3339))
	case now.Add(Leeway).Before(at(c.IssuedAt)):
		return bad("the OIDC token was issued in the future, at %s: check the clocks", at(c.IssuedAt).UTC().Format(time.RFC3339))
	case at(c.Expiry).Sub(at(c.IssuedAt)) > s.Lifetime:
		return bad("the OIDC token is good for longer than %v, which is the most that this server accepts", s.Lifetime)
	}
	return nil
}

var errMalformed = bad("the OIDC token is malformed: it is not three parts of base64url between dots: ask for a fresh one")

// peek decodes what a token says, without believing it.
func peek(token string) (header, []byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return header{}, nil, errMalformed
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return header{}, nil, errMalformed
		}
	}
	var head header
	if err := json.Unmarshal(decoded[0], &head); err != nil {
		return header{}, nil, errMalformed
	}
	return head, decoded[1], nil
}

// shown makes text of a stranger's fit for a sentence.
func shown(s string) string {
	const most = 200
	if s == "" {
		return `""`
	}
	if len(s) > most {
		s = s[:most] + "…"
	}
	return transport.Printable(strings.ToValidUTF8(s, "?"))
}

// publicKeys is what the library wants.
type publicKeys = []crypto.PublicKey

// IsUnavailable reports whether err says that a token could not be checked, as
// opposed to that it is bad.
func IsUnavailable(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Unavailable
}
