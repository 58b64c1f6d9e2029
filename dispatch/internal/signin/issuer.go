package signin

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"example.com/converge/pkg/apicall"
)

const (
	userAgent = "converge-dispatch"
	// maxAnswer is how much of an issuer's answer is read, in bytes.
	maxAnswer = 1 << 20
	// again is how long an issuer that could not be asked is left alone.
	again = 3 * time.Second
)

// scopes is what is asked for: who somebody is, and reading. GitHub has no
// narrower one for private repositories; its GitHub Apps have permissions of
// their own, and ignore it.
//
// https://docs.gitea.com/development/oauth2-provider,
// https://docs.gitlab.com/integration/oauth_provider/#view-all-authorized-applications,
// https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
var scopes = map[string][]string{
	OIDC:    {oidc.ScopeOpenID, "profile"},
	Gitea:   {oidc.ScopeOpenID, "profile", "read:user", "read:repository"},
	Forgejo: {oidc.ScopeOpenID, "profile", "read:user", "read:repository"},
	GitLab:  {oidc.ScopeOpenID, "profile", "read_api"},
	GitHub:  {"read:user", "repo"},
}

// algorithms are the signatures of identities that are accepted: those with a
// public key.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}

// issuer is where codes are exchanged. What it says of itself is asked for when
// it is first wanted, and again until it was had.
type issuer struct {
	kind   string
	base   *url.URL
	client *http.Client

	mu       sync.Mutex
	config   oauth2.Config // without endpoints, until verifier is there
	verifier *oidc.IDTokenVerifier
	failure  error     // of the last time that it was asked
	failed   time.Time // when that was
}

// oidc reports whether the forge speaks OpenID Connect; GitHub does not.
func (i *issuer) oidc() bool { return i.kind != GitHub }

// context has the client with which go-oidc and oauth2 ask.
func (i *issuer) context(ctx context.Context) context.Context {
	return oidc.ClientContext(ctx, i.client)
}

// get returns how to sign in; verifier is nil where there are no identities.
func (i *issuer) get(ctx context.Context) (*oauth2.Config, *oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	base := strings.TrimRight(i.base.String(), "/")
	if !i.oidc() {
		config := i.config
		config.Endpoint = oauth2.Endpoint{
			AuthURL: base + "/login/oauth/authorize", TokenURL: base + "/login/oauth/access_token", AuthStyle: oauth2.AuthStyleInParams,
		}
		return &config, nil, nil
	}
	if i.verifier == nil {
		if time.Since(i.failed) < again { // not each browser waits for it
			return nil, nil, i.failure
		}
		// Its keys are fetched long after this request, and that by nobody's
		// will but the issuer's: an identity comes from it alone.
		lasting := i.context(context.WithoutCancel(ctx))
		provider, err := oidc.NewProvider(lasting, base)
		if err != nil { // Gitea before 1.25 has a slash at the end of its name
			var other error
			if provider, other = oidc.NewProvider(lasting, base+"/"); other != nil {
				i.failed = time.Now()
				i.failure = refused(http.StatusBadGateway, i.base.Host+" does not say how to sign in: try again in a moment", errors.Join(err, other))
				return nil, nil, i.failure
			}
		}
		i.config.Endpoint = provider.Endpoint()
		i.verifier = provider.VerifierContext(lasting, &oidc.Config{ClientID: i.config.ClientID, SupportedSigningAlgs: algorithms})
		for _, address := range []string{i.config.Endpoint.AuthURL, i.config.Endpoint.TokenURL} {
			if err := i.check(address); err != nil {
				i.verifier = nil
				return nil, nil, refused(http.StatusBadGateway, i.base.Host+" says how to sign in as it should not", err)
			}
		}
	}
	config := i.config
	return &config, i.verifier, nil
}

// check refuses an endpoint that secrets must not be sent to.
func (i *issuer) check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != i.base.Scheme {
		return errors.New("one of the endpoints is no https URL")
	}
	return nil
}

// identify verifies the identity that came with a token (OpenID Connect Core,
// section 3.1.3.7): its signature, issuer, audience, time, nonce, and that it
// came with this token. It returns the user's name, which may be "".
func identify(ctx context.Context, verifier *oidc.IDTokenVerifier, token *oauth2.Token, nonce string) (string, error) {
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return "", errors.New("there is no identity beside the token")
	}
	id, err := verifier.Verify(ctx, raw)
	if err != nil {
		return "", err
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(nonce)) != 1 {
		return "", errors.New("the identity was made for another sign-in")
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return "", err
		}
	}
	var claims struct {
		Name string `json:"preferred_username"`
	}
	if err := id.Claims(&claims); err != nil {
		return "", err
	}
	return claims.Name, nil
}

// bounded reads no answer for ever.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", userAgent)
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// clean is an error for logs without what must not be there.
func clean(err error, secrets ...string) error {
	text := err.Error()
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(strings.ReplaceAll(text, secret, "…"), url.QueryEscape(secret), "…")
		}
	}
	return fmt.Errorf("exchange the code: %s", apicall.Clip(text, 300))
}
