package sessions

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/server/internal/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const token = "cvg_secret-of-the-viewer"

// world is a server with two agents, and the page in front of it.
type world struct {
	*httptest.Server
	h      *Handler
	client *http.Client
	signed int // calls of SignedIn

	mu      sync.Mutex
	agents  []presence.Agent
	clients []presence.Client
	viewers []*fake
	limit   bool // too many attempts
}

// fake is a viewer of the ids under acme/.
type fake struct {
	mu    sync.Mutex
	end   func()
	ended int
	until time.Time
}

func (*fake) Name() string          { return "bo<b>ss" }
func (*fake) Owner() string         { return "token\x00boss" }
func (*fake) Sees(id string) bool   { return strings.HasPrefix(id, "acme/") }
func (f *fake) Until() time.Time    { return f.until }
func (f *fake) Follow(end func())   { f.mu.Lock(); f.end = end; f.mu.Unlock() }
func (f *fake) End()                { f.mu.Lock(); f.ended++; f.mu.Unlock() }
func (f *fake) revoke()             { f.mu.Lock(); end := f.end; f.mu.Unlock(); end() }
func (f *fake) endedTimes() (n int) { f.mu.Lock(); defer f.mu.Unlock(); return f.ended }

type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Answer(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, r.text, r.status)
}

func open(t *testing.T) *world {
	t.Helper()
	began := time.Now().Add(-90 * time.Minute)
	ends := time.Now().Add(10*time.Minute + 30*time.Second)
	w := &world{
		agents: []presence.Agent{
			{ID: "acme/1", Remote: "192.0.2.1", Since: began, Software: "<script>alert(1)</script>", Meta: map[string]string{"ci": "x\x1b[2J"}, State: "active", Users: 1, Expires: &ends},
			{ID: "acme/2", Remote: "192.0.2.2", Since: began, State: "waiting"},
			{ID: "secret/3", Remote: "192.0.2.3", Since: began},
		},
		clients: []presence.Client{
			{ID: "acme/1", Session: "aaaaaaaaaaaaaaaa", First: "bbbbbbbbbbbbbbbb", Remote: "198.51.100.7", Since: began, ToAgent: 2048, ToClient: 5 << 20},
			{ID: "acme/gone", Session: "cccccccccccccccc", Remote: "198.51.100.8", Since: began},
			{ID: "secret/3", Session: "dddddddddddddddd", Remote: "198.51.100.9", Since: began},
		},
	}
	var err error
	w.h, err = New(Config{
		Present: func(shown func(string) bool) ([]presence.Agent, []presence.Client) {
			w.mu.Lock()
			defer w.mu.Unlock()
			agents := slices.DeleteFunc(slices.Clone(w.agents), func(a presence.Agent) bool { return !shown(a.ID) })
			clients := slices.DeleteFunc(slices.Clone(w.clients), func(c presence.Client) bool { return !shown(c.ID) })
			return agents, clients
		},
		Look: func(_ *http.Request, authorization string) (Viewer, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			switch {
			case w.limit:
				return nil, &refusal{http.StatusTooManyRequests, "too many attempts"}
			case authorization == "":
				return nil, &refusal{http.StatusUnauthorized, "sign in with a token"}
			case authorization == "Bearer broken":
				return nil, errors.New("the disk is gone")
			case authorization != "Bearer "+token && authorization != "Bearer short":
				return nil, &refusal{http.StatusUnauthorized, "the token is none of this server's"}
			}
			v := &fake{}
			if authorization == "Bearer short" {
				v.until = time.Now().Add(time.Hour)
			}
			w.viewers = append(w.viewers, v)
			return v, nil
		},
		SignedIn: func(*http.Request, Viewer) { w.signed++ },
		Secure:   func(r *http.Request) bool { return r.Header.Get("X-Secure") != "" },
		Host:     func(r *http.Request) string { return r.Host },
		Prefix:   func(*http.Request) string { return "/x" },
		Version:  "v1.2.3",
	})
	if err != nil {
		t.Fatal(err)
	}
	w.h.tick = time.Millisecond
	w.Server = httptest.NewServer(w.h)
	w.client = &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() { w.h.Close(); w.Server.Close() })
	return w
}

