package web

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/dispatch/internal/signin"
	"example.com/converge/dispatch/internal/signintest"
	"example.com/converge/pkg/forge"
	"example.com/converge/pkg/watchtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sha    = "0123456789abcdef0123456789abcdef01234567"
	id     = "builder/dispatch-1678866433-15aad86a"
	secret = "builder/dispatch-1678866500-5ec5ec5e"
	waits  = "wait-0badcafe"
)

// core is all that the pages ask.
type core struct {
	mu      sync.Mutex
	changed chan struct{} // closed and made anew at every change
	builds  []build.Build
	logs    map[string][]byte
	ended   map[string]bool
	alias   map[string]string
	repos   map[string]*repos.Repo
	away    bool
	gone    bool
	did     []string
	opened  int // logs that are open
}

func (c *core) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *core) List(_ context.Context, limit int) ([]build.Build, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return nil, build.ErrAway
	}
	all := append([]build.Build(nil), c.builds...)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

func (c *core) Get(_ context.Context, id string) (build.Build, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.away {
		return build.Build{}, build.ErrAway
	}
	if other, ok := c.alias[id]; ok {
		id = other
	}
	for _, b := range c.builds {
		if b.ID == id {
			return b, nil
		}
	}
	return build.Build{}, build.ErrUnknown
}

