// Package debug is the server's second listener, for those who run it: figures
// for Prometheus and the profiles of the Go runtime. Profiles show what is in
// memory, so nobody else is to reach it. It knows what is counted by name only.
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

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Meter counts for /metrics. It implements gate.Meter; its methods may be
// called concurrently.
type Meter struct {
	registry *prometheus.Registry
	present  *prometheus.GaugeVec
	joined   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

// NewMeter makes a Meter that also shows the Go runtime's figures.
func NewMeter() *Meter {
	m := &Meter{
		registry: prometheus.NewRegistry(),
		present: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "converge_present", Help: "Agents that are registered, and clients that are connected.",
		}, []string{"role"}),
		joined: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_joined_total", Help: "Agents that have registered, and clients that have been connected.",
		}, []string{"role"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_refused_total", Help: "Agents, clients and dial-backs that did not get through, by reason.",
		}, []string{"role", "reason"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "converge_relayed_bytes_total", Help: "Bytes of the sessions that have ended.",
		}, []string{"to"}),
	}
	m.registry.MustRegister(m.present, m.joined, m.refused, m.bytes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, role := range []string{"agent", "client"} {
		m.present.WithLabelValues(role)
		m.joined.WithLabelValues(role)
		m.bytes.WithLabelValues(role)
	}
	return m
}

// Refused counts somebody who did not get through.
func (m *Meter) Refused(role, reason string) { m.refused.WithLabelValues(role, reason).Inc() }

// Joined counts somebody in.
func (m *Meter) Joined(role string) {
	m.present.WithLabelValues(role).Inc()
	m.joined.WithLabelValues(role).Inc()
}

// Left counts somebody out, with the bytes that were moved.
func (m *Meter) Left(role string, toAgent, toClient int64) {
	m.present.WithLabelValues(role).Dec()
	m.bytes.WithLabelValues("agent").Add(float64(toAgent))
	m.bytes.WithLabelValues("client").Add(float64(toClient))
}

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

// Server serves /metrics and /debug/pprof/.
type Server struct {
	http   *http.Server
	public bool
}

// New makes a Server. With public, others than this machine may ask it.
func New(m *Meter, public bool, log *slog.Logger) *Server {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
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
// name of theirs may point to it.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !s.public && !local(host) {
			http.Error(w, "ask by the address, such as 127.0.0.1", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
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