// ask makes a request; headers are "NAME: VALUE".
func (w *world) ask(t *testing.T, method, path, form string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.URL+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// signIn returns the cookie header of a browser that has signed in.
func (w *world) signIn(t *testing.T, token string, headers ...string) (string, *http.Cookie) {
	t.Helper()
	resp, body := w.ask(t, "POST", "/sessions", url.Values{"token": {" " + token + "\n"}}.Encode(), headers...)
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/x/sessions" || len(resp.Cookies()) != 1 {
		t.Fatalf("signing in: %s %v %s", resp.Status, resp.Header, body)
	}
	c := resp.Cookies()[0]
	return "Cookie: " + c.Name + "=" + c.Value, c
}

func TestSignIn(t *testing.T) {
	w := open(t)
	// Without anything there is the form, and nothing of who is here.
	resp, body := w.ask(t, "GET", "/sessions", "")
	if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `name="token"`) || strings.Contains(body, "acme") ||
		!strings.Contains(resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the door: %s %v\n%s", resp.Status, resp.Header, body)
	}
	for form, want := range map[string]string{"token=": "Paste a token first.", "token=guess": "The token is none of this server&#39;s."} {
		resp, body := w.ask(t, "POST", "/sessions", form)
		if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(body, want) || strings.Contains(body, "guess") || len(resp.Cookies()) > 0 || resp.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %s %v\n%s", form, resp.Status, resp.Header, body)
		}
	}
	if resp, _ := w.ask(t, "POST", "/sessions", "token="+strings.Repeat("x", maxForm)); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a long form: %s", resp.Status)
	}
	if resp, _ := w.ask(t, "POST", "/sessions", "token=broken"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a broken server: %s", resp.Status)
	}
	cookie, c := w.signIn(t, token, "X-Secure: yes")
	if !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/x/sessions" || c.MaxAge != int(signedFor/time.Second) || strings.Contains(c.Value, "secret") {
		t.Errorf("the cookie is %+v", c)
	}
	if w.signed != 1 {
		t.Errorf("%d were told to have signed in", w.signed)
	}
	resp, body = w.ask(t, "GET", "/sessions", "", cookie)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s\n%s", resp.Status, body)
	}
	for _, want := range []string{"acme/1", "acme/2", "acme/gone", "connection lost", "bo&lt;b&gt;ss", "1 h 30", "in 10 min", "2 KiB", "5.0 MiB", "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "v1.2.3", "ci: x?[2J"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	for _, never := range []string{"secret", "<script>alert", "dddddddddddddddd", token, "#"} {
		if strings.Contains(body, never) {
			t.Errorf("%q is on the page", never)
		}
	}
	// A token that ends soon is no reason to stay for long.
	if _, c := w.signIn(t, "short"); c.MaxAge > 3600 || c.Secure {
		t.Errorf("the cookie is %+v", c)
	}
	// Signing out ends it, here and for the viewer.
	resp, _ = w.ask(t, "POST", "/sessions/out", "", cookie)
	if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("signing out: %s %v", resp.Status, resp.Cookies())
	}
	if resp, _ := w.ask(t, "GET", "/sessions", "", cookie); resp.StatusCode != http.StatusUnauthorized || w.viewers[0].endedTimes() != 1 {
		t.Errorf("after that: %s, ended %d times", resp.Status, w.viewers[0].endedTimes())
	}
}

// TestOtherSites: their forms are not taken.
func TestOtherSites(t *testing.T) {
	w := open(t)
	cookie, _ := w.signIn(t, token)
	for _, header := range []string{"Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site"} {
		for path, form := range map[string]string{"/sessions": "token=" + token, "/sessions/out": ""} {
			if resp, _ := w.ask(t, "POST", path, form, header, cookie); resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s with %s: %s", path, header, resp.Status)
			}
		}
	}
	if resp, _ := w.ask(t, "GET", "/sessions", "", cookie); resp.StatusCode != http.StatusOK {
		t.Errorf("the browser was signed out: %s", resp.Status)
	}
	w.signIn(t, token, "Origin: "+w.URL)
	w.signIn(t, token, "Sec-Fetch-Site: same-origin", "Origin: https://outside.example")
}

