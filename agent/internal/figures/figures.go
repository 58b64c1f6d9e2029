// Package figures shows numbers to Prometheus, in its text format, to programs of
// this machine alone. It does without Prometheus' library, since the agent is
// copied into containers and is to be small, and knows nothing of what the numbers
// count.
package figures

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"example.com/converge/pkg/cmdline"
)

// Figure is one number. Value may be called concurrently.
type Figure struct {
	// Name is Prometheus', Help says in a line what it is.
	Name, Help string
	// Gauge can go down; anything else is a counter.
	Gauge bool
	Value func() int64
}

// CheckAddress refuses what is not HOST:PORT of this machine's own.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return fmt.Errorf("the address %q is not HOST:PORT, such as 127.0.0.1:9100", address)
	}
	if !local(host) {
		return fmt.Errorf("the address %q is not this machine's own: give 127.0.0.1:PORT", address)
	}
	return nil
}

func local(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// Server answers at /metrics.
type Server struct {
	// Address is where it listens.
	Address string

	http http.Server
	done sync.WaitGroup
}

// Listen begins to answer, until Close. The logger may be nil.
func Listen(ctx context.Context, address string, all []Figure, log *slog.Logger) (*Server, error) {
	if err := CheckAddress(address); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, cmdline.ListenError(address, "choose another one", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { show(w, r, all) })
	s := &Server{Address: l.Addr().String()}
	s.http = http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	s.done.Go(func() {
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("figures are shown no more", "err", err)
		}
	})
	return s, nil
}

// Close ends it, with what is under way.
func (s *Server) Close() error {
	err := s.http.Close()
	s.done.Wait()
	return err
}

// show writes Prometheus' text format, version 0.0.4.
func show(w http.ResponseWriter, r *http.Request, all []Figure) {
	// A web page could give a name of its own to this machine's address.
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if !local(host) {
		http.Error(w, "ask by the address, such as 127.0.0.1", http.StatusForbidden)
		return
	}
	var text bytes.Buffer
	for _, f := range all {
		kind := "counter"
		if f.Gauge {
			kind = "gauge"
		}
		fmt.Fprintf(&text, "# HELP %s %s\n# TYPE %[1]s %[3]s\n%[1]s %[4]d\n", f.Name, f.Help, kind, f.Value())
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text.Bytes()) // who went away does not want it
}
