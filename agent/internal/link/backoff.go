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
	restarted      time.Time // when a server's restart was last made allowance for
}

func newBackoff(first, longest time.Duration) backoff {
	return backoff{first: first, longest: longest, mean: first}
}

// next returns the pause that is due, from half the mean up to one and a half.
// The mean grows by a half: so an agent is back within about the time for which
// its server was away, and mostly sooner.
func (b *backoff) next() time.Duration {
	pause := b.mean/2 + rand.N(b.mean)
	b.mean = min(b.mean+b.mean/2, b.longest)
	return pause
}

// held is told when a connection ends that stood since then. It begins anew
// only after one that lasted: a server that registers an agent and drops it at
// once is not to be asked five times a second. A server that said that it is
// being restarted did not mean the agent; but one that says so all the time is
// no better than the others.
func (b *backoff) held(since time.Time, restart bool) {
	switch {
	case time.Since(since) >= b.longest:
	case restart && time.Since(b.restarted) >= b.longest:
	default:
		return
	}
	b.mean = b.first
	if restart {
		b.restarted = time.Now()
	}
}
