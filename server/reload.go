package main

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/converge/pkg/certs"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/limits"
)

// reloader takes the changes of --config in at SIGHUP that can be taken in: the
// files of access and of the certificate, the limits and the log level. What else
// has changed waits for a restart.
type reloader struct {
	in     *cmdline.Invocation // the last that could be used
	guard  *access.Guard
	limits *limits.Limits
	pair   *certs.Pair // nil without TLS
	level  *slog.LevelVar
	log    *slog.Logger
	tell   func(error) // the audit log

	mu      sync.Mutex
	running map[string]string // what holds, by option
	at      time.Time         // when it was read
	problem string            // with the file as it is now
}

func newReloader(in *cmdline.Invocation, d *doorkeeper, p *prepared, level *slog.LevelVar, log *slog.Logger) *reloader {
	return &reloader{
		in: in, guard: d.guard, limits: d.limits, pair: p.pair, level: level, log: log,
		tell: func(err error) { d.tellReload("config.", err) }, running: valuesOf(in), at: time.Now(),
	}
}

// valuesOf are the options' values as text.
func valuesOf(in *cmdline.Invocation) map[string]string {
	values := map[string]string{}
	for _, e := range in.Effective() {
		values[e.Name] = strings.Join(e.Values, ", ")
		if e.Source == "" {
			values[e.Name] = e.Default
		}
	}
	return values
}

// state returns when what holds was read, and why what is there now cannot be
// used; "" if it can.
func (r *reloader) state() (at time.Time, problem string) {
	r.mu.Lock()
	at, problem = r.at, r.problem
	r.mu.Unlock()
	if loaded, trouble := r.guard.State(); trouble != "" {
		problem = trouble
	} else if loaded.After(at) {
		at = loaded
	}
	return at, problem
}

// reload reads the file again. A mistake in it leaves everything as it was.
func (r *reloader) reload(ctx context.Context) {
	if r.in.String("config") == "" {
		return
	}
	next, err := r.in.Reread(ctx)
	if err == nil {
		// As a whole, before anything is changed; it says nothing.
		_, err = prepare(next, r.guard, slog.New(slog.DiscardHandler))
	}
	if err == nil {
		_, err = cmdline.LogLevel(next)
	}
	r.mu.Lock()
	if r.problem = ""; err != nil {
		r.problem = err.Error()
	}
	r.mu.Unlock()
	if err != nil {
		r.log.Error("the configuration cannot be used: nothing has changed", "err", err)
		r.tell(err)
		return
	}
	r.apply(next)
	r.mu.Lock()
	r.at = time.Now()
	r.mu.Unlock()
	r.tell(nil)
}

// apply takes the changes in and says which wait for a restart.
func (r *reloader) apply(next *cmdline.Invocation) {
	var changed []string
	values := valuesOf(next)
	for name, value := range values {
		if value != r.running[name] {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	// take reports whether options of these names have changed; done says that
	// they are taken in, or why not.
	take := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(changed, n) })
	}
	done := func(err error, names ...string) {
		for _, name := range names {
			if !slices.Contains(changed, name) {
				continue
			}
			if err != nil {
				r.log.Warn("an option has changed that needs a restart", "option", name, "from", r.running[name], "to", values[name], "err", err)
			} else {
				r.log.Info("an option has changed", "option", name, "from", r.running[name], "to", values[name])
				r.running[name] = values[name]
			}
			changed = slices.DeleteFunc(changed, func(n string) bool { return n == name })
		}
	}
	if names := []string{"tokens", "policy"}; take(names...) {
		done(r.guard.Use(next.String("tokens"), next.String("policy")), names...)
	}
	if names := []string{"tls-cert", "tls-key"}; take(names...) && r.pair != nil && next.String("tls-cert") != "" {
		done(r.pair.Use(next.String("tls-cert"), next.String("tls-key")), names...)
	}
	if take(limitOptions...) {
		most, err := readLimits(next)
		if err == nil {
			r.limits.Set(most)
		}
		done(err, limitOptions...)
	}
	if take("log-level") {
		level, err := cmdline.LogLevel(next)
		if err == nil && level < r.level.Level() {
			r.level.Set(level)
		} else if err == nil { // what has changed is told still
			defer r.level.Set(level)
		}
		done(err, "log-level")
	}
	for _, name := range changed {
		r.log.Warn("an option has changed that needs a restart", "option", name, "from", r.running[name], "to", values[name])
	}
	r.in = next
	r.log.Info("configuration reloaded", "file", next.String("config"), "need_restart", len(changed))
}
