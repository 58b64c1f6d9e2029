package forgekeys

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/keys"
)

const (
	// DefaultRefresh is the mean time between two refreshes.
	DefaultRefresh = 5 * time.Minute
	// DefaultMaxAge is how long keys stay good that cannot be refreshed.
	DefaultMaxAge = time.Hour
	// MinRefresh is the least time between two refreshes.
	MinRefresh = 10 * time.Second
	// retryAfter is the mean time until a refresh that failed is tried again,
	// if the ordinary one is not sooner.
	retryAfter = time.Minute
)

// retries are the pauses of Load before a request that failed for no lasting
// reason is sent again.
var retries = []time.Duration{time.Second, 3 * time.Second}

// Config says what to fetch.
type Config struct {
	// Sources must not be empty.
	Sources []Source
	// CAFile is a PEM file of roots to trust beside the system's; "" is none.
	CAFile string
	// Refresh is the mean time between two refreshes; 0 is DefaultRefresh, less
	// than MinRefresh an error.
	Refresh time.Duration
	// MaxAge is how long keys stay good that cannot be refreshed; 0 is
	// DefaultMaxAge, less than Refresh an error.
	MaxAge time.Duration
	// Logger is told about changes and failures; nil discards.
	Logger *slog.Logger
}

// Store holds the keys of its sources. It is safe for concurrent use. Nothing
// is written to a disk, where the job's own code could add a key.
type Store struct {
	cfg     Config
	log     *slog.Logger
	retries []time.Duration
	feeds   []*feed
}

// feed is one source and what it answered last.
type feed struct {
	fetcher *fetcher

	mu   sync.Mutex
	keys []key
	// at is when they were fetched.
	at time.Time
	// trouble is what was last logged; "" when all is well.
	trouble string
	expired bool
}

// New makes a Store that has fetched nothing yet. The error names what cannot
// be used: a file, or a proxy's variable.
func New(cfg Config) (*Store, error) {
	if cfg.Refresh == 0 {
		cfg.Refresh = DefaultRefresh
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = max(DefaultMaxAge, cfg.Refresh)
	}
	switch {
	case len(cfg.Sources) == 0:
		return nil, errors.New("cannot fetch keys of nobody: name a user, a team or a URL")
	case cfg.Refresh < MinRefresh:
		return nil, fmt.Errorf("keys cannot be refreshed every %s: give %s or more", cfg.Refresh, MinRefresh)
	case cfg.MaxAge < cfg.Refresh:
		return nil, fmt.Errorf("keys that are good for %s cannot be refreshed every %s: give a longer or a shorter time", cfg.MaxAge, cfg.Refresh)
	}
	s := &Store{cfg: cfg, log: cfg.Logger, retries: retries}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	for _, source := range cfg.Sources {
		f, err := newFetcher(source, cfg.CAFile)
		if err != nil {
			return nil, err
		}
		s.feeds = append(s.feeds, &feed{fetcher: f})
	}
	return s, nil
}

// Load fetches the keys of all sources, each several times if it fails for no
// lasting reason. A source without any key that is accepted is an error, which
// names it: nobody shall wait for somebody who cannot come. ctx ends it early.
// Load may be called again, when nothing else of the Store is under way.
func (s *Store) Load(ctx context.Context) error {
	errs := make([]error, len(s.feeds))
	places := make(chan struct{}, parallel)
	var loading sync.WaitGroup
	for i, f := range s.feeds {
		places <- struct{}{}
		loading.Go(func() {
			defer func() { <-places }()
			errs[i] = s.load(ctx, f)
		})
	}
	loading.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) load(ctx context.Context, f *feed) error {
	source := f.fetcher.source
	var got fetched
	var err error
	for attempt := 0; ; attempt++ {
		if got, err = f.fetcher.fetch(ctx); err == nil || !temporary(err) || attempt == len(s.retries) || ctx.Err() != nil {
			break
		}
		s.log.Info("keys could not be fetched and are asked for again", "source", source.String(), "err", err)
		select {
		case <-time.After(s.retries[attempt]):
		case <-ctx.Done():
		}
	}
	if err != nil {
		return fmt.Errorf("cannot get the keys of %s: %w", source, err)
	}
	if len(got.keys) == 0 {
		return fmt.Errorf("%s has %s: nobody could log in with its keys; %s", source, got.lack(source), hint(source))
	}
	s.note(source, got)
	s.log.Info("keys fetched", "source", source.String(), "keys", len(got.keys))
	f.set(got.keys)
	return nil
}

// lack says what a source without keys has none of.
func (a fetched) lack(source Source) string {
	switch {
	case source.kind == team && a.members == 0:
		return "no member that is seen"
	case source.kind != team && len(a.notes) > 0:
		return "no key that is accepted (" + strings.Join(a.notes[:min(3, len(a.notes))], "; ") + ")"
	}
	return "no public key"
}

