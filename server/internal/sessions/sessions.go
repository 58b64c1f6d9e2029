// Package sessions is the page /sessions: who is connected now, for people who
// have a token that says they may look. It asks others who is here and who may
// see it, and knows nothing of connections, nor of what is said on them.
package sessions

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/converge/server/internal/presence"
)

//go:embed assets
var embedded embed.FS

// Limits of the page.
const (
	// maxShown is how many agents a page shows; a filter finds the others.
	maxShown = 500
	// maxSigned is how many browsers may be signed in, and maxOwned how many of
	// them with one credential; the oldest goes, and is of the same one where that
	// has too many.
	maxSigned, maxOwned = 1024, 16
	// signedFor is how long a browser stays signed in, or shorter where the
	// token ends before.
	signedFor = 12 * time.Hour
	// maxLive is how many pages are refreshed live at a time; the others are
	// loaded anew.
	maxLive = 128
	// refresh is how often a live page looks for changes, and quiet how long it
	// says nothing at most, for proxies that cut what is idle.
	refresh, quiet = 2 * time.Second, 20 * time.Second
	// liveFor is how long a live page has one connection; it comes back by
	// itself. sendWait bounds a write to it.
	liveFor, sendWait = 9 * time.Minute, 10 * time.Second
	// maxForm is the longest form, in bytes: a token's length and some more.
	maxForm = 32 << 10
	// maxQuery is the longest filter.
	maxQuery = 128
)

const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Viewer is somebody who may look.
type Viewer interface {
	// Name is the token's, for the page.
	Name() string
	// Owner tells the credential from others.
	Owner() string
	// Sees reports whether the viewer may see an id, now.
	Sees(id string) bool
	// Until is when it ends by itself; the zero time is never.
	Until() time.Time
	// Follow has end called when the viewer may look no more, which may be at
	// once.
	Follow(end func())
	// End is called once, when the viewer has gone.
	End()
}

// Refusal is an error of Config.Look that answers the request.
type Refusal interface {
	error
	Answer(http.ResponseWriter)
}

// Config is what a Handler needs; all of it but the last two.
type Config struct {
	// Present returns who is here, of the ids for which shown returns true.
	Present func(shown func(id string) bool) ([]presence.Agent, []presence.Client)
	// Look asks whether somebody may look who shows a credential as the header
	// Authorization has it; "" for none. The error should be a Refusal.
	Look func(r *http.Request, authorization string) (Viewer, error)
	// SignedIn is told of a browser that has signed in.
	SignedIn func(*http.Request, Viewer)
	// Secure reports whether the requester speaks TLS, with us or with a proxy
	// in front; Host is how it calls the server, and Prefix the path that the
	// server is mounted at.
	Secure       func(*http.Request) bool
	Host, Prefix func(*http.Request) string
	// Version is shown; it may be "".
	Version string
	// Logger may be nil.
	Logger *slog.Logger
}

// Handler serves /sessions and what is below it. Its methods may be called
// concurrently. Close it.
type Handler struct {
	cfg    Config
	log    *slog.Logger
	now    func() time.Time
	tick   time.Duration
	pages  *template.Template
	assets map[string]asset

	done chan struct{} // closed by Close

	mu     sync.Mutex
	closed bool
	signed map[key]*signed
	live   int
	ends   sync.WaitGroup // of live pages
}

type asset struct{ kind, text, tag string }

// New makes a Handler. Its error would be a mistake in this package.
func New(cfg Config) (*Handler, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	h := &Handler{
		cfg: cfg, log: cfg.Logger, now: time.Now, tick: refresh,
		assets: map[string]asset{}, done: make(chan struct{}), signed: map[key]*signed{},
	}
	var err error
	if h.pages, err = template.New("").ParseFS(embedded, "assets/*.html"); err != nil {
		return nil, fmt.Errorf("cannot read the sessions page: %w", err)
	}
	for name, kind := range map[string]string{"style.css": "text/css; charset=utf-8", "live.js": "text/javascript; charset=utf-8"} {
		text, err := embedded.ReadFile("assets/" + name)
		if err != nil {
			return nil, fmt.Errorf("cannot read the sessions page: %w", err)
		}
		sum := sha256.Sum256(text)
		h.assets["/sessions/"+name] = asset{kind, string(text), `"` + hex.EncodeToString(sum[:]) + `"`}
	}
	return h, nil
}

