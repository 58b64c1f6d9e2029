// Package front is the server's front door: it listens, checks every path and
// Origin before anybody else sees the request, turns newcomers away when
// descriptors run out, and hands the rest to the rendezvous or to the pages.
// It knows neither what a page shows nor what a connection carries.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"example.com/converge/pkg/rendezvous"
)

// Limits of a request.
const (
	headerWait = 10 * time.Second
	turnWait   = 5 * time.Second
	idleWait   = 60 * time.Second
	// answerWait bounds a page or download: 8 MiB at 14 KiB/s.
	answerWait = 10 * time.Minute
	maxHeader  = 16 << 10 // bytes; net/http adds 4 KiB of its own
)

const (
	fullText = "the server has no room for more connections: try again in a moment"
	endText  = "the server is ending: try again in a moment"
	pathText = "the path has an empty, dot or encoded segment: use the URL as it was printed"
)

// Endpoints are the three websocket endpoints.
type Endpoints interface {
	ServeAgent(w http.ResponseWriter, r *http.Request, id string)
	ServeClient(w http.ResponseWriter, r *http.Request, id string)
	ServeData(w http.ResponseWriter, r *http.Request)
}

// Config is what a Front needs.
type Config struct {
	Endpoints Endpoints
	// Sessions serves /sessions and what is below it; nil leaves it to Pages.
	Sessions http.Handler
	// Pages serves everything that is no endpoint.
	Pages http.Handler
	// HostOf returns the host by which a requester addresses this server, for
	// the Origin check.
	HostOf func(*http.Request) string
	// Origins are those of other sites' pages that may connect all the same, as
	// ParseOrigins returns them.
	Origins []string
	// Prefix is the path of the public URL, empty or /a/b; requests may come
	// with or without it, as the proxy in front does it.
	Prefix string
	// Budget may be nil: no limit.
	Budget *Budget
	// TLS is nil for plain HTTP.
	TLS *tls.Config
	// HeaderWait bounds the sending of a request's header; 0 is 10 s.
	HeaderWait time.Duration
	// TurnWait bounds the whole life of a connection that comes when there is
	// no room for it; 0 is 5 s.
	TurnWait time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

// Front is the HTTP server.
type Front struct {
	cfg   Config
	http  *http.Server
	ready atomic.Bool
}

// New makes a Front.
func New(cfg Config) *Front {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(0)
	}
	if cfg.HeaderWait == 0 {
		cfg.HeaderWait = headerWait
	}
	if cfg.TurnWait == 0 {
		cfg.TurnWait = turnWait
	}
	f := &Front{cfg: cfg}
	f.http = &http.Server{
		Handler:           f,
		ReadHeaderTimeout: cfg.HeaderWait,
		ReadTimeout:       cfg.HeaderWait + 20*time.Second,
		WriteTimeout:      answerWait,
		IdleTimeout:       idleWait,
		MaxHeaderBytes:    maxHeader,
		ConnState:         cfg.Budget.connState,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
		// RFC 6455 upgrades HTTP/1.1; with HTTP/2 a client would have to know
		// RFC 8441.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig:    cfg.TLS,
	}
	f.ready.Store(true)
	return f
}

