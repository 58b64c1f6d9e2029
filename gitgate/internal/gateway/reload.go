package gateway

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/fsnotify/fsnotify"

	"example.com/converge/gitgate/internal/config"
)

// settled is how long nothing must happen to the file before it is read: editors
// write in several steps.
const settled = 200 * time.Millisecond

// restless is how long it is put off at most while things happen in its folder.
const restless = 2 * time.Second

// watch takes changes of the configuration in, until ctx ends. The folder is
// watched: editors replace a file, and Kubernetes a link beside it.
func (g *gateway) watch(ctx context.Context) error {
	file := g.config.Load().File
	watcher, err := fsnotify.NewWatcher()
	if err == nil {
		defer watcher.Close()
		err = watcher.Add(filepath.Dir(file))
	}
	var events <-chan fsnotify.Event
	var errs <-chan error
	if err != nil {
		g.log.Warn("changes of the configuration are not noticed: send SIGHUP", "err", err)
	} else {
		events, errs = watcher.Events, watcher.Errors
	}
	last := g.config.Load().Sum
	timer := time.NewTimer(settled) // what changed before it was watched is a change too
	defer timer.Stop()
	var first time.Time // event that the timer waits for; the zero time without one
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-events:
			if first.IsZero() {
				first = time.Now()
			}
			// Something else in the folder, such as our own log, may never rest.
			timer.Reset(quiet(time.Since(first)))
		case err := <-errs:
			g.log.Warn("a change of the configuration may have been missed: send SIGHUP", "err", err)
		case <-timer.C:
			first = time.Time{}
			if now := digest(file); now != last && now != "" {
				last = now
				g.reload()
			}
		case <-g.o.Reload:
			last = digest(file)
			g.reload()
		}
	}
}

// quiet is how long nothing must happen after an event that came so long after the
// first one.
func quiet(since time.Duration) time.Duration { return min(settled, max(0, restless-since)) }

// digest names the content of a file; "" where it cannot be read, as in the
// middle of its being replaced.
func digest(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	return config.Digest(text)
}

// reload reads the file again. A mistake in it leaves everything as it was.
func (g *gateway) reload() {
	next, warnings, err := g.o.Load()
	for _, w := range warnings {
		g.log.Warn("configuration: " + w.String())
	}
	before := g.config.Load()
	if err == nil && g.o.Logging != nil {
		err = g.o.Logging(next.Logging)
	}
	if err == nil && g.pair != nil && next.TLSCert != "" {
		if err = g.pair.Use(next.TLSCert, next.TLSKey); err != nil && g.o.Logging != nil {
			_ = g.o.Logging(before.Logging)
		}
	}
	g.meter.Reloaded(err == nil)
	if err != nil {
		g.log.Error("the configuration cannot be used: nothing has changed", "err", oneLine(err))
		return
	}
	if was := g.began; was.Listen != next.Listen || was.Port != next.Port || was.MetricsListen != next.MetricsListen || (was.TLSCert == "") != (next.TLSCert == "") {
		g.log.Warn("listen, port, metrics_listen, or whether there is TLS, is another than at the start: that needs a restart")
	}
	g.config.Store(next)
	g.queue.Configure(next.Threads, max(1, next.RetryCount), next.RetryDelay)
	known := map[string]*config.Repo{}
	for _, repo := range before.Repos {
		known[repo.Path] = repo
	}
	names := map[string]bool{}
	var added, changed, removed int
	for _, repo := range next.Repos {
		names[repo.Name] = true
		old := known[repo.Path]
		delete(known, repo.Path)
		switch {
		case old == nil:
			added++
			g.added(repo, "it is new in the configuration")
		case !same(old, repo):
			changed++
			g.added(repo, "its configuration has changed")
		}
	}
	g.mu.Lock()
	for path := range known {
		removed++
		delete(g.states, path)
	}
	g.mu.Unlock()
	for _, repo := range before.Repos {
		if !names[repo.Name] {
			g.meter.Gone(repo.Name)
		}
	}
	select {
	case g.repoll <- struct{}{}:
	default:
	}
	g.log.Info("configuration reloaded", "file", next.File, "repos", len(next.Repos), "added", added, "changed", changed, "removed", removed)
}

// same tells whether a repository is configured alike, wherever it stands.
func same(a, b *config.Repo) bool {
	x, y := *a, *b
	x.Line, y.Line = 0, 0
	return reflect.DeepEqual(x, y)
}

// poll looks at repositories from time to time, until ctx ends.
func (g *gateway) poll(ctx context.Context) {
	next := map[string]time.Time{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.repoll:
		case <-timer.C:
		}
		now := time.Now()
		wait := time.Hour
		seen := map[string]bool{}
		for _, repo := range g.config.Load().Repos {
			if repo.Poll <= 0 {
				continue
			}
			seen[repo.Path] = true
			due, ok := next[repo.Path]
			if ok && !due.After(now) {
				g.queue.Add(repo.Path, job{why: poll, unasked: true})
			}
			// One that is polled more often now does not wait for the old time.
			if !ok || !due.After(now) || due.Sub(now) > repo.Poll*11/10 {
				due = now.Add(time.Duration(float64(repo.Poll) * (0.9 + 0.2*rand.Float64())))
				next[repo.Path] = due
			}
			wait = min(wait, due.Sub(now))
		}
		for path := range next {
			if !seen[path] {
				delete(next, path)
			}
		}
		timer.Reset(max(wait, time.Millisecond))
	}
}
