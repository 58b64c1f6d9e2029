package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/nomad"
)

const (
	// pace is the least time between two answers of a blocking query, so that a
	// burst of changes is one.
	pace = 200 * time.Millisecond
	// firstWait and mostWait are between tries while Nomad is away.
	firstWait = time.Second
	mostWait  = 30 * time.Second
)

// watch asks again and again, each time for what has changed since; one
// connection for each, however many builds there are: Nomad allows a hundred for
// an address unless it is told otherwise (limits.http_max_conns_per_client).
func (e *Engine) watch(ctx context.Context, what string, ask func(ctx context.Context, index uint64) (uint64, error)) {
	var index uint64
	wait := firstWait
	for ctx.Err() == nil {
		asked := time.Now()
		next, err := ask(ctx, index)
		if ctx.Err() != nil {
			return
		}
		e.setAway(what, err)
		if err != nil {
			e.log.Warn("Nomad cannot be watched at this moment", "what", what, "err", err)
			index = 0
			if !rest(ctx, wait/2+rand.N(wait)) {
				return
			}
			wait = min(mostWait, wait*2)
			continue
		}
		wait, index = firstWait, next
		if !rest(ctx, pace-time.Since(asked)) {
			return
		}
	}
}

// rest waits for so long, and reports whether to go on.
func rest(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (e *Engine) setAway(what string, err error) {
	e.mu.Lock()
	before := e.away[what]
	e.away[what] = err
	e.mu.Unlock()
	if before != nil && err == nil {
		e.log.Info("Nomad is watched", "what", what)
		if e.o.Back != nil && e.Ready() == nil {
			e.o.Back()
		}
	}
}

func (e *Engine) watchJob(ctx context.Context, job string) {
	e.watch(ctx, "job "+job, func(ctx context.Context, index uint64) (uint64, error) {
		children, next, err := e.o.Nomad.Children(ctx, job, index)
		if err == nil {
			e.reconcile(ctx, job, children)
		}
		return next, err
	})
}

func (e *Engine) watchAllocations(ctx context.Context) {
	e.watch(ctx, watchedAllocations, func(ctx context.Context, index uint64) (uint64, error) {
		allocs, next, err := e.o.Nomad.Allocations(ctx, index)
		if err != nil {
			return 0, err
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		e.allocs = allocs
		for id, x := range e.builds {
			if !x.rec.Over {
				e.settle(id)
			}
		}
		return next, nil
	})
}

// reconcile compares what Nomad lists with what is known: so builds are found
// again after a restart, and those that another program has dispatched.
func (e *Engine) reconcile(ctx context.Context, job string, children []nomad.Child) {
	listed := make(map[string]bool, len(children))
	var bare, missing []string
	e.mu.Lock()
	for _, c := range children {
		listed[c.ID] = true
		if old, known := e.children[c.ID]; known && c.Meta == nil {
			c.Meta = old.Meta
		}
		e.children[c.ID] = c
		switch {
		case e.builds[c.ID] != nil:
			if !e.builds[c.ID].rec.Over {
				e.settle(c.ID)
			}
		case c.Meta == nil: // an older Nomad lists without it
			bare = append(bare, c.ID)
		default:
			e.learnChild(c)
			e.settle(c.ID)
		}
	}
	for id := range e.children {
		if nomad.IsChild(id, job) && !listed[id] {
			delete(e.children, id)
		}
	}
	for id, x := range e.builds {
		if x.rec.Job == job && !x.rec.Over && !listed[id] && x.rec.State != build.Waiting {
			missing = append(missing, id)
		}
	}
	e.mu.Unlock()
	for _, id := range append(bare, missing...) {
		c, err := e.o.Nomad.Child(ctx, id)
		e.mu.Lock()
		switch {
		case errors.Is(err, nomad.ErrNoJob):
			e.lost(id)
		case err == nil:
			e.children[id] = c
			if e.builds[id] == nil {
				e.learnChild(c)
			}
			e.settle(id)
		}
		e.mu.Unlock()
	}
}

// lost ends a build that Nomad has forgotten. The lock is held.
func (e *Engine) lost(id string) {
	x := e.builds[id]
	if x == nil || x.rec.Over {
		return
	}
	x.rec.Over = true
	if x.rec.State.Live() {
		x.rec.State, x.rec.Reason = build.Error, "Nomad has forgotten it before its end was seen"
	}
	if x.rec.Ended.IsZero() {
		x.rec.Ended = time.Now().UTC()
	}
	e.update(x)
	e.finish(x)
}

// learn adds a build, or what is new of one. The lock is held.
func (e *Engine) learn(r archive.Record) *entry {
	x := e.builds[r.ID]
	if x == nil {
		x = &entry{rec: r, changed: make(chan struct{})}
		e.builds[r.ID] = x
		e.becomes(r)
		e.update(x)
		return x
	}
	// The watch was faster than whoever dispatched it; it knows less, but how the
	// build stands.
	old := x.rec
	r.State, r.Reason, r.Exit, r.Allocation, r.Started, r.Ended = old.State, old.Reason, old.Exit, old.Allocation, old.Started, old.Ended
	r.Created, r.Archived, r.Debug, r.Told, r.Reported, r.Over, r.Gone = old.Created, old.Archived, old.Debug, old.Told, old.Reported, old.Over, old.Gone
	if !old.Asked.IsZero() { // the delivery came again: what came since is still newer
		r.Asked = old.Asked
	}
	if old.Repo != r.Repo { // it was told to another repository
		r.Told = ""
		e.becomes(r)
	}
	x.rec = r
	e.update(x)
	return x
}

// becomes leads from a build that waited to the one that was approved. The lock
// is held.
func (e *Engine) becomes(r archive.Record) {
	if r.State == build.Waiting {
		return
	}
	for _, w := range e.builds {
		if w.rec.State == build.Waiting && w.rec.Became == "" && w.rec.Repo == r.Repo && w.rec.Origin == r.Origin && w.rec.Commit == r.Commit && w.rec.Branch == r.Branch && w.rec.Flavor == r.Flavor && w.rec.Pull == r.Pull {
			w.rec.Became, w.rec.Over = r.ID, true
			w.rec.Told = "" // its status is the new one's now
			e.keep(w)
			e.publish(w)
		}
	}
}

// settle brings a build to how Nomad has it. The lock is held.
func (e *Engine) settle(id string) {
	x := e.builds[id]
	child, ok := e.children[id]
	if x == nil || !ok || x.rec.Over {
		return
	}
	a := e.allocs[id]
	switch {
	case a != nil:
	case x.rec.Allocation != "" && child.Status != "dead": // an older answer than the one that had it
		return
	case x.rec.Allocation != "" && x.confirmed: // only the job is left
		e.lost(id)
		return
	case (child.Status == "dead" || child.Stopped) && !x.confirmed:
		// Jobs and allocations are two questions: that it has none may be old.
		e.confirm(x)
		return
	}
	v := nomad.Judge(child, a)
	before := x.rec
	r := &x.rec
	if v.Allocation != "" {
		if r.Allocation != "" && r.Allocation != v.Allocation {
			e.anew(x)
		}
		r.Allocation = v.Allocation
	}
	if !v.Started.IsZero() {
		r.Started = v.Started.UTC()
	}
	switch {
	case r.Reported != "" && (!v.Over || v.Reason == nomad.ReasonCancelled || v.State == build.Error):
		// The builder has told how the build ended; what its session makes of the
		// allocation afterwards changes nothing.
	default:
		r.State, r.Reason, r.Exit = v.State, v.Reason, v.Exit
		if v.Over {
			r.Ended = v.Ended.UTC()
		}
	}
	if v.Over {
		r.Over = true
		if r.Ended.IsZero() || r.Ended.Unix() <= 0 {
			r.Ended = time.Now().UTC()
		}
		if r.Debug != nil && !r.Debug.Closed {
			session := *r.Debug
			session.Closed = true
			r.Debug = &session
		}
	}
	if r.State != before.State || r.Reason != before.Reason || r.Allocation != before.Allocation || r.Over != before.Over || !r.Started.Equal(before.Started) || r.Debug != before.Debug {
		e.update(x)
	}
	if r.Over && !before.Over {
		e.o.Meter.Ended(r.Flavor, string(r.State), r.Ended.Sub(r.Created))
		e.finish(x)
	}
}

// anew forgets how a build went on a machine that was lost: Nomad runs it again on
// another one. The lock is held.
func (e *Engine) anew(x *entry) {
	r := &x.rec
	r.Started, r.Ended, r.Reported, r.Debug = time.Time{}, time.Time{}, "", nil
	for _, log := range []build.Stream{build.Stdout, build.Stderr} {
		if err := e.spool(x, log).Restart(); err != nil {
			e.log.Error("a log has lines of a machine that was lost", "build", r.ID, "err", err)
		}
	}
}

// confirm asks for the allocation of a build that has ended, and seems to have
// none. The lock is held.
func (e *Engine) confirm(x *entry) {
	if x.confirming {
		return
	}
	x.confirming = true
	id := x.rec.ID
	e.start(func(ctx context.Context) {
		wait := firstWait
		for {
			a, err := e.o.Nomad.AllocationOf(ctx, id)
			if err == nil {
				e.mu.Lock()
				defer e.mu.Unlock()
				x.confirming, x.confirmed = false, true
				if a != nil {
					e.allocs[id] = a
				}
				e.settle(id)
				return
			}
			if !rest(ctx, wait) {
				return
			}
			wait = min(mostWait, wait*2)
		}
	})
}

// update keeps a build that has changed, tells the forge and everybody. The lock
// is held.
func (e *Engine) update(x *entry) {
	e.tell(x)
	e.keep(x)
	e.publish(x)
}

// keep writes the record. The lock is held.
func (e *Engine) keep(x *entry) {
	if e.o.Detached {
		return
	}
	if err := e.archive.Put(x.rec); err != nil {
		e.log.Error("a build's record cannot be kept: after a restart less is known of it", "build", x.rec.ID, "err", err)
	}
}

// recover goes on with what a former run had not finished.
func (e *Engine) recover() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.builds {
		if x.rec.Over && !x.rec.Archived {
			e.finish(x)
		}
		if x.rec.Became == "" {
			e.tell(x)
		}
	}
}

// learnChild makes a build of what Nomad keeps of one. The lock is held.
func (e *Engine) learnChild(c nomad.Child) {
	e.learn(e.fromMeta(c))
}

// Refresh asks once for all builds, for a command.
func (e *Engine) Refresh(ctx context.Context) error {
	allocs, _, err := e.o.Nomad.Allocations(ctx, 0)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.allocs = allocs
	e.mu.Unlock()
	for _, job := range e.Jobs() {
		children, _, err := e.o.Nomad.Children(ctx, job, 0)
		if err != nil {
			return err
		}
		e.reconcile(ctx, job, children)
	}
	return nil
}
