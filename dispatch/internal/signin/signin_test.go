package signin

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/signintest"
	"example.com/converge/pkg/oidctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a program with a Door, a forge, and a browser.
type world struct {
	*httptest.Server
	t     *testing.T
	forge *signintest.Forge
	door  *Door
	// visit is an address of the forge's that the browser was sent to.
	visit *url.URL

	mu  sync.Mutex
	log bytes.Buffer
}

func open(t *testing.T, change func(*Options)) *world {
	t.Helper()
	w := &world{t: t, forge: signintest.New(t)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /signin", func(rw http.ResponseWriter, r *http.Request) {
		if err := w.door.Begin(rw, r, r.URL.Query().Get("back")); err != nil {
			w.fail(rw, err)
		}
	})
	mux.HandleFunc("GET /signin/callback", func(rw http.ResponseWriter, r *http.Request) {
		p, back, err := w.door.Finish(rw, r)
		if err != nil {
			w.fail(rw, err)
			return
		}
		fmt.Fprintf(rw, "in %s %s", p.Login, back)
	})
	mux.HandleFunc("GET /who", func(rw http.ResponseWriter, r *http.Request) {
		if p := w.door.Who(r); p != nil {
			fmt.Fprintf(rw, "%s at %s", p.Login, p.Forge)
		}
	})
	mux.HandleFunc("POST /signout", func(rw http.ResponseWriter, r *http.Request) { w.door.SignOut(rw, w.door.Who(r)) })
	w.Server = httptest.NewServer(mux)
	t.Cleanup(w.Close)
	public, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{
		Kind: Gitea, Issuer: w.forge.URL, ClientID: signintest.ClientID, ClientSecret: signintest.ClientSecret, PublicURL: public,
		Log: slog.New(slog.NewTextHandler(w, nil)),
	}
	if change != nil {
		change(&opt)
	}
	if w.door, err = New(opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.door.Close)
	return w
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// fail answers as the pages do, and wants what it says to hold no secret.
func (w *world) fail(rw http.ResponseWriter, err error) {
	var e *Refused
	if !errors.As(err, &e) {
		w.t.Errorf("%v is no *Refused", err)
		return
	}
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if text := cause.Error(); strings.Contains(text, "SECRET") || strings.Contains(text, "T0KEN") {
			w.t.Errorf("a secret is in %q", text)
		}
	}
	http.Error(rw, e.Error(), e.Status)
}

// browser is a client with cookies that stops where stop says so.
func (w *world) browser(stop func(*url.URL) bool) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if stop != nil && stop(r.URL) {
			w.visit = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

func (w *world) get(c *http.Client, address string) (int, string) {
	w.t.Helper()
	if strings.HasPrefix(address, "/") {
		address = w.URL + address
	}
	resp, err := c.Get(address)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(resp.Body)
	return resp.StatusCode, strings.TrimSpace(b.String())
}

func atCallback(u *url.URL) bool { return u.Path == "/signin/callback" }

func TestSignIn(t *testing.T) {
	for name, change := range map[string]func(*Options, *signintest.Forge){
		"gitea":       nil,
		"older gitea": func(_ *Options, f *signintest.Forge) { f.Slash = true },
		"forgejo":     func(o *Options, _ *signintest.Forge) { o.Kind = Forgejo },
		"gitlab":      func(o *Options, _ *signintest.Forge) { o.Kind = GitLab },
		"github":      func(o *Options, f *signintest.Forge) { o.Kind, f.Identity = GitHub, false },
		"oidc":        func(o *Options, _ *signintest.Forge) { o.Kind = OIDC },
		"forever":     func(_ *Options, f *signintest.Forge) { f.Life = 0 },
		"kept key":    func(o *Options, _ *signintest.Forge) { o.KeyFile = filepath.Join(t.TempDir(), "cookie-key") },
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			if change != nil {
				opt := w.door.opt
				w.forge.Do(func() { change(&opt, w.forge) })
				w.door.Close()
				var err error
				if w.door, err = New(opt); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(w.door.Close)
			}
			w.forge.Do(func() { w.forge.Redirect = w.URL + "/signin/callback" })
			c := w.browser(nil)
			if _, who := w.get(c, "/who"); who != "" {
				t.Fatalf("%q is in already", who)
			}
			if status, said := w.get(c, "/signin?back="+url.QueryEscape("/build?job=a%2Fb")); status != 200 || said != "in octo /build?job=a%2Fb" {
				t.Fatalf("%d %s", status, said)
			}
			if _, who := w.get(c, "/who"); who != "octo at "+w.forge.URL {
				t.Errorf("it is %q", who)
			}
			// Signing out is for good, also for who has kept the cookie.
			kept := c.Jar.Cookies(parse(t, w.URL))
			resp, err := c.Post(w.URL+"/signout", "", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if _, who := w.get(c, "/who"); who != "" {
				t.Errorf("%q is still in", who)
			}
			c.Jar.SetCookies(parse(t, w.URL), kept)
			if _, who := w.get(c, "/who"); who != "" {
				t.Errorf("%q is in with an old cookie", who)
			}
		})
	}
}