// Serve answers requests until Shutdown; it then returns nil.
func (f *Front) Serve(l net.Listener) error {
	l = newListener(l, f.cfg.Budget, f.cfg.TurnWait)
	var err error
	if f.cfg.TLS != nil {
		err = f.http.ServeTLS(l, "", "")
	} else {
		err = f.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("cannot go on serving: %w", err)
}

// Drain says not ready from now on, and refuses agents and clients that come.
// It goes on listening, so that a load balancer sees it, and serves all else:
// connections that agents dial back belong to those who are in.
func (f *Front) Drain() { f.ready.Store(false) }

// Ready reports whether newcomers may come.
func (f *Front) Ready() bool { return f.ready.Load() }

// Shutdown does what Drain does, stops listening and waits for requests under way.
// Websockets are not its business.
func (f *Front) Shutdown(ctx context.Context) error {
	f.Drain()
	if err := f.http.Shutdown(ctx); err != nil {
		_ = f.http.Close()
		return fmt.Errorf("not all requests ended in time: %w", err)
	}
	return nil
}

// ServeHTTP routes on the escaped path as it was sent: nothing is cleaned, so
// nothing can mean two things, and nothing is redirected, because websocket
// clients and curl do not follow.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	secure(w.Header())
	path := r.URL.EscapedPath()
	turned := r.Context().Value(turnedKey{}) != nil
	if turned {
		w.Header().Set("Connection", "close")
	}
	if !plain(path) {
		refuse(w, http.StatusBadRequest, pathText)
		return
	}
	if f.cfg.Prefix != "" {
		if rest, ok := strings.CutPrefix(path, f.cfg.Prefix); ok && (rest == "" || rest[0] == '/') {
			path = "/" + strings.TrimPrefix(rest, "/")
			r = withPath(r, path)
		}
	}
	switch {
	case path == "/healthz": // a server that is full is alive
		text(w, "ok")
	case turned:
		refuseFull(w)
	case path == "/readyz":
		if !f.ready.Load() {
			refuseEnding(w)
			return
		}
		text(w, "ready")
	case path == rendezvous.DataPath:
		f.endpoint(w, r, "", func(w http.ResponseWriter, r *http.Request, _ string) {
			f.cfg.Endpoints.ServeData(w, r)
		})
	case path == "/agent" || path == "/client":
		refuse(w, http.StatusBadRequest, "the path has no id: it must be "+path+"/ID")
	case strings.HasPrefix(path, rendezvous.AgentPath):
		f.withID(w, r, path[len(rendezvous.AgentPath):], f.cfg.Endpoints.ServeAgent)
	case strings.HasPrefix(path, rendezvous.ClientPath):
		f.withID(w, r, path[len(rendezvous.ClientPath):], f.cfg.Endpoints.ServeClient)
	case f.cfg.Sessions != nil && (path == "/sessions" || strings.HasPrefix(path, "/sessions/")):
		f.cfg.Sessions.ServeHTTP(w, r)
	default:
		f.cfg.Pages.ServeHTTP(w, r)
	}
}

// plain reports whether a path means what it says: no empty, dot or
// encoded-slash segments, and nothing that would end it.
func plain(path string) bool {
	if path == "" || path[0] != '/' {
		return path == "*" // OPTIONS *; the pages refuse the method
	}
	lower := strings.ToLower(path)
	if strings.Contains(lower, "//") || strings.Contains(lower, "%2f") ||
		strings.Contains(lower, "%5c") || strings.Contains(lower, "%00") || strings.ContainsAny(lower, "\\?#") {
		return false
	}
	for part := range strings.SplitSeq(lower, "/") {
		if dots := strings.ReplaceAll(part, "%2e", "."); dots == "." || dots == ".." {
			return false
		}
	}
	return true
}

// withPath returns the request with another path.
func withPath(r *http.Request, path string) *http.Request {
	out := *r
	u := *r.URL
	unescaped, err := url.PathUnescape(path)
	if err != nil {
		unescaped = path
	}
	u.Path, u.RawPath = unescaped, path
	out.URL = &u
	return &out
}

type withID func(w http.ResponseWriter, r *http.Request, id string)

func (f *Front) withID(w http.ResponseWriter, r *http.Request, id string, serve withID) {
	if err := rendezvous.ValidID(id); err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	f.endpoint(w, r, id, serve)
}

func (f *Front) endpoint(w http.ResponseWriter, r *http.Request, id string, serve withID) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		refuse(w, http.StatusMethodNotAllowed, "a websocket is opened with GET")
		return
	}
	if origin := r.Header.Get("Origin"); origin != "" && !f.sameOrigin(r, origin) {
		refuse(w, http.StatusForbidden, "pages of other sites may not connect here")
		return
	}
	// A dial-back completes a session that has been let in.
	if r.URL.Path != rendezvous.DataPath {
		if !f.ready.Load() {
			refuseEnding(w)
			return
		}
		if f.cfg.Budget.spent() {
			refuseFull(w)
			return
		}
	}
	serve(w, r, id)
}

// sameOrigin keeps pages of other sites from using a visitor's browser to
// reach an agent (RFC 6455, section 10.2). Programs send no Origin.
func (f *Front) sameOrigin(r *http.Request, origin string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	if slices.Contains(f.cfg.Origins, strings.ToLower(origin)) {
		return true
	}
	host := r.Host
	if f.cfg.HostOf != nil {
		host = f.cfg.HostOf(r)
	}
	return strings.EqualFold(u.Host, host)
}

func refuseFull(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, fullText)
}

// refuseEnding says to ask again soon, over another connection: whoever
// answers there may stay.
func refuseEnding(w http.ResponseWriter) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Retry-After", "1")
	refuse(w, http.StatusServiceUnavailable, endText)
}

func refuse(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, sentence, status)
}

func text(w http.ResponseWriter, s string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintln(w, s)
}