// Close ends the live pages, signs everybody out, and waits for the former.
func (h *Handler) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	var all []*signed
	for _, s := range h.signed {
		all = append(all, s)
	}
	h.mu.Unlock()
	for _, s := range all {
		h.signOut(s)
	}
	h.ends.Wait()
}

// Live returns how many pages are being refreshed.
func (h *Handler) Live() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live
}

// ServeHTTP answers. The path has no prefix.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("Cache-Control", "no-store")
	header.Set("Vary", "Accept, Authorization, Cookie")
	if a, ok := h.assets[r.URL.Path]; ok && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		header.Set("Content-Type", a.kind)
		header.Set("Cache-Control", "no-cache")
		header.Set("ETag", a.tag)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(a.text))
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /sessions", "HEAD /sessions":
		h.show(w, r)
	case "GET /sessions/live":
		h.stream(w, r)
	case "POST /sessions":
		h.signIn(w, r)
	case "POST /sessions/out":
		h.goOut(w, r)
	default:
		if slices.Contains([]string{"/sessions", "/sessions/live", "/sessions/out"}, r.URL.Path) {
			http.Error(w, "the sessions page is read with GET; POST signs in and out", http.StatusMethodNotAllowed)
			return
		}
		http.Error(w, "there is nothing at this address", http.StatusNotFound)
	}
}

// viewer is who asks: by a header, as programs do, or by a browser's cookie.
// done is to be called when the request is over.
func (h *Handler) viewer(r *http.Request) (v Viewer, gone <-chan struct{}, done func(), err error) {
	if authorization := r.Header.Get("Authorization"); authorization != "" {
		v, err := h.cfg.Look(r, authorization)
		if err != nil {
			return nil, nil, nil, err
		}
		s := &signed{viewer: v, gone: make(chan struct{})}
		v.Follow(s.end)
		return v, s.gone, func() { v.End() }, nil
	}
	if s := h.signedIn(r); s != nil {
		return s.viewer, s.gone, func() {}, nil
	}
	return nil, nil, nil, nil
}

// show answers with the page, or as JSON to a program.
func (h *Handler) show(w http.ResponseWriter, r *http.Request) {
	v, _, done, err := h.viewer(r)
	switch {
	case err != nil:
		h.refuse(w, err)
		return
	case v == nil && wantsJSON(r):
		_, err := h.cfg.Look(r, "")
		h.refuse(w, err)
		return
	case v == nil:
		h.door(w, http.StatusUnauthorized, "")
		return
	}
	defer done()
	if wantsJSON(r) {
		h.json(w, v, query(r))
		return
	}
	h.page(w, http.StatusOK, "page.html", h.view(v, query(r)))
}

// refuse answers with an error of Look.
func (h *Handler) refuse(w http.ResponseWriter, err error) {
	if refusal, ok := err.(Refusal); ok {
		refusal.Answer(w)
		return
	}
	h.log.Error("cannot tell who may look at the sessions", "err", err)
	http.Error(w, "it cannot be told whether you may look: try again in a moment", http.StatusServiceUnavailable)
}

// page renders a template.
func (h *Handler) page(w http.ResponseWriter, status int, name string, data any) {
	var b strings.Builder
	if err := h.pages.ExecuteTemplate(&b, name, data); err != nil {
		h.log.Error("sessions page not served", "err", err)
		http.Error(w, "the page cannot be shown; the server's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(b.String())) // to somebody who may have gone
}

// query is the filter: a part of an id.
func query(r *http.Request) string {
	q := strings.TrimSpace(r.URL.Query().Get("q"))
	return q[:min(len(q), maxQuery)]
}

// wantsJSON reports whether a program asks, rather than a browser.
func wantsJSON(r *http.Request) bool {
	accept := r.Header.Get("Accept")
	return !strings.Contains(accept, "text/html") && (strings.Contains(accept, "application/json") || r.Header.Get("Authorization") != "")
}

// sameSite reports whether a form was sent by a page of this server.
func (h *Handler) sameSite(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") { // W3C Fetch Metadata; browsers send it over TLS and to this machine
	case "same-origin", "none":
		return true
	case "":
	default:
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // no browser
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, h.cfg.Host(r))
}
