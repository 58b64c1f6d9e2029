// Package engine is the running program without its HTTP side: it knows the builds,
// dispatches them, watches Nomad, tells the forges, keeps what Nomad forgets, and
// does what trusted people ask for. It implements the interfaces of package build.
// It reads no request and writes no page.
package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/nomad/api"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/meter"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/outbox"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/dispatch/internal/spool"
)

const (
	// maxBuilds is how many builds are kept that Nomad has forgotten.
	maxBuilds = 5000
	// finishers is how many builds' logs are archived at a time.
	finishers = 8
	// tryFor bounds one try to archive a build's logs.
	tryFor = time.Minute
	// strangers is how many ids that nobody knows Nomad is asked about at a time:
	// anybody may name them, and Nomad takes a hundred connections from one address.
	strangers = 8
	// maxStatuses is how many statuses wait for their forges at most.
	maxStatuses = 10_000
	// keepStatuses is how long a status is tried.
	keepStatuses = 24 * time.Hour
)

// watchedAllocations is what is watched beside jobs.
const watchedAllocations = "allocations"

var errNotHeard = errors.New("nothing was heard of Nomad yet")

// Options of an Engine.
type Options struct {
	Settings *settings.Settings
	Nomad    *nomad.Client
	Repos    repos.Source
	// Meter counts; it must not be nil.
	Meter *meter.Meter
	Log   *slog.Logger
	// Detached is for a command beside the program that serves: it leaves the
	// state folder alone but for reading, and uses the folder Scratch.
	Detached bool
	Scratch  string
	// ArchiveWait is how long the logs of a build that has ended are asked for while
	// Nomad is there; 0 is a quarter of an hour.
	ArchiveWait time.Duration
	// Back, if not nil, is called when Nomad is watched again after it was away.
	Back func()
}

// Engine is one. Its methods may be called concurrently.
type Engine struct {
	o        Options
	log      *slog.Logger
	archive  *archive.Archive
	kept     *archive.Archive // where Detached, that of the one that serves
	statuses *outbox.Box
	forges   *forges
	key      []byte
	sem      chan struct{}
	full     chan struct{} // asks for a sweep
	strange  chan struct{} // ids that Nomad is asked about

	ctx    context.Context // ends with Run
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu        sync.Mutex
	builds    map[string]*entry
	children  map[string]nomad.Child
	allocs    map[string]*api.AllocationListStub
	subs      map[*subscriber]bool
	away      map[string]error // what is watched, and why it cannot be
	contracts map[string]contract
	since     int64 // bytes archived since the last sweep
}

// entry is one build.
type entry struct {
	rec       archive.Record
	changed   chan struct{}
	spools    map[build.Stream]*spool.Spool
	finishing bool
	// confirming and confirmed are of its having no allocation.
	confirming, confirmed bool
}

// New makes an Engine with what a former run has kept.
func New(o Options) (*Engine, error) {
	if o.ArchiveWait == 0 {
		o.ArchiveWait = 15 * time.Minute
	}
	e := &Engine{
		o: o, log: o.Log, builds: map[string]*entry{}, children: map[string]nomad.Child{}, allocs: map[string]*api.AllocationListStub{},
		subs: map[*subscriber]bool{}, away: map[string]error{}, contracts: map[string]contract{}, sem: make(chan struct{}, finishers), full: make(chan struct{}, 1),
		strange: make(chan struct{}, strangers), forges: newForges(),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	dir := o.Settings.StateDir
	var err error
	if o.Detached {
		// Without the key of the one that serves its builds open no sessions.
		e.key, _ = os.ReadFile(filepath.Join(dir, "key"))
		e.kept = archive.At(filepath.Join(dir, "builds"), o.Log)
		e.archive, err = archive.Open(o.Scratch, o.Log)
		return e, err
	}
	if e.archive, err = archive.Open(filepath.Join(dir, "builds"), o.Log); err != nil {
		return nil, err
	}
	if e.key, err = readKey(filepath.Join(dir, "key")); err != nil {
		return nil, err
	}
	e.statuses, err = outbox.Open(outbox.Options{
		Dir: filepath.Join(dir, "outbox", "statuses"), Most: maxStatuses, Workers: 8, Keep: keepStatuses, Do: e.sendStatus, Log: o.Log,
	})
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(e.asked(), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of what is cancelled: %w", err)
	}
	all, err := e.archive.All()
	if err != nil {
		return nil, err
	}
	for _, job := range e.Jobs() {
		e.away["job "+job] = errNotHeard
	}
	e.away[watchedAllocations] = errNotHeard
	for _, r := range all {
		e.builds[r.ID] = &entry{rec: r, changed: make(chan struct{})}
	}
	return e, nil
}

// readKey reads the key of the debug tokens, which is made where it is missing.
func readKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) >= 32 {
		return key, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the key of debug sessions: %w", err)
	}
	key = make([]byte, 32)
	_, _ = rand.Read(key)
	if err := os.WriteFile(path, key, 0o600); err != nil {
		return nil, fmt.Errorf("keep the key of debug sessions: %w", err)
	}
	return key, nil
}

