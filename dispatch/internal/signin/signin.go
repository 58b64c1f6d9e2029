// Package signin lets people sign in by the forge at which their repositories
// are, and asks it what they may read. It speaks OAuth 2.0 (RFC 6749) with PKCE
// (RFC 7636), OpenID Connect where the forge does, and keeps a browser signed in
// by a sealed cookie. What somebody may do here is not its business, and it knows
// nothing of builds.
//
// A cookie holds who somebody is and the forge's token, encrypted with a key that
// never leaves this program; so nothing of those who are signed in is kept here
// but which cookies were signed out, and a restart with the same key signs nobody
// out. The forge's token is asked for no more than reading.
package signin

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/forge"
)

const (
	// signedFor is how long a browser stays signed in, or shorter where the
	// forge's token ends before.
	signedFor = 12 * time.Hour
	// beginFor is how long somebody may take at the forge.
	beginFor = 10 * time.Minute
	// maxBack is the longest path to come back to, in bytes.
	maxBack = 1024
	// maxParameter is the longest code or state that is looked at, in bytes.
	maxParameter = 4096
	// parallel is how many browsers' codes are exchanged at a time.
	parallel = 8
)

// The kinds of Options.Kind.
const (
	OIDC    = "oidc"
	Gitea   = "gitea"
	Forgejo = "forgejo"
	GitHub  = "github"
	GitLab  = "gitlab"
)

// Options say where people sign in.
type Options struct {
	// Kind is one of the kinds. For all but OIDC, of which the API is not known,
	// the forge itself says what the user is called.
	Kind string
	// Issuer is the forge's address; "" is that of github.com or gitlab.com.
	Issuer string
	// ClientID and ClientSecret are those of the application that was registered
	// there, with PublicURL and CallbackPath as where to come back to.
	ClientID, ClientSecret string
	// PublicURL is where people reach this program; it may have a path.
	PublicURL *url.URL
	// KeyFile keeps the key of the cookies, and is made if it is not there; ""
	// has one for this process only.
	KeyFile string
	// CAFile names certificates to trust besides the system's; "" is none.
	CAFile string
	// Log nil discards.
	Log *slog.Logger
}

// CallbackPath is where the forge sends browsers back to, below PublicURL.
const CallbackPath = "/signin/callback"

// Door lets people in. Its methods may be called concurrently. Close it.
type Door struct {
	opt    Options
	base   *url.URL
	key    sealer
	issuer *issuer
	api    *forge.Client // in nobody's name
	log    *slog.Logger
	now    func() time.Time
	places chan struct{}

	used *remembered // states that came back, and cookies that were signed out
	read *reads
}

