// Package gateway is the running program: it receives webhooks, keeps repositories
// in step by the queue, polls, takes changes of the configuration in, and ends in
// order. It reads no command line.
package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/gitgate/internal/after"
	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/meter"
	"example.com/converge/gitgate/internal/queue"
	"example.com/converge/gitgate/internal/receive"
	"example.com/converge/pkg/certs"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/webhook"
)

const (
	// pace is the least time between two webhooks' updates of one repository.
	pace = 2 * time.Second
	// shutdownWait is how long requests and notices have at the end.
	shutdownWait = 10 * time.Second
	// poll is why a job came that a poll has brought.
	poll = "poll"
)

// Options of Run.
type Options struct {
	// Config is what holds at first, and Load reads the file again.
	Config *config.Config
	Load   func() (*config.Config, []config.Warning, error)
	// Logging takes a change of how to log in; nil ignores them.
	Logging func(config.Logging) error
	// Reload gets an element when the file is to be read again, as at SIGHUP.
	Reload <-chan os.Signal
	Log    *slog.Logger
}

// job is what is to be done for a repository.
type job struct {
	receive.Job
	why string
	// unasked says that it is to be done whatever a push says: at a start, after a
	// reload, by a poll.
	unasked bool
}

// gateway is one run.
type gateway struct {
	o        Options
	log      *slog.Logger
	config   atomic.Pointer[config.Config]
	began    *config.Config // what it was started with
	queue    *queue.Queue[job]
	receiver *receive.Receiver
	meter    *meter.Meter
	notifier *after.Notifier
	pair     *certs.Pair // nil without TLS
	repoll   chan struct{}
	address  string

	mu     sync.Mutex
	states map[string]*state // by path
}

// state is how a repository stands.
type state struct {
	tried, good bool // at least once
	failing     gitcmd.Reason
}

// Run serves until ctx ends; then it finishes what runs. The error is of a start
// that failed, or of a listener.
func Run(ctx context.Context, o Options) error {
	g := &gateway{o: o, log: o.Log, repoll: make(chan struct{}, 1), states: map[string]*state{}}
	c := o.Config
	g.config.Store(c)
	g.began = c
	version, err := gitcmd.Version(ctx)
	if err != nil {
		return err
	}
	var listener, figures net.Listener
	if c.TLSCert != "" {
		if g.pair, err = certs.Load(c.TLSCert, c.TLSKey, o.Log); err != nil {
			return err
		}
	}
	address := net.JoinHostPort(c.Listen, strconv.Itoa(c.Port))
	if listener, err = net.Listen("tcp", address); err != nil {
		return cmdline.ListenError(address, "choose another with listen and port", err)
	}
	if c.MetricsListen != "" {
		if figures, err = net.Listen("tcp", c.MetricsListen); err != nil {
			_ = listener.Close()
			return cmdline.ListenError(c.MetricsListen, "choose another with metrics_listen", err)
		}
	}
	g.queue = queue.New(queue.Options[job]{
		Threads: c.Threads, Tries: max(1, c.RetryCount), Delay: c.RetryDelay, Pace: pace, Run: g.work, Merge: merge,
	})
	g.meter = meter.New(g.queue.Busy)
	g.notifier = after.NewNotifier(o.Log)
	g.receiver = receive.New(receive.Options{
		Config: g.config.Load, Count: g.meter.Webhook, Log: o.Log,
		Add: func(path string, j receive.Job) bool { return g.queue.Add(path, job{Job: j, why: "webhook"}) },
	})
	g.address = listener.Addr().String()
	o.Log.Info("serving", "address", g.address, "tls", g.pair != nil, "config", c.File, "repos", len(c.Repos), "git", version, "version", cmdline.Version())
	for _, repo := range c.Repos {
		g.added(repo, "start")
	}
	return g.serve(ctx, listener, figures)
}

// merge keeps the deliveries of a job that another one takes the place of. A poll
// has no tries of its own: where they come often it would never be the last.
func merge(older, newer job) (merged job, anew bool) {
	const most = 1000
	all := append(older.Deliveries, newer.Deliveries...)
	newer.Deliveries = all[max(0, len(all)-most):]
	newer.unasked = newer.unasked || older.unasked
	anew = newer.why != poll
	if newer.Push == nil && (older.Push != nil || !anew) { // what was pushed must not be lost
		newer.Push, newer.why = older.Push, older.why
	}
	return newer, anew
}

func (g *gateway) serve(ctx context.Context, listener, figures net.Listener) error {
	servers := map[*http.Server]net.Listener{g.server(g.handler()): listener}
	if figures != nil {
		servers[g.server(g.figures())] = figures
	}
	group, running := errgroup.WithContext(ctx)
	for server, on := range servers {
		group.Go(func() error {
			var err error
			if on == listener && g.pair != nil {
				err = server.ServeTLS(on, "", "")
			} else {
				err = server.Serve(on)
			}
			if errors.Is(err, http.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("cannot serve any more: %w", err)
		})
	}
	group.Go(func() error { return g.watch(running) })
	group.Go(func() error { g.poll(running); return nil })
	<-running.Done()
	g.log.Info("ending: what runs is finished", "busy", g.queue.Busy())
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer cancel()
	for server := range servers {
		if err := server.Shutdown(out); err != nil {
			_ = server.Close()
		}
	}
	// git has its own time limit; who cannot wait sends a second signal.
	g.queue.Close(context.Background())
	told, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
	defer stop()
	g.notifier.Close(told)
	err := group.Wait()
	g.log.Info("ended")
	return err
}

func (g *gateway) server(handler http.Handler) *http.Server {
	s := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	if g.pair != nil {
		s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: g.pair.GetCertificate}
	}
	return s
}

