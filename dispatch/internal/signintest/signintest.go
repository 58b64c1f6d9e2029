// Package signintest is a forge on this machine by which tests sign in: an OpenID
// Connect issuer, or plain OAuth 2.0 as GitHub has it, and the parts of the APIs
// that say who somebody is and what he may read. It checks what it is asked
// strictly, shares no code with what asks, and must not be part of a program.
package signintest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/pkg/oidctest"
)

// The application that is registered.
const (
	ClientID     = "dispatch-client"
	ClientSecret = "dispatch-client-SECRET"
)

// Forge is a running forge. Its fields may be changed in Do.
type Forge struct {
	// URL is its address.
	URL string

	sync.Mutex
	// User is who is signed in at the forge, and gives consent.
	User string
	// Readable are the repositories that a user may read, by USER OWNER/NAME.
	Readable map[string]bool
	// Claims are added to, or with nil taken from, the next identities.
	Claims oidctest.Claims
	// Key signs them.
	Key oidctest.Key
	// Identity false leaves them out.
	Identity bool
	// Life is that of its tokens; 0 says none.
	Life time.Duration
	// Slash puts a slash at the end of its name, as older Gitea does.
	Slash bool
	// Redirect is the only address that browsers are sent back to; "" is any.
	Redirect string
	// Broken answers everything with 500.
	Broken bool
	// Requests are the paths that were asked for.
	Requests []string

	t      testing.TB
	key    oidctest.Key
	codes  map[string]code
	tokens map[string]string
}

type code struct {
	user, nonce, challenge, redirect string
}

// New starts a forge, which the test's end stops. The user octo is signed in there.
func New(t testing.TB) *Forge {
	t.Helper()
	f := &Forge{t: t, User: "octo", Readable: map[string]bool{}, Identity: true, Life: time.Hour, codes: map[string]code{}, tokens: map[string]string{}}
	f.key = oidctest.NewKey(t, "key-1", "ES256")
	f.Key = f.key
	server := httptest.NewServer(f)
	f.URL = server.URL
	t.Cleanup(server.Close)
	return f
}

// Do changes the forge while it answers nobody.
func (f *Forge) Do(change func()) {
	f.Lock()
	defer f.Unlock()
	change()
}

// Asked is how many requests it had.
func (f *Forge) Asked() (n int) {
	f.Do(func() { n = len(f.Requests) })
	return n
}

// Revoke makes its tokens good no more.
func (f *Forge) Revoke() {
	f.Lock()
	defer f.Unlock()
	clear(f.tokens)
}

// ServeHTTP is the forge.
func (f *Forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.Lock()
	defer f.Unlock()
	f.Requests = append(f.Requests, r.Method+" "+r.URL.Path)
	if f.Broken {
		http.Error(w, "broken", http.StatusInternalServerError)
		return
	}
	name := f.URL
	if f.Slash {
		name += "/"
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /.well-known/openid-configuration":
		f.answer(w, http.StatusOK, map[string]any{
			"issuer": name, "jwks_uri": f.URL + "/keys", "authorization_endpoint": f.URL + "/login/oauth/authorize",
			"token_endpoint": f.URL + "/login/oauth/access_token", "id_token_signing_alg_values_supported": []string{"ES256", "RS256"},
		})
	case "GET /keys":
		f.answer(w, http.StatusOK, map[string]any{"keys": []any{oidctest.PublicJWK(f.key)}})
	case "GET /login/oauth/authorize":
		f.authorize(w, r.URL.Query())
	case "POST /login/oauth/access_token":
		f.token(w, r, name)
	case "GET /api/v1/user", "GET /api/v3/user", "GET /api/v4/user":
		if user, ok := f.owner(w, r); ok {
			f.answer(w, http.StatusOK, map[string]any{"id": 7, "login": user, "username": user})
		}
	default:
		f.repository(w, r)
	}
}

func (f *Forge) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// authorize is RFC 6749, section 4.1.1, with consent given.
func (f *Forge) authorize(w http.ResponseWriter, q url.Values) {
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("response_type") != "code" || q.Get("client_id") != ClientID || q.Get("code_challenge_method") != "S256" ||
		len(q.Get("code_challenge")) != 43 || len(q.Get("state")) < 16 || f.Redirect != "" && back.String() != f.Redirect {
		http.Error(w, "the request is wrong: "+q.Encode(), http.StatusBadRequest)
		return
	}
	secret := rand.Text()
	f.codes[secret] = code{f.User, q.Get("nonce"), q.Get("code_challenge"), back.String()}
	back.RawQuery = url.Values{"code": {secret}, "state": {q.Get("state")}}.Encode()
	w.Header().Set("Location", back.String())
	w.WriteHeader(http.StatusSeeOther)
}

// token is RFC 6749, section 4.1.3, with RFC 7636, section 4.6.
func (f *Forge) token(w http.ResponseWriter, r *http.Request, name string) {
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if id != ClientID || secret != ClientSecret {
		f.answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": "not " + secret})
		return
	}
	c, ok := f.codes[r.PostFormValue("code")]
	delete(f.codes, r.PostFormValue("code"))
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	if !ok || base64.RawURLEncoding.EncodeToString(sum[:]) != c.challenge || r.PostFormValue("redirect_uri") != c.redirect {
		f.answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "not " + r.PostFormValue("code")})
		return
	}
	token := "T0KEN" + rand.Text()
	f.tokens[token] = c.user
	said := map[string]any{"access_token": token, "token_type": "bearer"}
	if f.Life != 0 {
		said["expires_in"] = int(f.Life / time.Second)
	}
	if f.Identity && c.nonce != "" {
		now := time.Now()
		claims := oidctest.Claims{
			"iss": name, "aud": ClientID, "sub": "7", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
			"nonce": c.nonce, "preferred_username": c.user,
		}
		for key, value := range f.Claims {
			if claims[key] = value; value == nil {
				delete(claims, key)
			}
		}
		said["id_token"] = oidctest.Sign(f.t, f.Key, claims, nil)
	}
	f.answer(w, http.StatusOK, said)
}

// owner is whose token a request has.
func (f *Forge) owner(w http.ResponseWriter, r *http.Request) (string, bool) {
	_, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	user, ok := f.tokens[token]
	if !ok {
		f.answer(w, http.StatusUnauthorized, map[string]string{"message": "bad credentials"})
	}
	return user, ok
}

func (f *Forge) repository(w http.ResponseWriter, r *http.Request) {
	for _, root := range []string{"/api/v1/repos/", "/api/v3/repos/", "/api/v4/projects/"} {
		path, ok := strings.CutPrefix(r.URL.Path, root)
		if !ok {
			continue
		}
		path = strings.TrimSuffix(path, "/repository/branches") // GitLab's
		user, ok := f.owner(w, r)
		switch {
		case !ok:
		case f.Readable[user+" "+path]:
			f.answer(w, http.StatusOK, map[string]any{"full_name": path, "permissions": map[string]bool{"pull": true}})
		default:
			f.answer(w, http.StatusNotFound, map[string]string{"message": "not found"})
		}
		return
	}
	http.Error(w, fmt.Sprintf("there is nothing at %s", r.URL.Path), http.StatusNotFound)
}
