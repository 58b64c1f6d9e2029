package signin

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"example.com/converge/pkg/forge"
)

const (
	// readFor is how long an answer of the forge holds: who loses the right to
	// read loses sight of the logs then.
	readFor = 2 * time.Minute
	// maxReads is how many answers are remembered, and maxRemembered how many
	// cookies and states.
	maxReads, maxRemembered = 8192, 8192
	// asking is how many questions are asked at a time.
	asking = 8
)

// ErrSignedOut says that the forge does not take the person's token any more, so
// that he is to sign in anew.
var ErrSignedOut = errors.New("the forge has ended your sign-in: sign in again")

// MayRead asks the forge whether somebody may read the code of the repository at
// path. Answers are remembered for two minutes. A token that ran out is
// ErrSignedOut.
func (d *Door) MayRead(ctx context.Context, p *Person, kind forge.Kind, path string) (bool, error) {
	q := question{p.id, path}
	if may, ok := d.read.known(q, d.now()); ok {
		return may, nil
	}
	api, err := d.asker(kind)
	if err != nil {
		return false, err
	}
	select {
	case d.read.places <- struct{}{}:
		defer func() { <-d.read.places }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	may, err := api.As(p.token).MayRead(ctx, path)
	if errors.Is(err, forge.ErrToken) {
		return false, errors.Join(ErrSignedOut, err)
	}
	if err != nil {
		return false, err
	}
	d.read.learn(q, may, d.now())
	return may, nil
}

// asker is a client for the API of a kind, which for OIDC only the repository
// tells.
func (d *Door) asker(kind forge.Kind) (*forge.Client, error) {
	if d.api != nil {
		return d.api, nil
	}
	d.read.mu.Lock()
	defer d.read.mu.Unlock()
	if c := d.read.clients[kind]; c != nil {
		return c, nil
	}
	c, err := d.client(kind)
	if err == nil {
		d.read.clients[kind] = c
	}
	return c, err
}

// question is whether a signed-in browser may read a repository.
type question struct{ person, path string }

type answer struct {
	may   bool
	until time.Time
}

// reads remembers answers.
type reads struct {
	places chan struct{}

	mu      sync.Mutex
	answers map[question]answer
	clients map[forge.Kind]*forge.Client
}

func newReads() *reads {
	return &reads{places: make(chan struct{}, asking), answers: map[question]answer{}, clients: map[forge.Kind]*forge.Client{}}
}

func (r *reads) known(q question, now time.Time) (may, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.answers[q]
	return a.may, ok && now.Before(a.until)
}

func (r *reads) learn(q question, may bool, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.answers) >= maxReads {
		for other, a := range r.answers {
			if !now.Before(a.until) {
				delete(r.answers, other)
			}
		}
		if len(r.answers) >= maxReads { // they are asked again
			clear(r.answers)
		}
	}
	r.answers[q] = answer{may, now.Add(readFor)}
}

// forget drops what is known of a browser.
func (r *reads) forget(person string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for q := range r.answers {
		if q.person == person {
			delete(r.answers, q)
		}
	}
}

func (r *reads) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.clients {
		c.Close()
	}
}

// remembered are things that were used up, each until a time.
type remembered struct {
	mu  sync.Mutex
	all map[string]time.Time
}

func newRemembered() *remembered { return &remembered{all: map[string]time.Time{}} }

// add reports whether a thing was not there yet, and remembers it. If there are
// too many, those go that would be forgotten first.
func (r *remembered) add(name string, until, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if end, ok := r.all[name]; ok && now.Before(end) {
		return false
	}
	if len(r.all) >= maxRemembered {
		names := slices.SortedFunc(maps.Keys(r.all), func(a, b string) int { return r.all[a].Compare(r.all[b]) })
		for _, old := range names[:len(names)/4] {
			delete(r.all, old)
		}
	}
	r.all[name] = until
	return true
}

func (r *remembered) has(name string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.all[name]
	return ok && now.Before(end)
}
