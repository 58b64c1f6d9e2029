// Package debug is the server's second listener, for those who run it: figures
// for Prometheus, the status, and the profiles of the Go runtime. Profiles show
// what is in memory, so nobody else is to reach it. It knows what is counted by
// name only.
package debug

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// CheckAddress refuses an address that others than this machine reach, unless
// public says so openly.
func CheckAddress(address string, public bool) error {
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil || port == "":
		return fmt.Errorf("the address %q of --debug-listen is not HOST:PORT, such as 127.0.0.1:6060", address)
	case local(host) || public:
		return nil
	}
	return fmt.Errorf("the address %q of --debug-listen is not this machine's own: profiles show what is in memory: give 127.0.0.1:PORT, or say --debug-public as well", address)
}

// local reports whether a host is this machine and nobody else's.
func local(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// Server serves /metrics, /status and /debug/pprof/.
type Server struct {
	http   *http.Server
	public bool
}

// New makes a Server. With public, others than this machine may ask it, but for
// the status, which names ids. A nil status is none.
func New(m *Meter, status func() Status, public bool, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	if status != nil {
		mux.HandleFunc("GET "+StatusPath, serveStatus(status))
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound) // it may hold a secret
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	s := &Server{public: public}
	s.http = &http.Server{
		Handler:           s.guard(mux),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      5 * time.Minute, // a profile takes as long as it was asked to
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// guard keeps web pages from reading this through a browser on the machine: a
// name of theirs may point to it. With public any name will do, but for the
// status, which looks for itself.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		if !s.public && !askedLocally(r) {
			http.Error(w, "ask by the address, such as 127.0.0.1", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// askedLocally reports whether the request names this machine by one of its own
// addresses or as localhost, which no name on the network can be.
func askedLocally(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	return local(host)
}

// Serve answers until Shutdown; it then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot go on serving figures: %w", err)
	}
	return nil
}

// Shutdown ends it, with what is under way.
func (s *Server) Shutdown(context.Context) error { return s.http.Close() }
