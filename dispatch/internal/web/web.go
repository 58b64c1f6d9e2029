// Package web is what people see of dispatch: the list of the builds, the page of
// one with both logs as they grow, its actions, and the logs as plain text for
// scripts. It also takes what builders report of their debug sessions. It asks
// others what builds there are, who may act, and where logs are; it knows neither
// Nomad nor how a build comes about.
//
// Every page works without scripts; with them it follows by server-sent events.
// What a build wrote, and what strangers named, is shown as text and never as
// markup, and nothing is run that does not come from this program.
package web

import (
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"example.com/converge/dispatch/internal/ansi"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/dispatch/internal/signin"
)

//go:embed assets
var embedded embed.FS

// Limits of the pages.
const (
	// maxShown is how many builds the list shows, of the newest maxSearched, and
	// maxQuery the longest filter, in bytes.
	maxShown, maxSearched, maxQuery = 200, 5000, 200
	// maxID is the longest id of a build, in bytes.
	maxID = 512
	// tail is how much of the end of each log a page shows, in bytes.
	tail = 256 << 10
	// maxLive is how many pages follow at a time, maxPlain how many logs are read as
	// text, maxPages how many pages are made, and maxSending how many are on their
	// way to somebody, who may be slow.
	maxLive, maxPlain, maxPages, maxSending = 256, 256, 16, 256
	// refresh is how often a list is sent anew at most, and quiet how long a page
	// hears nothing at most, for proxies that cut what is idle.
	refresh, quiet = 2 * time.Second, 20 * time.Second
	// liveFor is how long a page has one connection; it comes back by itself.
	liveFor = 9 * time.Minute
	// sendWait bounds a write to a page that follows, pageWait sending a whole page,
	// and plainWait a write to whoever reads a log as text, which may be a pager.
	sendWait, pageWait, plainWait = 10 * time.Second, time.Minute, 5 * time.Minute
	// askFor bounds the questions for one page.
	askFor = 20 * time.Second
	// maxForm and maxReport are the longest bodies, in bytes.
	maxForm, maxReport = 4 << 10, 16 << 10
)

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Options are what a Web needs; all of it but Log.
type Options struct {
	Settings *settings.Settings
	Store    build.Store
	Logs     build.Logs
	Actions  build.Actions
	Debug    build.Debug
	Guard    build.Guard
	Repos    repos.Source
	// Log nil discards.
	Log *slog.Logger
}

// Web serves the pages. Its methods may be called concurrently. Close it.
type Web struct {
	opt    Options
	log    *slog.Logger
	door   *signin.Door // nil where nobody can sign in
	prefix string       // the path of the public URL
	cross  *http.CrossOriginProtection
	pages  *template.Template
	assets map[string]asset
	places *places
	now    func() time.Time
	tick   time.Duration // refresh
	quiet  time.Duration

	making  chan struct{} // pages that are being made
	sending chan struct{} // pages that are being sent
	plain   chan struct{} // logs that are being read as text
	done    chan struct{} // closed by Close

	mu     sync.Mutex
	closed bool
	live   int
	ends   sync.WaitGroup // of requests that last
}

type asset struct{ kind, text, tag string }

// New makes a Web. The error says which setting of signing in is wrong.
func New(opt Options) (*Web, error) {
	w := &Web{
		opt: opt, log: opt.Log, assets: map[string]asset{}, places: newPlaces(), now: time.Now, tick: refresh, quiet: quiet,
		making: make(chan struct{}, maxPages), sending: make(chan struct{}, maxSending), plain: make(chan struct{}, maxPlain), done: make(chan struct{}),
		cross: http.NewCrossOriginProtection(),
	}
	if w.log == nil {
		w.log = slog.New(slog.DiscardHandler)
	}
	if public := opt.Settings.PublicURL; public != nil {
		w.prefix = strings.TrimRight(public.EscapedPath(), "/")
		if err := w.cross.AddTrustedOrigin(public.Scheme + "://" + public.Host); err != nil {
			return nil, fmt.Errorf("the public URL cannot be used: %w", err)
		}
	}
	var err error
	if w.pages, err = template.New("").ParseFS(embedded, "assets/*.html"); err != nil {
		return nil, fmt.Errorf("cannot read the pages: %w", err)
	}
	for name, kind := range map[string]string{
		"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
		"live.js": "text/javascript; charset=utf-8", "build.js": "text/javascript; charset=utf-8", "builds.js": "text/javascript; charset=utf-8",
	} {
		text, err := embedded.ReadFile("assets/" + name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the pages: %w", err)
		}
		if name == "style.css" {
			text = append(text, ansi.Sheet(".log")...)
		}
		sum := sha256.Sum256(text)
		w.assets["/assets/"+name] = asset{kind, string(text), `"` + hex.EncodeToString(sum[:]) + `"`}
	}
	if in := opt.Settings.SignIn; in.Enabled() {
		keyFile := ""
		if dir := opt.Settings.StateDir; dir != "" {
			keyFile = filepath.Join(dir, "cookie-key")
		}
		w.door, err = signin.New(signin.Options{
			Kind: in.Kind, Issuer: in.Issuer, ClientID: in.ClientID, ClientSecret: in.ClientSecret,
			PublicURL: opt.Settings.PublicURL, KeyFile: keyFile, Log: w.log,
		})
		if err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Close ends what lasts, and waits for it.
func (w *Web) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.done)
	}
	w.mu.Unlock()
	w.ends.Wait()
	if w.door != nil {
		w.door.Close()
	}
}