func (c *core) Subscribe(ctx context.Context, id string) <-chan build.Build {
	out := make(chan build.Build)
	go func() { // it ends with ctx, which the page ends; goleak sees
		defer close(out)
		for {
			c.mu.Lock()
			changed := c.changed
			c.mu.Unlock()
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
			b, _ := c.Get(ctx, id)
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// reader reads a log of the core's.
type reader struct {
	c      *core
	ctx    context.Context
	key    string
	at     int64
	first  int64
	follow bool
	closed chan struct{}
}

func (c *core) Open(ctx context.Context, id string, log build.Stream, offset int64, follow bool) (build.Log, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.away:
		return nil, build.ErrAway
	case c.gone:
		return nil, build.ErrGone
	}
	key := id + " " + string(log)
	if offset < 0 {
		offset = max(0, int64(len(c.logs[key]))+offset)
	}
	c.opened++
	return &reader{c: c, ctx: ctx, key: key, at: offset, first: offset, follow: follow, closed: make(chan struct{})}, nil
}

func (r *reader) Offset() int64 { return r.first }

func (r *reader) Read(p []byte) (int, error) {
	for {
		r.c.mu.Lock()
		text, over, changed := r.c.logs[r.key], r.c.ended[r.key] || !r.follow, r.c.changed
		r.c.mu.Unlock()
		if r.at < int64(len(text)) {
			n := copy(p, text[r.at:])
			r.at += int64(n)
			return n, nil
		}
		if over {
			return 0, io.EOF
		}
		select {
		case <-changed:
		case <-r.ctx.Done():
			return 0, r.ctx.Err()
		case <-r.closed:
			return 0, errors.New("closed")
		}
	}
}

func (r *reader) Close() error {
	close(r.closed)
	r.c.mu.Lock()
	r.c.opened--
	r.c.mu.Unlock()
	return nil
}

func (c *core) act(what string, who build.Who, id string) error {
	if trusted, _ := c.Trusted(context.Background(), "", who); !trusted {
		return build.ErrRefused
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, what+" "+id+" by "+who.Login)
	return nil
}

func (c *core) Cancel(_ context.Context, who build.Who, id string) error {
	return c.act("cancel", who, id)
}

func (c *core) Rerun(_ context.Context, who build.Who, id string) (string, error) {
	return "builder/dispatch-2", c.act("rerun", who, id)
}

func (c *core) Approve(_ context.Context, who build.Who, id string) (string, error) {
	if id != waits {
		return "", build.ErrState
	}
	return "builder/dispatch-3", c.act("approve", who, id)
}

func (c *core) Report(_ context.Context, id, token string, r build.Report) error {
	switch {
	case id != "builder/dispatch-1678866433-15aad86a":
		return build.ErrUnknown
	case token != "one-time":
		return build.ErrToken
	case r.State == build.ReportClosed:
		return build.ErrState
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.did = append(c.did, "report "+r.State+" "+r.Line)
	return nil
}

func (c *core) HookToken(_ context.Context, repo, token string) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.repos[repo].TokenIs(token), nil
}

func (c *core) Trusted(_ context.Context, _ string, who build.Who) (bool, error) {
	return who.Login == "octo" || who.Local, nil
}

// source is the repositories' configuration.
type source struct{ *core }

func (s source) Get(_ context.Context, url string) (*repos.Repo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if repo := s.repos[url]; repo != nil {
		return repo, nil
	}
	return nil, repos.ErrUnknown
}

func (source) Check(context.Context) error { return nil }
func (source) Name() string                { return "a test" }

// world is the pages, with a forge to sign in at.
type world struct {
	*httptest.Server
	*core
	t     *testing.T
	web   *Web
	forge *signintest.Forge
	app   string // clone URLs
	other string
	log   watchtest.Output
}

// open starts it. public is the setting; people can sign in unless strangers is
// set.
func open(t *testing.T, public, strangers bool) *world {
	t.Helper()
	w := &world{t: t, forge: signintest.New(t)}
	w.app, w.other = w.forge.URL+"/acme/app.git", w.forge.URL+"/acme/secret.git"
	w.forge.Do(func() { w.forge.Readable["octo acme/app"], w.forge.Readable["guest acme/app"] = true, true })
	began := time.Now().Add(-90 * time.Second)
	w.core = &core{
		changed: make(chan struct{}), logs: map[string][]byte{}, ended: map[string]bool{}, alias: map[string]string{},
		repos: map[string]*repos.Repo{
			w.app:   {URL: w.app, HookToken: "h00k", Forge: repos.Forge{Kind: forge.Gitea, URL: w.forge.URL}},
			w.other: {URL: w.other, HookToken: "0ther", Forge: repos.Forge{Kind: forge.Gitea, URL: w.forge.URL}},
		},
		builds: []build.Build{
			{
				ID: id, Repo: w.app, Origin: w.app, Commit: sha, Branch: "main", Flavor: "default", Job: "builder", Sender: "octo", Kind: build.Push, Trusted: true,
				State: build.Running, Exit: -1, Created: began, Started: began.Add(time.Second), Allocation: "a110c",
			},
			{
				ID: waits, Repo: w.app, Origin: "https://user:pass@fork.example/eve/app.git", Commit: sha, Branch: "<script>alert(1)</script>", Flavor: "default", Job: "builder",
				Sender: "eve\x1b[2J", Kind: build.PullRequest, Pull: 12, State: build.Waiting, Exit: -1, Created: began,
			},
			{
				ID: secret, Repo: w.other, Origin: w.other, Commit: strings.Repeat("f", 40), Branch: "hush", Flavor: "default", Job: "builder", Sender: "boss", Kind: build.Manual,
				State: build.Failure, Reason: "exit 3", Exit: 3, Created: began, Started: began, Ended: began.Add(75 * time.Second),
			},
		},
	}
	mux := http.NewServeMux()
	w.Server = httptest.NewServer(mux)
	t.Cleanup(w.Server.Close)
	base, err := url.Parse(w.URL + "/ci")
	if err != nil {
		t.Fatal(err)
	}
	set := &settings.Settings{PublicURL: base, PublicLogs: public, StateDir: t.TempDir()}
	if !strangers {
		set.SignIn = settings.SignIn{Kind: signin.Gitea, Issuer: w.forge.URL, ClientID: signintest.ClientID, ClientSecret: signintest.ClientSecret}
	}
	w.web, err = New(Options{
		Settings: set, Store: w.core, Logs: w.core, Actions: w.core, Debug: w.core, Guard: w.core, Repos: source{w.core},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.web.tick = time.Millisecond
	mux.Handle("/ci/", w.web)
	mux.Handle("/taken/away/", http.StripPrefix("/taken/away", w.web)) // as by a proxy
	t.Cleanup(w.web.Close)
	return w
}

// write adds to a log.
func (w *world) write(id string, log build.Stream, text string) {
	w.change(func() { key := id + " " + string(log); w.logs[key] = append(w.logs[key], text...) })
}

// finish ends a build and its logs.
func (w *world) finish(state build.State, reason string) {
	w.change(func() {
		for i := range w.builds {
			if w.builds[i].ID == id {
				w.builds[i].State, w.builds[i].Reason, w.builds[i].Ended = state, reason, time.Now()
			}
		}
		w.ended[id+" stdout"], w.ended[id+" stderr"] = true, true
	})
}

// browser is one that takes cookies and follows no redirect but those of signing
// in.
func (w *world) browser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if strings.Contains(r.URL.Path, "oauth") || strings.Contains(r.URL.Path, "callback") {
			return nil
		}
		return http.ErrUseLastResponse
	}}
}

// signedIn is a browser of somebody.
func (w *world) signedIn(user string) *http.Client {
	w.t.Helper()
	w.forge.Do(func() { w.forge.User = user })
	c := w.browser()
	resp, _ := w.ask(c, "GET", "/signin?back=/build", "")
	if resp.StatusCode != http.StatusSeeOther || resp.Header.Get("Location") != "/ci/build" {
		w.t.Fatalf("signing in: %s, to %s", resp.Status, resp.Header.Get("Location"))
	}
	return c
}

// ask makes a request below /ci, as a browser does; header is name: value.
func (w *world) ask(c *http.Client, method, path, form string, header ...string) (*http.Response, string) {
	w.t.Helper()
	resp := w.begin(c, method, path, form, header...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, string(text)
}

func (w *world) begin(c *http.Client, method, path, form string, header ...string) *http.Response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.URL+"/ci"+path, strings.NewReader(form))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	if form != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, line := range header {
		name, value, ok := strings.Cut(line, ": ")
		if !ok {
			continue
		}
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp
}

// event is one of a page that follows.
type event struct{ name, id, data string }

// events reads them; the test's end, or the function, ends it.
func (w *world) events(c *http.Client, path string, header ...string) (<-chan event, func()) {
	w.t.Helper()
	resp := w.begin(c, "GET", path, "", append(header, "Accept: text/event-stream")...)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("%s: %s", path, resp.Status)
	}
	out := make(chan event)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		defer close(out)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 16<<20)
		var e event
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "event":
				e.name = value
			case "id":
				e.id = value
			case "data":
				e.data += value + "\n"
			case "":
				if lines.Text() != "" || e == (event{}) {
					continue
				}
				select {
				case out <- e:
				case <-stop:
					return
				}
				e = event{}
			}
		}
	})
	end := sync.OnceFunc(func() { close(stop); resp.Body.Close(); reading.Wait() })
	w.t.Cleanup(end)
	return out, end
}

// until waits for an event with a name that has all the words in it.
func until(t *testing.T, events <-chan event, name string, words ...string) event {
	t.Helper()
	limit := time.After(time.Minute)
next:
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("the page was told no %s with %q", name, words)
			}
			if e.name != name {
				continue
			}
			for _, word := range words {
				if !strings.Contains(e.data, word) {
					continue next
				}
			}
			return e
		case <-limit:
			t.Fatalf("there was no %s with %q", name, words)
		}
	}
}
