package webhook

import (
	"sync"
	"time"
)

// Window remembers deliveries for a while, so that one that comes again is
// known. What it remembers is bounded in number and in time. All methods may be
// called concurrently.
//
// It keeps honest repetitions from doing work twice. As protection it is weak
// for all but GitLab's signing tokens, since the id is not under the signature:
// what a webhook leads to must be harmless when it is led to once more.
type Window struct {
	most int
	keep time.Duration
	now  func() time.Time

	mu    sync.Mutex
	known map[string]uint64 // the number of its entry
	order []entry           // oldest first
	next  uint64
}

type entry struct {
	key    string
	at     time.Time
	number uint64
}

// NewWindow makes a Window of at most most deliveries, the oldest of which are
// forgotten first, and each after keep.
func NewWindow(most int, keep time.Duration) *Window {
	return &Window{most: most, keep: keep, now: time.Now, known: map[string]uint64{}}
}

// Seen reports whether the key is remembered, and remembers it.
func (w *Window) Seen(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	w.dropBefore(now.Add(-w.keep))
	if _, ok := w.known[key]; ok {
		return true
	}
	if w.most <= 0 || w.keep <= 0 {
		return false
	}
	for len(w.order) >= w.most {
		w.dropFirst()
	}
	w.next++
	w.known[key] = w.next
	w.order = append(w.order, entry{key, now, w.next})
	return false
}

// Forget makes the key new again, for a delivery that came to nothing and may be
// repeated.
func (w *Window) Forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.known, key)
}

func (w *Window) dropBefore(limit time.Time) {
	for len(w.order) > 0 && w.order[0].at.Before(limit) {
		w.dropFirst()
	}
}

func (w *Window) dropFirst() {
	first := w.order[0]
	w.order = w.order[1:]
	// One that was forgotten and came again has a later entry.
	if w.known[first.key] == first.number {
		delete(w.known, first.key)
	}
}