// Live returns how many pages follow.
func (w *Web) Live() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live
}

// actions are what follows the id of a build in a path.
var actions = []string{"events", "cancel", "rerun", "approve", "debug"}

// route takes /builds/ID/ACTION apart. An id has a slash in it, which may be
// written as it is.
func route(path string) (id, action string) {
	rest, ok := strings.CutPrefix(path, "/builds/")
	if !ok {
		return "", ""
	}
	for _, action := range actions {
		if id, ok := strings.CutSuffix(rest, "/"+action); ok {
			return id, action
		}
	}
	return rest, ""
}

// ServeHTTP answers. The path may begin with that of the public URL, which a proxy
// in front takes away or leaves.
func (w *Web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if w.prefix != "" && strings.HasPrefix(r.URL.EscapedPath(), w.prefix+"/") {
		http.StripPrefix(w.opt.Settings.PublicURL.Path, http.HandlerFunc(w.serve)).ServeHTTP(rw, r)
		return
	}
	w.serve(rw, r)
}

func (w *Web) serve(rw http.ResponseWriter, r *http.Request) {
	header := rw.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept, Authorization, Cookie")
	path, method := r.URL.Path, http.MethodGet
	var serve http.HandlerFunc
	a, isAsset := w.assets[path]
	id, action := route(path)
	switch {
	case isAsset:
		serve = func(rw http.ResponseWriter, r *http.Request) { serveAsset(rw, r, a) }
	case path == "/":
		serve = func(rw http.ResponseWriter, _ *http.Request) { w.redirect(rw, "/builds") }
	case path == "/builds":
		serve = w.list
	case path == "/builds/events":
		serve = w.listEvents
	case path == "/build":
		serve = w.build
	case path == "/signin" && w.door != nil:
		serve = w.signIn
	case path == signin.CallbackPath && w.door != nil:
		serve = w.signedIn
	case path == "/signout" && w.door != nil:
		method, serve = http.MethodPost, w.signOut
	case id == "":
	case action == "":
		serve = func(rw http.ResponseWriter, _ *http.Request) { w.redirect(rw, page(id)) }
	case action == "events":
		serve = func(rw http.ResponseWriter, r *http.Request) { w.events(rw, r, id) }
	case action == "debug":
		method, serve = http.MethodPost, func(rw http.ResponseWriter, r *http.Request) { w.report(rw, r, id) }
	default:
		method, serve = http.MethodPost, func(rw http.ResponseWriter, r *http.Request) { w.act(rw, r, id, action) }
	}
	switch {
	case serve == nil:
		w.message(rw, r, http.StatusNotFound, "There is nothing at this address.")
	case r.Method != method && !(method == http.MethodGet && r.Method == http.MethodHead):
		header.Set("Allow", strings.Replace(method, "GET", "GET, HEAD", 1))
		http.Error(rw, "use "+method+" here", http.StatusMethodNotAllowed)
	default:
		serve(rw, r)
	}
}

// page is the address of a build's page, without the prefix.
func page(id string) string { return "/build?job=" + url.QueryEscape(id) }

// redirect leads to an address of ours. http.Redirect would make it absolute
// without the prefix.
func (w *Web) redirect(rw http.ResponseWriter, to string) {
	rw.Header().Set("Location", w.prefix+to)
	rw.WriteHeader(http.StatusSeeOther)
}

func serveAsset(rw http.ResponseWriter, r *http.Request, a asset) {
	header := rw.Header()
	header.Set("Content-Type", a.kind)
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", a.tag)
	http.ServeContent(rw, r, "", time.Time{}, strings.NewReader(a.text))
}

// enter counts a request in that lasts, unless there are too many of its kind.
func (w *Web) enter() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.live >= maxLive {
		return false
	}
	w.live++
	w.ends.Add(1)
	return true
}