func parse(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestForged: what comes back in another way than it was begun lets nobody in.
func TestForged(t *testing.T) {
	for name, test := range map[string]struct {
		forge  func(*signintest.Forge)
		back   func(w *world, c *http.Client, q url.Values)
		status int
		want   string
	}{
		"another state":   {nil, func(_ *world, _ *http.Client, q url.Values) { q.Set("state", "x") }, 403, "another page"},
		"no state":        {nil, func(_ *world, _ *http.Client, q url.Values) { q.Del("state") }, 403, "another page"},
		"two states":      {nil, func(_ *world, _ *http.Client, q url.Values) { q.Add("state", q.Get("state")) }, 403, "another page"},
		"another code":    {nil, func(_ *world, _ *http.Client, q url.Values) { q.Set("code", "SECRETCODE") }, 403, "does not know this sign-in"},
		"no code":         {nil, func(_ *world, _ *http.Client, q url.Values) { q.Del("code") }, 403, "sent no code"},
		"no consent":      {nil, func(_ *world, _ *http.Client, q url.Values) { q.Set("error", "access_denied\x1b[2J") }, 403, "access_denied?[2J"},
		"long code":       {nil, func(_ *world, _ *http.Client, q url.Values) { q.Set("code", strings.Repeat("x", maxParameter+1)) }, 403, "let you in"},
		"another browser": {nil, func(w *world, c *http.Client, _ url.Values) { c.Jar = w.browser(nil).Jar }, 400, "has not begun"},
		"begun by others": {nil, func(w *world, c *http.Client, _ url.Values) {
			other := w.browser(atCallback)
			w.get(other, "/signin")
			c.Jar = other.Jar
		}, 403, "another page"},
		"session as begun": {nil, func(w *world, c *http.Client, _ url.Values) {
			value, err := w.door.key.seal("session", session{ID: "x", Login: "admin", Until: time.Now().Add(time.Hour).Unix()})
			if err != nil {
				t.Fatal(err)
			}
			c.Jar.SetCookies(parse(t, w.URL), []*http.Cookie{w.door.cookie("signin", value, time.Hour)})
		}, 400, "has not begun"},
		"took too long": {nil, func(w *world, _ *http.Client, _ url.Values) {
			w.door.now = func() time.Time { return time.Now().Add(beginFor) }
		}, 400, "ten minutes"},
		"no identity":      {func(f *signintest.Forge) { f.Identity = false }, nil, 403, "identity that is not good"},
		"another's key":    {func(f *signintest.Forge) { f.Key = oidctest.NewKey(t, "key-1", "ES256") }, nil, 403, "identity that is not good"},
		"unknown key":      {func(f *signintest.Forge) { f.Key = oidctest.NewKey(t, "key-2", "ES256") }, nil, 403, "identity that is not good"},
		"another nonce":    {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"nonce": "x"} }, nil, 403, "identity that is not good"},
		"no nonce":         {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"nonce": nil} }, nil, 403, "identity that is not good"},
		"another audience": {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"aud": "else"} }, nil, 403, "identity that is not good"},
		"another issuer":   {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"iss": "https://else.example"} }, nil, 403, "identity that is not good"},
		"expired":          {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"exp": time.Now().Add(-time.Hour).Unix()} }, nil, 403, "identity that is not good"},
		"of another token": {func(f *signintest.Forge) { f.Claims = oidctest.Claims{"at_hash": hash("x")} }, nil, 403, "identity that is not good"},
		"token not good": {nil, func(w *world, _ *http.Client, _ url.Values) {
			w.door.opt.ClientSecret = "SECRETother"
			w.door.issuer.config.ClientSecret = "SECRETother"
		}, 403, "does not know this sign-in"},
		"too many at once": {nil, func(w *world, _ *http.Client, _ url.Values) {
			for range parallel {
				w.door.places <- struct{}{}
			}
		}, 503, "too many people"},
		"strange name":      {func(f *signintest.Forge) { f.User = "a\nb" }, nil, 502, "who you are"},
		"token too long":    {func(f *signintest.Forge) {}, nil, 200, "in octo"},
		"forge is away now": {nil, func(w *world, _ *http.Client, _ url.Values) { w.forge.Do(func() { w.forge.Broken = true }) }, 502, "try again"},
	} {
		t.Run(name, func(t *testing.T) {
			w := open(t, nil)
			if test.forge != nil {
				w.forge.Do(func() { test.forge(w.forge) })
			}
			c := w.browser(atCallback)
			if status, said := w.get(c, "/signin"); status != http.StatusSeeOther || w.visit == nil {
				t.Fatalf("%d %s", status, said)
			}
			q := w.visit.Query()
			if test.back != nil {
				at := w.visit
				test.back(w, c, q)
				w.visit = at
			}
			w.visit.RawQuery = q.Encode()
			status, said := w.get(c, w.visit.String())
			if status != test.status || !strings.Contains(said, test.want) {
				t.Errorf("%d %s, want %d %s", status, said, test.status, test.want)
			}
			w.door.now = time.Now
			if _, who := w.get(c, "/who"); who != "" && status != 200 {
				t.Errorf("%s is in", who)
			}
		})
	}
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// TestReplayed: a sign-in is good once, also for who has kept the cookie of its
// beginning.
func TestReplayed(t *testing.T) {
	w := open(t, nil)
	c := w.browser(atCallback)
	w.get(c, "/signin")
	begun := c.Jar.Cookies(parse(t, w.URL))
	if status, said := w.get(c, w.visit.String()); status != 200 {
		t.Fatalf("%d %s", status, said)
	}
	other := w.browser(nil)
	if status, said := w.get(other, w.visit.String()); status != 400 {
		t.Errorf("without the cookie: %d %s", status, said)
	}
	other.Jar.SetCookies(parse(t, w.URL), begun)
	asked := w.forge.Asked()
	if status, said := w.get(other, w.visit.String()); status != 403 || !strings.Contains(said, "used before") {
		t.Errorf("with the cookie: %d %s", status, said)
	}
	if w.forge.Asked() != asked {
		t.Error("the forge was asked")
	}
}