// New makes a Door. It asks nobody yet: a forge that is away at this moment keeps
// the program from nothing.
func New(opt Options) (*Door, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Issuer = cmp.Or(opt.Issuer, map[string]string{GitHub: "https://github.com", GitLab: "https://gitlab.com"}[opt.Kind])
	switch {
	case !slices.Contains([]string{OIDC, Gitea, Forgejo, GitHub, GitLab}, opt.Kind):
		return nil, fmt.Errorf("nobody can sign in by %.20q: it is oidc, gitea, forgejo, github or gitlab", opt.Kind)
	case opt.ClientID == "" || opt.ClientSecret == "":
		return nil, errors.New("signing in wants the id and the secret of an application that was registered at the forge")
	case opt.PublicURL == nil || opt.PublicURL.Host == "":
		return nil, errors.New("signing in wants the address at which people reach this program, for the forge to send them back to")
	case opt.PublicURL.Scheme != "https" && !forge.Loopback(opt.PublicURL.Hostname()):
		return nil, fmt.Errorf("signing in wants an https address of this program, and %s is none: cookies would be seen on the way", opt.PublicURL.Host)
	}
	base, err := forge.ParseBase(opt.Issuer)
	if err != nil {
		return nil, fmt.Errorf("nobody can sign in: %w", err)
	}
	key, err := newSealer(opt.KeyFile)
	if err != nil {
		return nil, err
	}
	d := &Door{
		opt: opt, base: base, key: key, log: opt.Log, now: time.Now, places: make(chan struct{}, parallel),
		used: newRemembered(), read: newReads(),
	}
	client, err := apicall.NewClient(base.String(), opt.CAFile)
	if err != nil {
		return nil, err
	}
	client.Transport = bounded{client.Transport}
	d.issuer = &issuer{kind: opt.Kind, base: base, client: client, config: oauth2.Config{
		ClientID: opt.ClientID, ClientSecret: opt.ClientSecret,
		RedirectURL: strings.TrimRight(opt.PublicURL.String(), "/") + CallbackPath,
		Scopes:      scopes[opt.Kind],
	}}
	if opt.Kind != OIDC {
		kind, err := forge.ParseKind(opt.Kind)
		if err != nil {
			return nil, err
		}
		if d.api, err = d.client(kind); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// client asks the forge's API.
func (d *Door) client(kind forge.Kind) (*forge.Client, error) {
	return forge.NewClient(forge.Config{Kind: kind, URL: d.base.String(), CAFile: d.opt.CAFile, UserAgent: userAgent})
}

// Close closes the connections that are kept.
func (d *Door) Close() {
	if d.api != nil {
		d.api.Close()
	}
	d.read.close()
}

// Host is the forge's, for people.
func (d *Door) Host() string { return d.base.Host }

// Is reports whether an address is the forge's by which people sign in.
func (d *Door) Is(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == d.base.Scheme && strings.EqualFold(u.Host, d.base.Host) && strings.Trim(u.Path, "/") == strings.Trim(d.base.Path, "/")
}

// Person is somebody who is signed in.
type Person struct {
	// Login is the name at the forge, Forge its address.
	Login, Forge string
	// Until is when the browser is signed out by itself.
	Until time.Time

	id    string // of the cookie
	token string // the forge's
	csrf  string
}

// CSRF is what the forms of this person's pages hold, and CheckCSRF whether a
// form held it.
func (p *Person) CSRF() string { return p.csrf }

// CheckCSRF reports whether a form's token is CSRF's.
func (p *Person) CheckCSRF(token string) bool {
	return hmac.Equal([]byte(token), []byte(p.csrf))
}

// begun is what the cookie of a browser holds that is at the forge.
type begun struct {
	State, Nonce, Verifier, Back string
	Until                        int64
}

// session is what the cookie of a browser holds that is signed in.
type session struct {
	ID, Login, Token string
	Until            int64
}

// Begin sends a browser to the forge; back is the path, with its query, to which
// it comes back, without PublicURL's own.
func (d *Door) Begin(w http.ResponseWriter, r *http.Request, back string) error {
	config, _, err := d.issuer.get(r.Context())
	if err != nil {
		return err
	}
	b := begun{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Back: local(back), Until: d.now().Add(beginFor).Unix()}
	options := []oauth2.AuthCodeOption{oauth2.S256ChallengeOption(b.Verifier)}
	if d.issuer.oidc() {
		options = append(options, oauth2.SetAuthURLParam("nonce", b.Nonce))
	}
	value, err := d.key.seal("begun", b)
	if err != nil {
		return err
	}
	http.SetCookie(w, d.cookie("signin", value, beginFor))
	w.Header().Set("Location", config.AuthCodeURL(b.State, options...))
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// local is a path of this program, whatever was asked for.
func local(back string) string {
	u, err := url.Parse(back)
	if err != nil || len(back) > maxBack || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil ||
		!strings.HasPrefix(back, "/") || strings.HasPrefix(back, "//") || strings.ContainsFunc(back, func(r rune) bool { return r <= ' ' || r == '\\' || r >= 0x7f }) {
		return "/builds"
	}
	return back
}

// Refused is why somebody is not signed in. Its text is for the browser.
type Refused struct {
	// Status is HTTP's.
	Status int
	text   string
	err    error
}

func (e *Refused) Error() string { return e.text }

// Unwrap gives the cause, which is for logs.
func (e *Refused) Unwrap() error { return e.err }

func refused(status int, text string, err error) error {
	return &Refused{Status: status, text: text, err: err}
}

// Finish takes a browser that comes back from the forge, and signs it in. It sets
// cookies and writes nothing else. back is where it wanted to go. Every error is a
// *Refused.
func (d *Door) Finish(w http.ResponseWriter, r *http.Request) (p *Person, back string, err error) {
	http.SetCookie(w, d.cookie("signin", "", -1)) // whatever comes of it
	var b begun
	now := d.now()
	if !d.open(r, "signin", "begun", &b) || !now.Before(time.Unix(b.Until, 0)) {
		return nil, "", refused(http.StatusBadRequest, "this browser has not begun to sign in here, or took longer than ten minutes: sign in again", nil)
	}
	query := r.URL.Query()
	state, code := query.Get("state"), query.Get("code")
	if len(query["state"]) != 1 || len(state) > maxParameter || !hmac.Equal([]byte(state), []byte(b.State)) {
		return nil, "", refused(http.StatusForbidden, "another page began to sign you in than the one that you come from: sign in again", nil)
	}
	if !d.used.add("state "+b.State, time.Unix(b.Until, 0), now) {
		return nil, "", refused(http.StatusForbidden, "this sign-in was used before: sign in again", nil)
	}
	if trouble := query.Get("error"); trouble != "" || code == "" || len(code) > maxParameter {
		return nil, "", refused(http.StatusForbidden, fmt.Sprintf("%s did not let you in: %s", d.base.Host, apicall.Clip(cmp.Or(trouble, "it sent no code"), 60)), nil)
	}
	select {
	case d.places <- struct{}{}:
		defer func() { <-d.places }()
	default:
		return nil, "", refused(http.StatusServiceUnavailable, "too many people sign in at this moment: try again in a moment", nil)
	}
	s, err := d.exchange(r.Context(), code, b)
	if err != nil {
		return nil, "", err
	}
	s.ID = rand.Text()
	value, err := d.key.seal("session", s)
	if err != nil {
		return nil, "", refused(http.StatusInternalServerError, "the forge's token does not fit into a cookie", err)
	}
	http.SetCookie(w, d.cookie("session", value, time.Unix(s.Until, 0).Sub(now)))
	return d.person(s), b.Back, nil
}

// exchange asks the forge for the token of a code, and whose it is.
func (d *Door) exchange(ctx context.Context, code string, b begun) (session, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*apicall.Timeout)
	defer cancel()
	config, verifier, err := d.issuer.get(ctx)
	if err != nil {
		return session{}, err
	}
	host := d.base.Host
	token, err := config.Exchange(d.issuer.context(ctx), code, oauth2.VerifierOption(b.Verifier))
	if err != nil {
		var answer *oauth2.RetrieveError
		if errors.As(err, &answer) && answer.Response.StatusCode < 500 {
			return session{}, refused(http.StatusForbidden, host+" does not know this sign-in: sign in again", clean(err, code, d.opt.ClientSecret))
		}
		return session{}, refused(http.StatusBadGateway, host+" does not answer as it should: try again in a moment", clean(err, code, d.opt.ClientSecret))
	}
	s := session{Token: token.AccessToken, Until: d.now().Add(signedFor).Unix()}
	if !token.Expiry.IsZero() && token.Expiry.Unix() < s.Until {
		s.Until = token.Expiry.Unix()
	}
	if verifier != nil {
		if s.Login, err = identify(d.issuer.context(ctx), verifier, token, b.Nonce); err != nil {
			return session{}, refused(http.StatusForbidden, host+" sent an identity that is not good: sign in again", err)
		}
	}
	if d.api != nil {
		u, err := d.api.As(token.AccessToken).User(ctx)
		if err != nil {
			return session{}, refused(http.StatusBadGateway, host+" does not say who you are: try again in a moment", err)
		}
		s.Login = u.Login
	}
	if s.Login == "" || len(s.Login) > 255 || apicall.Clip(s.Login, 255) != s.Login {
		return session{}, refused(http.StatusForbidden, host+" does not say what you are called", nil)
	}
	return s, nil
}

// person is who has a cookie.
func (d *Door) person(s session) *Person {
	mac := hmac.New(sha256.New, d.key.mac)
	mac.Write([]byte("csrf " + s.ID))
	return &Person{
		Login: s.Login, Forge: d.base.String(), Until: time.Unix(s.Until, 0),
		id: s.ID, token: s.Token, csrf: base64.RawURLEncoding.EncodeToString(mac.Sum(nil)),
	}
}

// Who returns who asks; nil is nobody who is signed in.
func (d *Door) Who(r *http.Request) *Person {
	var s session
	now := d.now()
	if !d.open(r, "session", "session", &s) || s.ID == "" || !now.Before(time.Unix(s.Until, 0)) || d.used.has("out "+s.ID, now) {
		return nil
	}
	return d.person(s)
}

// SignOut ends it: the cookie is taken from the browser, and good no more. p may
// be nil.
func (d *Door) SignOut(w http.ResponseWriter, p *Person) {
	if p != nil {
		d.used.add("out "+p.id, p.Until, d.now())
		d.read.forget(p.id)
	}
	http.SetCookie(w, d.cookie("session", "", -1))
}