func (w *Web) leave() {
	w.mu.Lock()
	w.live--
	w.mu.Unlock()
	w.ends.Done()
}

// render fills a template and answers with it.
func (w *Web) render(rw http.ResponseWriter, status int, name string, data any) {
	text, err := w.fill(name, data)
	w.send(rw, status, name, text, err)
}

// send answers with a page that was made, or could not be.
func (w *Web) send(rw http.ResponseWriter, status int, name, text string, err error) {
	if err != nil {
		w.log.Error("a page was not served", "page", name, "err", err)
		http.Error(rw, "the page cannot be shown; the log of dispatch says why", http.StatusInternalServerError)
		return
	}
	select {
	case w.sending <- struct{}{}:
		defer func() { <-w.sending }()
	default:
		rw.Header().Set("Retry-After", "5")
		http.Error(rw, "too many pages are being sent: load the page again in a moment", http.StatusServiceUnavailable)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.WriteHeader(status)
	_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(pageWait))
	_, _ = rw.Write([]byte(text)) // to somebody who may have gone
}

func (w *Web) fill(name string, data any) (string, error) {
	var b strings.Builder
	err := w.pages.ExecuteTemplate(&b, name, data)
	return b.String(), err
}

// frame is what every page has.
type frame struct {
	Prefix string
	// Login is who is signed in, CSRF what his forms hold.
	Login, CSRF string
	// SignIn is where to sign in, "" where nobody can; Host is the forge's.
	SignIn, Host string
}

// frame makes it; back is where to come back to after signing in.
func (w *Web) frame(p *signin.Person, back string) frame {
	f := frame{Prefix: w.prefix}
	if w.door != nil {
		f.Host = w.door.Host()
		f.SignIn = w.prefix + "/signin?back=" + url.QueryEscape(back)
	}
	if p != nil {
		f.Login, f.CSRF = p.Login, p.CSRF()
	}
	return f
}

// names are statuses as people understand them.
var names = map[int]string{
	http.StatusUnauthorized: "Not public", http.StatusForbidden: "Not for you", http.StatusNotFound: "Not found", http.StatusConflict: "Too late",
	http.StatusServiceUnavailable: "Not at this moment", http.StatusBadGateway: "Not at this moment", http.StatusInternalServerError: "Something broke",
}

// message answers with a sentence, as a page to a browser and as text to others.
func (w *Web) message(rw http.ResponseWriter, r *http.Request, status int, text string) {
	if status == http.StatusServiceUnavailable {
		rw.Header().Set("Retry-After", "5")
	}
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		http.Error(rw, text, status)
		return
	}
	back := "/builds"
	if r.Method == http.MethodGet && !strings.HasPrefix(r.URL.Path, "/signin") {
		back = r.URL.RequestURI()
	}
	w.render(rw, status, "message.html", struct {
		frame
		Title, Text string
		More        bool // there is a list to go to
	}{w.frame(w.who(r), back), cmp.Or(names[status], http.StatusText(status)), text, status != http.StatusUnauthorized})
}

// fail answers with an error of those whom we ask.
func (w *Web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "It did not work; the log of dispatch says why."
	var refused *signin.Refused
	switch {
	case errors.As(err, &refused):
		status, text = refused.Status, sentence(refused.Error())
		if cause := errors.Unwrap(refused); cause != nil {
			w.log.Warn("somebody could not sign in", "err", cause)
		}
	case errors.Is(err, build.ErrUnknown):
		status, text = http.StatusNotFound, "There is no such build."
	case errors.Is(err, build.ErrGone):
		status, text = http.StatusGone, "The log is gone: Nomad has deleted it."
	case errors.Is(err, build.ErrRefused):
		status, text = http.StatusForbidden, "Only the trusted senders of the repository may do this."
	case errors.Is(err, build.ErrState):
		status, text = http.StatusConflict, "The build's state does not allow this any more."
	case errors.Is(err, build.ErrToken):
		status, text = http.StatusUnauthorized, "The token is wrong, or was used before."
	case errors.Is(err, build.ErrAway), errors.Is(err, repos.ErrAway):
		status, text = http.StatusServiceUnavailable, "It cannot be told at this moment, because something that dispatch asks is away: try again soon."
		w.log.Warn("a page was not served", "path", r.URL.Path, "err", err)
	case r.Context().Err() != nil: // nobody is there any more
		status = http.StatusServiceUnavailable
	default:
		w.log.Error("a page was not served", "path", r.URL.Path, "err", err)
	}
	w.message(rw, r, status, text)
}

// sentence makes one of an error.
func sentence(text string) string {
	if text == "" {
		return text
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}