func TestCSRF(t *testing.T) {
	w := open(t, nil)
	a, b := w.door.person(session{ID: "a"}), w.door.person(session{ID: "b"})
	if !a.CheckCSRF(a.CSRF()) || a.CheckCSRF(b.CSRF()) || a.CheckCSRF("") || len(a.CSRF()) != 43 {
		t.Errorf("%q, %q", a.CSRF(), b.CSRF())
	}
}

// TestBack: nobody is led elsewhere by signing in.
func TestBack(t *testing.T) {
	for back, want := range map[string]string{
		"/build?job=a%2Fb": "/build?job=a%2Fb", "/": "/",
		"": "/builds", "//evil.example": "/builds", "/\\evil.example": "/builds", "https://evil.example": "/builds", "evil": "/builds",
		"/a\r\nb": "/builds", "/\t/evil": "/builds", "javascript:alert(1)": "/builds", "/" + strings.Repeat("x", maxBack): "/builds",
	} {
		if got := local(back); got != want {
			t.Errorf("%q is %q", back, got)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	good := Options{Kind: Gitea, Issuer: "https://git.example", ClientID: "x", ClientSecret: "SECRET", PublicURL: &url.URL{Scheme: "https", Host: "ci.example"}}
	for want, change := range map[string]func(*Options){
		"by \"gitlub\"":    func(o *Options) { o.Kind = "gitlub" },
		"the id and":       func(o *Options) { o.ClientSecret = "" },
		"at which people":  func(o *Options) { o.PublicURL = nil },
		"an https address": func(o *Options) { o.PublicURL = &url.URL{Scheme: "http", Host: "ci.example"} },
		"no plain URL":     func(o *Options) { o.Issuer = "" },
		"not an https one": func(o *Options) { o.Issuer = "http://git.example" },
		"the CA file":      func(o *Options) { o.CAFile = filepath.Join(t.TempDir(), "none") },
		"cannot use the k": func(o *Options) { o.KeyFile = filepath.Join(t.TempDir(), "no", "folder") },
	} {
		opt := good
		change(&opt)
		if _, err := New(opt); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	d, err := New(Options{Kind: GitHub, ClientID: "x", ClientSecret: "y", PublicURL: good.PublicURL})
	if err != nil || d.Host() != "github.com" || !d.Is("https://GitHub.com/") || d.Is("https://github.com/acme") || d.Is("https://git.example") {
		t.Errorf("%v", err)
	}
	d.Close()
}

// TestAway: a forge that is away at the start is asked again, and not by each
// browser.
func TestAway(t *testing.T) {
	w := open(t, nil)
	w.forge.Do(func() { w.forge.Broken = true })
	c := w.browser(nil)
	if status, said := w.get(c, "/signin"); status != 502 || !strings.Contains(said, "does not say how to sign in") {
		t.Errorf("%d %s", status, said)
	}
	asked := w.forge.Asked()
	w.get(c, "/signin")
	if w.forge.Asked() != asked {
		t.Error("it is asked at once")
	}
	w.forge.Do(func() { w.forge.Broken = false })
	w.door.issuer.failed = time.Time{}
	if status, said := w.get(c, "/signin"); status != 200 {
		t.Errorf("%d %s", status, said)
	}
}

func FuzzLocal(f *testing.F) {
	f.Add("/build?job=a%2Fb")
	f.Add("//evil.example")
	f.Fuzz(func(t *testing.T, back string) {
		base := &url.URL{Scheme: "https", Host: "ci.example"}
		u, err := base.Parse(local(back))
		if err != nil || u.Host != base.Host || u.Scheme != base.Scheme {
			t.Errorf("%q leads to %v, %v", back, u, err)
		}
	})
}