func TestProgram(t *testing.T) {
	w := open(t)
	resp, body := w.ask(t, "GET", "/sessions", "", "Authorization: Bearer "+token)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"id": "acme/1"`) || strings.Contains(body, "secret") || !strings.Contains(resp.Header.Get("Content-Type"), "json") {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	if len(resp.Cookies()) > 0 || w.viewers[0].endedTimes() != 1 {
		t.Errorf("a program is signed in: %v", resp.Cookies())
	}
	if resp, body := w.ask(t, "GET", "/sessions?q=acme/2", "", "Authorization: Bearer "+token); strings.Contains(body, "acme/1") || !strings.Contains(body, "acme/2") {
		t.Errorf("filtered: %s\n%s", resp.Status, body)
	}
	for header, want := range map[string]int{"Authorization: Bearer guess": 401, "Accept: application/json": 401, "Authorization: Bearer broken": 503} {
		if resp, _ := w.ask(t, "GET", "/sessions", "", header); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", header, resp.Status, want)
		}
	}
	w.limit = true
	if resp, body := w.ask(t, "POST", "/sessions", "token="+token); resp.StatusCode != http.StatusTooManyRequests || !strings.Contains(body, "Too many attempts.") {
		t.Errorf("%s\n%s", resp.Status, body)
	}
	for path, want := range map[string]int{"/sessions/style.css": 200, "/sessions/live.js": 200, "/sessions/x": 404, "/sessions/o": 404, "/sessions/live": 401, "/sessions/out": 405} {
		if resp, _ := w.ask(t, "GET", path, ""); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}

// live opens a live page; its events come to the channel, and at the end it is
// closed.
func (w *world) live(t *testing.T, header string) (<-chan string, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.URL+"/sessions/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(header, ": ")
	req.Header.Set(name, value)
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("live: %s", resp.Status)
	}
	events := make(chan string, 64)
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(events)
		defer resp.Body.Close()
		var event strings.Builder
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if lines.Text() != "" {
				event.WriteString(lines.Text() + "\n")
				continue
			}
			select {
			case events <- event.String():
			case <-ctx.Done():
			}
			event.Reset()
		}
	})
	t.Cleanup(func() { cancel(); reading.Wait() })
	return events, cancel
}

// until waits for an event with text in it; false is the end.
func until(events <-chan string, text string) bool {
	for e := range events {
		if strings.Contains(e, text) {
			return true
		}
	}
	return false
}

func TestLive(t *testing.T) {
	w := open(t)
	cookie, _ := w.signIn(t, token)
	events, _ := w.live(t, cookie)
	if !until(events, "acme/2") {
		t.Fatal("there is no table")
	}
	if n := w.h.Live(); n != 1 {
		t.Errorf("%d live pages", n)
	}
	w.mu.Lock()
	w.agents = append(w.agents, presence.Agent{ID: "acme/new", Since: time.Now()})
	w.mu.Unlock()
	if !until(events, "acme/new") {
		t.Fatal("a newcomer is not shown")
	}
	// A revoked token ends it, and says so.
	w.mu.Lock()
	v := w.viewers[0]
	w.mu.Unlock()
	v.revoke()
	if !until(events, "event: gone") || until(events, "never") {
		t.Error("the page was not told")
	}
	if resp, _ := w.ask(t, "GET", "/sessions", "", cookie); resp.StatusCode != http.StatusUnauthorized || v.endedTimes() != 1 {
		t.Errorf("after that: %s, ended %d times", resp.Status, v.endedTimes())
	}
	// The server's end ends it, and nobody signs in any more.
	events, _ = w.live(t, "Authorization: Bearer "+token)
	if !until(events, "acme/new") {
		t.Fatal("there is no table")
	}
	w.h.Close()
	until(events, "never")
	if n := w.h.Live(); n != 0 {
		t.Errorf("%d live pages after the end", n)
	}
	if resp, _ := w.ask(t, "POST", "/sessions", "token="+token); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("signing in after the end: %s", resp.Status)
	}
}

// TestLiveLimit: beyond it a page is told to come back.
func TestLiveLimit(t *testing.T) {
	w := open(t)
	for range maxLive {
		if !w.h.enter() {
			t.Fatal("there is no place")
		}
	}
	if resp, _ := w.ask(t, "GET", "/sessions/live", "", "Authorization: Bearer "+token); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s", resp.Status)
	}
	for range maxLive {
		w.h.leave()
	}
}

// TestSignedLimit: who comes last is in, who came first is out.
func TestSignedLimit(t *testing.T) {
	w := open(t)
	now := time.Now()
	var all []*signed
	for i := range maxSigned + 1 {
		s := &signed{key: key{byte(i), byte(i >> 8)}, viewer: &fake{}, owner: fmt.Sprint(i / maxOwned), until: now.Add(time.Hour + time.Duration(i)), gone: make(chan struct{})}
		if all = append(all, s); !w.h.add(s, now) {
			t.Fatal("it was not added")
		}
	}
	if !all[0].over(now) || all[1].over(now) || all[maxSigned].over(now) || len(w.h.signed) != maxSigned {
		t.Errorf("%d are signed in", len(w.h.signed))
	}
	if !all[1].over(now.Add(2 * time.Hour)) {
		t.Error("it lasts longer than it should")
	}
}

// TestOwnedLimit: who signs in again and again signs out nobody else.
func TestOwnedLimit(t *testing.T) {
	w := open(t)
	now := time.Now()
	add := func(i int, owner string) *signed {
		s := &signed{key: key{byte(i), byte(i >> 8)}, viewer: &fake{}, owner: owner, until: now.Add(time.Hour + time.Duration(i)), gone: make(chan struct{})}
		if !w.h.add(s, now) {
			t.Fatal("it was not added")
		}
		return s
	}
	other := add(0, "other")
	var own []*signed
	for i := range maxSigned + 1 {
		own = append(own, add(i+1, "own"))
	}
	last := len(own) - 1
	if other.over(now) || own[last].over(now) || own[last-maxOwned+1].over(now) || !own[last-maxOwned].over(now) || len(w.h.signed) != maxOwned+1 {
		t.Errorf("%d are signed in; the other is out: %v", len(w.h.signed), other.over(now))
	}
	// The browser's own way in counts, too.
	for range 2 * maxOwned {
		w.signIn(t, token)
	}
	w.h.mu.Lock()
	defer w.h.mu.Unlock()
	if n := len(w.h.signed); n != 2*maxOwned+1 {
		t.Errorf("%d are signed in, want %d", n, 2*maxOwned+1)
	}
}

func TestMany(t *testing.T) {
	w := open(t)
	w.agents = nil
	for i := range maxShown + 20 {
		w.agents = append(w.agents, presence.Agent{ID: fmt.Sprintf("acme/%04d", i)})
	}
	cookie, _ := w.signIn(t, token)
	_, body := w.ask(t, "GET", "/sessions", "", cookie)
	// Two are there that have a client and no agent.
	if n := strings.Count(body, `<li class="agent`); n != maxShown || !strings.Contains(body, "and 22 more") || !strings.Contains(body, "<b>520</b> agents") {
		t.Errorf("%d rows", n)
	}
	if _, body := w.ask(t, "GET", "/sessions?q=0519", "", cookie); !strings.Contains(body, "acme/0519") || strings.Contains(body, "acme/0518") {
		t.Error("what is not shown is not found")
	}
	if _, body := w.ask(t, "GET", "/sessions?q=%3Cscript%3E", "", cookie); strings.Contains(body, "<script>") || !strings.Contains(body, "No agent that you may see has an id with") {
		t.Error("the filter is not escaped")
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1 << 10: "1 KiB", 3 << 19: "1.5 MiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	if got := clip(strings.Repeat("é", 100)); len(got) > 125 || !strings.HasSuffix(got, "…") {
		t.Errorf("clipped to %q", got)
	}
}