// Watch follows Nomad until ctx ends, for a command. Run does it, too.
func (e *Engine) Watch(ctx context.Context) {
	var running sync.WaitGroup
	for _, job := range e.Jobs() {
		running.Go(func() { e.watchJob(ctx, job) })
	}
	running.Go(func() { e.watchAllocations(ctx) })
	running.Wait()
}

// Run watches Nomad and sends statuses until ctx ends, and returns when all that
// it started has ended.
func (e *Engine) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { e.Watch(ctx) })
	running.Go(func() { e.statuses.Run(ctx) })
	running.Go(func() { e.sweep(ctx) })
	running.Go(func() { e.dismissAsked(ctx) })
	e.recover()
	<-ctx.Done()
	running.Wait()
	e.Close()
}

// Close ends what readers and builds have started. Run does it, too.
func (e *Engine) Close() {
	e.mu.Lock()
	e.cancel() // under the lock: start looks at it there
	var all []*spool.Spool
	for _, x := range e.builds {
		for _, s := range x.spools {
			all = append(all, s)
		}
	}
	e.mu.Unlock()
	for _, s := range all {
		s.Close()
	}
	e.wg.Wait()
	e.forges.close()
}

// start runs something that Close waits for, unless that has begun. The lock is
// held.
func (e *Engine) start(do func(ctx context.Context)) {
	if e.ctx.Err() == nil {
		e.wg.Go(func() { do(e.ctx) })
	}
}

// Jobs are the parameterized jobs that builds may have.
func (e *Engine) Jobs() []string {
	if e.o.Settings.Jobs == nil {
		return []string{settings.DefaultJob}
	}
	var all []string
	for _, job := range e.o.Settings.Jobs {
		if !slices.Contains(all, job) {
			all = append(all, job)
		}
	}
	slices.Sort(all)
	return all
}

// JobFor returns the job of a flavour; false where the list has none.
func (e *Engine) JobFor(flavor string) (string, bool) {
	if e.o.Settings.Jobs == nil {
		return settings.DefaultJob, repos.IsFlavor(flavor)
	}
	job, ok := e.o.Settings.Jobs[flavor]
	return job, ok
}

// Ready returns why builds are not followed at this moment, or nil.
func (e *Engine) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, err := range e.away {
		if err != nil {
			return err
		}
	}
	return nil
}

// Waiting is how many statuses wait for their forges.
func (e *Engine) Waiting() int { return e.statuses.Len() }

// Live is how many builds are under way.
func (e *Engine) Live() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, x := range e.builds {
		if x.rec.State.Live() && x.rec.Became == "" {
			n++
		}
	}
	return n
}

// List implements build.Store.
func (e *Engine) List(_ context.Context, limit int) ([]build.Build, error) {
	e.mu.Lock()
	all := make([]build.Build, 0, len(e.builds))
	for _, x := range e.builds {
		if x.rec.Became == "" {
			all = append(all, public(x.rec))
		}
	}
	e.mu.Unlock()
	slices.SortFunc(all, func(a, b build.Build) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return compare(b.ID, a.ID)
	})
	if limit > 0 && len(all) > limit {
		all = all[:limit]
	}
	return all, nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// public is what others see of a record: a copy.
