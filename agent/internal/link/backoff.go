package link

import (
	"math/rand/v2"
	"time"
)

// backoff makes the pauses between attempts: random, so that a thousand agents
// do not come back to a restarted server at once, and longer each time.
type backoff struct {
	first, longest time.Duration
	mean           time.Duration
}

func newBackoff(first, longest time.Duration) backoff { return backoff{first, longest, first} }

// next returns the pause that is due, from half the mean up to one and a half.
func (b *backoff) next() time.Duration {
	pause := b.mean/2 + rand.N(b.mean)
	b.mean = min(2*b.mean, b.longest)
	return pause
}

// held is told when a connection ends that stood since then. It begins anew
// only after one that lasted: a server that registers an agent and drops it at
// once is not to be asked five times a second.
func (b *backoff) held(since time.Time) {
	if time.Since(since) >= b.longest {
		b.mean = b.first
	}
}
