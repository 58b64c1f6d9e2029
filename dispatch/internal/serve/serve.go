// Package serve is dispatch as it runs: it joins the rooms, listens, takes a
// changed file of repositories in, and ends in order. It reads no command line.
package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/hook"
	"example.com/converge/dispatch/internal/meter"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/dispatch/internal/web"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/filelock"
)

const (
	// shutdownWait is how long answers have at the end.
	shutdownWait = 10 * time.Second
	// readyWait bounds /readyz.
	readyWait = 5 * time.Second
)

// Options of Run.
type Options struct {
	Settings *settings.Settings
	Nomad    *nomad.Client
	Repos    repos.Source
	// Reread reads the repositories again; nil where they are in Consul. Reload
	// gets an element when it is to be done.
	Reread func() error
	Reload <-chan os.Signal
	// Listening, if not nil, is told the address that is listened on.
	Listening func(address string)
	// ShutdownWait is how long answers have at the end; 0 is ten seconds.
	ShutdownWait time.Duration
	Log          *slog.Logger
}

// program is one run.
type program struct {
	o      Options
	log    *slog.Logger
	meter  *meter.Meter
	engine *engine.Engine
	hook   *hook.Hook
	web    *web.Web
}

// Run serves until ctx ends; then what is being answered is finished, and what is
// not done stays in the outbox. The error is of a start that failed, or of a
// listener.
func Run(ctx context.Context, o Options) (err error) {
	if o.ShutdownWait == 0 {
		o.ShutdownWait = shutdownWait
	}
	s := o.Settings
	lock, err := filelock.Try(filepath.Join(s.StateDir, "lock"))
	if errors.Is(err, filelock.ErrLocked) {
		return fmt.Errorf("another dispatch uses %s: give this one another --state-dir", s.StateDir)
	}
	if err != nil {
		return fmt.Errorf("cannot use the folder of --state-dir: %w", err)
	}
	defer lock.Close()
	p := &program{o: o, log: o.Log, meter: meter.New()}
	if p.engine, err = engine.New(engine.Options{
		Settings: s, Nomad: o.Nomad, Repos: o.Repos, Meter: p.meter, Log: o.Log, Back: func() { p.hook.Retry() },
	}); err != nil {
		return err
	}
	defer p.engine.Close()
	if p.hook, err = hook.New(hook.Options{
		Repos: o.Repos, Launcher: p.engine, Dir: filepath.Join(s.StateDir, "outbox"), Count: p.meter.Webhook, Log: o.Log,
	}); err != nil {
		return err
	}
	if p.web, err = web.New(web.Options{
		Settings: s, Store: p.engine, Logs: p.engine, Actions: p.engine, Debug: p.engine, Guard: p.engine, Repos: o.Repos, Log: o.Log,
	}); err != nil {
		return err
	}
	defer p.web.Close()
	defer p.hook.Close()
	p.meter.Watch(meter.Gauges{
		Live: p.engine.Live, Statuses: p.engine.Waiting, Deliveries: p.hook.Kept, Followed: func() bool { return p.engine.Ready() == nil },
	})
	listener, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return cmdline.ListenError(s.Listen, "choose another with --listen", err)
	}
	var figures net.Listener
	if s.MetricsListen != "" {
		if figures, err = net.Listen("tcp", s.MetricsListen); err != nil {
			_ = listener.Close()
			return cmdline.ListenError(s.MetricsListen, "choose another with --metrics-listen", err)
		}
	}
	o.Log.Info("serving", "address", listener.Addr().String(), "url", s.PublicURL.String(), "nomad", o.Nomad.Name(), "repositories", o.Repos.Name(),
		"jobs", p.engine.Jobs(), "state", s.StateDir, "metrics", addressOf(figures), "version", cmdline.Version())
	switch {
	case s.PublicLogs && !s.SignIn.Enabled():
		o.Log.Warn("logs and debug lines are shown to everybody, since nobody can sign in: give --sign-in, or --public-logs=false")
	case s.PublicLogs:
		o.Log.Warn("logs and debug lines are shown to everybody")
	}
	if o.Listening != nil {
		o.Listening(listener.Addr().String())
	}
	return p.serve(ctx, listener, figures)
}

func addressOf(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func (p *program) serve(ctx context.Context, listener, figures net.Listener) error {
	servers := map[*http.Server]net.Listener{p.server(p.handler()): listener}
	if figures != nil {
		servers[p.server(p.figures())] = figures
	}
	group, running := errgroup.WithContext(ctx)
	for server, on := range servers {
		group.Go(func() error {
			if err := server.Serve(on); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("cannot serve any more: %w", err)
			}
			return nil
		})
	}
	// What the engine does ends after the last answer: answers use it.
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group.Go(func() error { p.engine.Run(working); return nil })
	group.Go(func() error { p.hook.Run(working); return nil })
	group.Go(func() error { p.reload(running); return nil })
	<-running.Done()
	p.log.Info("ending: what is being answered is finished")
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.o.ShutdownWait)
	defer cancel()
	// Logs that are followed would never be. Who does not read what he is sent is
	// cut off below, so that waiting for him is no more than waiting for the others.
	var closing sync.WaitGroup
	closing.Go(p.web.Close)
	for server := range servers {
		if err := server.Shutdown(out); err != nil {
			_ = server.Close()
		}
	}
	closing.Wait()
	p.hook.Close()
	stop()
	err := group.Wait()
	p.log.Info("ended")
	return err
}

func (p *program) server(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
}

// handler is the first listener's.
func (p *program) handler() http.Handler {
	mux := http.NewServeMux()
	p.health(mux)
	mux.Handle("/hook", p.hook)
	if path := p.o.Settings.PublicURL.Path; path != "" { // a proxy that has not taken it away
		mux.Handle(path+"/hook", p.hook)
	}
	mux.Handle("/", p.web)
	return mux
}

// figures is the second one's.
func (p *program) figures() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", p.meter.Handler())
	p.health(mux)
	return mux
}

func (p *program) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), readyWait)
		defer cancel()
		// Why is in the log: whoever asks need not know where Nomad is.
		if p.engine.Ready() != nil {
			http.Error(w, "Nomad cannot be watched at this moment", http.StatusServiceUnavailable)
			return
		}
		if p.o.Repos.Check(ctx) != nil {
			http.Error(w, repos.ErrAway.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
}

// reload reads the repositories again when asked to, and tries what waits.
func (p *program) reload(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.o.Reload:
		}
		p.hook.Retry()
		if p.o.Reread == nil {
			p.log.Info("what waits is tried again; the repositories are in Consul, where a change holds at once")
			continue
		}
		if err := p.o.Reread(); err != nil {
			p.log.Error("the repositories cannot be read: what was read before holds", "err", err)
			continue
		}
		p.log.Info("the repositories were read again")
	}
}