func public(r archive.Record) build.Build {
	b := r.Build
	if b.Debug != nil {
		session := *b.Debug
		b.Debug = &session
	}
	return b
}

// Get implements build.Store. A build that the watch has not seen yet is asked
// for.
func (e *Engine) Get(ctx context.Context, id string) (build.Build, error) {
	r, err := e.record(ctx, id)
	return public(r), err
}

func (e *Engine) record(ctx context.Context, id string) (archive.Record, error) {
	e.mu.Lock()
	x := e.builds[id]
	if x != nil && x.rec.Became != "" && e.builds[x.rec.Became] != nil {
		x = e.builds[x.rec.Became]
	}
	if x != nil {
		defer e.mu.Unlock()
		return x.rec, nil
	}
	e.mu.Unlock()
	at := slices.IndexFunc(e.Jobs(), func(job string) bool { return nomad.IsChild(id, job) })
	if at < 0 || len(id) > 512 {
		return archive.Record{}, build.ErrUnknown
	}
	select {
	case e.strange <- struct{}{}:
		defer func() { <-e.strange }()
	case <-ctx.Done():
		return archive.Record{}, fmt.Errorf("%w: %w", build.ErrAway, ctx.Err())
	}
	child, err := e.o.Nomad.Child(ctx, id)
	switch {
	case errors.Is(err, nomad.ErrNoJob):
		return archive.Record{}, build.ErrUnknown
	case err != nil:
		return archive.Record{}, fmt.Errorf("%w: %w", build.ErrAway, err)
	}
	a, err := e.o.Nomad.AllocationOf(ctx, id)
	if err != nil {
		return archive.Record{}, fmt.Errorf("%w: %w", build.ErrAway, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.builds[id] == nil {
		e.children[id] = child
		if a != nil {
			e.allocs[id] = a
		}
		e.learnChild(child)
	}
	e.settle(id)
	return e.builds[id].rec, nil
}

// sweep forgets what is too old or too much: once an hour, and when many bytes were
// archived since.
func (e *Engine) sweep(ctx context.Context) {
	ticker := time.NewTicker(time.Hour)
	defer ticker.Stop()
	for {
		e.expire(time.Now())
		select {
		case <-ticker.C:
		case <-e.full:
		case <-ctx.Done():
			return
		}
	}
}

// wrote counts what was archived, and has the sweeper look when it is a tenth of
// what may be kept. The lock is held.
func (e *Engine) wrote(bytes int64) {
	if e.since += bytes; e.since < e.o.Settings.KeepBytes/10 {
		return
	}
	e.since = 0
	select {
	case e.full <- struct{}{}:
	default:
	}
}

// expire forgets builds that have ended. Of one that Nomad still has the record
// stays: it would only be learnt, and archived, again.
func (e *Engine) expire(now time.Time) {
	e.mu.Lock()
	var ended []build.Build
	for _, x := range e.builds {
		if x.rec.Archived || x.rec.Became != "" || x.rec.State == build.Waiting {
			ended = append(ended, x.rec.Build)
		}
	}
	e.mu.Unlock()
	for _, id := range e.archive.Expired(ended, now, e.o.Settings.Keep, e.o.Settings.KeepBytes, maxBuilds) {
		if err := e.forget(id); err != nil {
			e.log.Warn("an old build cannot be deleted", "build", id, "err", err)
		}
	}
}

func (e *Engine) forget(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.builds[id]
	if x == nil {
		return nil
	}
	if x.rec.State == build.Waiting && x.rec.Became == "" {
		e.dismiss(x, "nobody has approved it in time") // its forge is told; the next sweep takes it
		return nil
	}
	if _, there := e.children[id]; !there {
		delete(e.builds, id)
		return e.archive.Delete(id)
	}
	if x.rec.Gone {
		return nil
	}
	x.rec.Gone = true
	e.keep(x)
	e.publish(x)
	return e.archive.DropLogs(id)
}