// hint says what to do about it.
func hint(source Source) string {
	switch {
	case source.kind == page:
		return "put one public key a line there"
	case source.kind == user:
		return "let the user add one there, or name another"
	case source.server.token == "":
		return "give a token that sees its members, or name others"
	case source.server.Forge == GitLab:
		return "its members count from the role Developer up"
	}
	return "name another"
}

// note logs what was left out.
func (s *Store) note(source Source, got fetched) {
	const most = 20
	for i, text := range got.notes {
		if i == most {
			s.log.Warn("more keys are not accepted", "source", source.String(), "number", len(got.notes)-most)
			return
		}
		s.log.Warn("a key is not accepted, or missing", "source", source.String(), "reason", text)
	}
}

func (f *feed) set(list []key) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keys, f.at, f.trouble, f.expired = list, time.Now(), "", false
}

// Run refreshes the keys until ctx ends, each source on its own schedule,
// jittered by a fifth. What the source says counts from then on, even if it
// says that there is no key any more. A source that cannot be asked, or says
// that it knows no such user or team, keeps its keys until they are MaxAge
// old; it is asked again sooner. Both are logged once. Run returns when all
// that it started has ended.
func (s *Store) Run(ctx context.Context) {
	var refreshing sync.WaitGroup
	for _, f := range s.feeds {
		refreshing.Go(func() { s.keep(ctx, f) })
	}
	refreshing.Wait()
}

func (s *Store) keep(ctx context.Context, f *feed) {
	timer := time.NewTimer(jitter(s.cfg.Refresh))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		if s.refresh(ctx, f) {
			timer.Reset(jitter(s.cfg.Refresh))
		} else {
			timer.Reset(jitter(min(s.cfg.Refresh, retryAfter)))
		}
	}
}

// refresh asks a source once more. It reports success.
func (s *Store) refresh(ctx context.Context, f *feed) bool {
	source := f.fetcher.source
	got, err := f.fetcher.fetch(ctx)
	if ctx.Err() != nil {
		return false
	}
	f.mu.Lock()
	before, trouble := f.keys, f.trouble
	f.mu.Unlock()
	if err != nil {
		s.failed(f, err)
		return false
	}
	if trouble != "" {
		s.log.Info("keys can be refreshed again", "source", source.String())
	}
	added, removed := difference(before, got.keys)
	switch {
	case len(got.keys) == 0 && len(before) > 0:
		s.log.Warn("a source has no key any more: nobody can log in with its keys from now on", "source", source.String())
	case added+removed > 0:
		s.note(source, got)
		s.log.Info("keys have changed", "source", source.String(), "added", added, "removed", removed)
	}
	f.set(got.keys)
	return true
}

// failed notes that a refresh failed.
func (s *Store) failed(f *feed, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	source, end := f.fetcher.source.String(), f.at.Add(s.cfg.MaxAge)
	switch {
	case !time.Now().Before(end):
		if !f.expired {
			s.log.Error("keys are too old and not accepted any more: they cannot be refreshed", "source", source, "err", err)
		}
		f.expired = true
	case f.trouble != err.Error():
		s.log.Warn("keys stay as they were: they cannot be refreshed", "source", source, "until", end.Format(time.RFC3339), "err", err)
	}
	f.trouble = err.Error()
}

// difference counts the keys that are in one list only.
func difference(before, after []key) (added, removed int) {
	old := make(map[keys.Digest]bool, len(before))
	for _, k := range before {
		old[k.sum] = true
	}
	seen := make(map[keys.Digest]bool, len(after))
	for _, k := range after {
		if !seen[k.sum] && !old[k.sum] {
			added++
		}
		seen[k.sum] = true
	}
	for sum := range old {
		if !seen[sum] {
			removed++
		}
	}
	return added, removed
}

// Owner tells whose a key is, if it is among those that are good now. The time
// that it takes depends on the number of keys only.
func (s *Store) Owner(sum keys.Digest) (owner string, ok bool) {
	for _, f := range s.feeds {
		f.mu.Lock()
		good := time.Since(f.at) < s.cfg.MaxAge
		for i := range f.keys {
			if subtle.ConstantTimeCompare(f.keys[i].sum[:], sum[:]) == 1 && good {
				owner, ok = f.keys[i].owner, true
			}
		}
		f.mu.Unlock()
	}
	return owner, ok
}

// jitter varies an interval by a fifth, so that many agents do not ask as one.
func jitter(interval time.Duration) time.Duration {
	fifth := int64(interval / 5)
	return interval - time.Duration(fifth) + time.Duration(rand.Int64N(2*fifth+1))
}