// handler is the first listener's.
func (g *gateway) handler() http.Handler {
	health := http.NewServeMux()
	g.health(health)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Webhooks come by POST, whatever their path.
		if (r.URL.Path == "/healthz" || r.URL.Path == "/readyz") && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			health.ServeHTTP(w, r)
			return
		}
		g.receiver.ServeHTTP(w, r)
	})
}

// figures is the second one's.
func (g *gateway) figures() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", g.meter.Handler())
	g.health(mux)
	return mux
}

func (g *gateway) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		c := g.config.Load()
		missing := 0
		g.mu.Lock()
		for _, repo := range c.Repos {
			if s := g.states[repo.Path]; s == nil || !s.good {
				missing++
			}
		}
		g.mu.Unlock()
		if missing > 0 && c.Initialise {
			http.Error(w, fmt.Sprintf("%d of %d repositories are not there yet", missing, len(c.Repos)), http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
}

// repo returns what is configured for a path now, or nil.
func (g *gateway) repo(path string) *config.Repo {
	for _, repo := range g.config.Load().Repos {
		if repo.Path == path {
			return repo
		}
	}
	return nil
}

// added brings a repository up that is new, if that is wanted.
func (g *gateway) added(repo *config.Repo, why string) {
	g.mu.Lock()
	if g.states[repo.Path] == nil {
		g.states[repo.Path] = &state{}
	}
	g.mu.Unlock()
	if g.config.Load().Initialise {
		g.queue.Add(repo.Path, job{why: why, unasked: true})
	}
}

// work is one try of a job. What is configured may have changed since it came.
func (g *gateway) work(ctx context.Context, path string, j job, last bool) (again bool) {
	repo := g.repo(path)
	if repo == nil {
		g.log.Warn("the repository is not in the configuration any more: nothing is updated", "path", path)
		return false
	}
	if j.Push != nil {
		if err := receive.Match(repo, j.Push); err != nil {
			g.receiver.Forget(j.Deliveries)
			if !j.unasked {
				g.log.Warn("the configuration has changed since the webhook came: nothing is updated", "repo", repo.Name, "err", err)
				return false
			}
			j.Push = nil
		}
	}
	said := ""
	if j.Push != nil {
		said = j.Push.After
	}
	o := Sync(ctx, repo, said, g.log)
	// Of a ref that somebody has just pushed the server may know later than of
	// the push.
	again = (o.Behind || o.Err != nil && (!o.Reason.Permanent() || o.Reason == gitcmd.NoRef && j.Push != nil)) && !last
	result := "unchanged"
	switch {
	case o.Err != nil:
		result = string(o.Reason)
	case o.Changed:
		result = "changed"
	}
	if g.repo(path) == nil {
		g.log.Info("the repository has left the configuration while it was updated", "repo", repo.Name, "result", result)
		return false // its figures, and how it stood, are forgotten
	}
	if o.Rewritten {
		g.meter.Rewritten(repo.Name)
	}
	g.meter.Synced(repo.Name, result, o.Err == nil, o.Took)
	if (o.Err != nil || o.Behind) && !again {
		g.receiver.Forget(j.Deliveries)
	}
	if !again || o.Err == nil {
		g.settle(repo, j.Push, o)
	}
	report(g.log, repo, o, j.why, again) // last: whoever reads it finds the rest done
	return again
}

// settle remembers how a repository stands, and tells those who want to know:
// of what is new, and of a failure once, unless somebody pushed.
func (g *gateway) settle(repo *config.Repo, push *webhook.Push, o Outcome) {
	g.mu.Lock()
	s := g.states[repo.Path]
	if s == nil {
		s = &state{}
		g.states[repo.Path] = s
	}
	before := s.failing
	s.tried, s.failing = true, ""
	if o.Err != nil {
		s.failing = o.Reason
	} else {
		s.good = true
	}
	g.mu.Unlock()
	places := append(append([]string(nil), g.config.Load().Notify...), repo.Notify...)
	notice := after.Notice{Event: "success", Repo: repo.Name, Ref: repo.Ref(), Hash: o.Hash, Previous: o.Previous, Time: time.Now().UTC()}
	switch {
	case o.Err != nil && (before != o.Reason || push != nil):
		notice.Event, notice.Reason, notice.Error, notice.Hash = "failure", string(o.Reason), oneLine(o.Err), ""
	case o.Err == nil && (o.Changed || before != ""):
	default:
		return
	}
	g.notifier.Tell(places, notice)
}
