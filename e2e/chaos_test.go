//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/converge/e2e/internal/fault"
)

// TestChaos keeps stock clients busy while servers are killed, rolled and
// exchanged, and connections are cut, stalled, slowed, swallowed and tampered
// with. Every byte is compared, and nobody may lose a session that has begun.
//
// CHAOS_SEED repeats what was decided at random, though not the timing. SOAK
// is a duration for which it goes on, until 100 servers have been killed at
// least; without it, it ends with its first deck of faults.
func TestChaos(t *testing.T) {
	c := newChaos(t)
	// Whoever is left at the end is found by this in its environment.
	t.Setenv("CONVERGE_CHAOS", c.mark)
	t.Setenv("HOME", t.TempDir()) // no startup files in the shells
	t.Logf("CHAOS_SEED=%d", c.seed)
	defer c.close()
	c.open()
	for _, w := range c.workers {
		c.working.Go(w.run)
	}
	c.schedule()
	c.stop.Store(true)
	c.finish()
}

// stuck bounds how long everybody may be without progress after a fault, and
// how long the last transfers may take. It decides nothing on a machine that
// works at all: by then the resume window is over.
const stuck = 6 * time.Minute

// chaos is one run.
type chaos struct {
	t     *testing.T
	seed  uint64
	soak  time.Duration // 0: one deck of faults
	mark  string
	dir   string
	id    identity
	rng   *rand.Rand // of the schedule
	begin time.Time

	ctx     context.Context
	cancel  context.CancelCauseFunc
	stop    atomic.Bool // no new transfers
	working sync.WaitGroup
	workers []*worker

	servers   [2]*replica
	active    int // the one that the gates lead to
	agentGate *fault.Gate
	agent     *agent
	programs  []*process // all that were started here
	struck    [strikes]int

	transfers, bytes, unbegun atomic.Int64

	mu      sync.Mutex
	journal []string
	backs   []time.Time // when a server was back
	pauses  []time.Duration
}

// errOver ends a run that went well.
var errOver = errors.New("the run is over")

func newChaos(t *testing.T) *chaos {
	c := &chaos{t: t, dir: t.TempDir(), id: newIdentity(t), mark: uniqueID(), begin: time.Now()}
	c.seed = rand.Uint64N(1 << 32)
	if text := os.Getenv("CHAOS_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("CHAOS_SEED is %q: it must be a number", text)
		}
		c.seed = seed
	}
	c.soak = soakTime(t)
	c.rng = c.random(0)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// soakTime is how long the long tier takes, 0 in the short one.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("SOAK is %q: it must be a duration, such as 10m", text)
	}
	return d
}

// random is a source of its own for whoever decides something, so that one
// does not depend on what the others do.
func (c *chaos) random(who uint64) *rand.Rand { return rand.New(rand.NewPCG(c.seed, who)) }

// span is a duration at random, below a limit.
func span(rng *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(rng.Int64N(int64(limit)))
}

// note writes the journal, which is printed when something was lost.
func (c *chaos) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.journal = append(c.journal, fmt.Sprintf("%8.3fs  %s", time.Since(c.begin).Seconds(), fmt.Sprintf(format, args...)))
}

// lose ends the run, for a session that was lost.
func (c *chaos) lose(err error) {
	c.note("LOST: %v", err)
	c.cancel(err)
}

// moment waits at random, which makes the schedule and decides nothing else.
func (c *chaos) moment(rng *rand.Rand, most time.Duration) {
	select {
	case <-time.After(span(rng, most)):
	case <-c.ctx.Done():
	}
}

// back notes that a server can be reached again.
func (c *chaos) back() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.backs = append(c.backs, time.Now())
}

// answered is told when a line was typed and when its answer came: if a server
// was back between the two, the one waited for the other.
func (c *chaos) answered(typed, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, back := range slices.Backward(c.backs) {
		if back.Before(typed) {
			return
		}
		if back.Before(now) {
			c.pauses = append(c.pauses, now.Sub(back))
			return
		}
	}
}

// finish waits for the last transfers and prints the result.
func (c *chaos) finish() {
	c.t.Helper()
	all := make(chan struct{})
	go func() {
		c.working.Wait()
		close(all)
	}()
	select {
	case <-all:
	case <-c.ctx.Done():
	case <-time.After(stuck):
		var busy []string
		for _, w := range c.workers {
			if !w.idle.Load() {
				busy = append(busy, w.name)
			}
		}
		c.lose(fmt.Errorf("%q did not end within %v", busy, stuck))
	}
	if c.ctx.Err() != nil {
		c.t.Fatalf("%v", context.Cause(c.ctx))
	}
	for _, w := range c.workers {
		if w.transfers == 0 {
			c.t.Errorf("%s has finished nothing", w.name)
		}
	}
	c.t.Log(c.result())
	c.cancel(errOver)
}

// result is the line that tells what happened.
func (c *chaos) result() string {
	var b strings.Builder
	fmt.Fprintf(&b, "chaos: seed %d, %v:", c.seed, time.Since(c.begin).Round(time.Second))
	for strike, count := range c.struck {
		fmt.Fprintf(&b, " %d %s,", count, strikeKind(strike).plural())
	}
	var opened, resumed, refused int64
	var fired [5]int64
	for _, g := range c.gates() {
		opened += g.Counts.Opened.Load()
		resumed += g.Counts.Resumed.Load()
		refused += g.Counts.Refused.Load()
	}
	for _, g := range append(c.gates(), c.agentGate) {
		for i := range fired {
			fired[i] += g.Counts.Fired[i].Load()
		}
	}
	fmt.Fprintf(&b, " of which came about:")
	for i, n := range fired {
		fmt.Fprintf(&b, " %d × %s,", n, fault.Kind(i))
	}
	fmt.Fprintf(&b, " %d transfers, %d MiB, %d sessions, %d not begun, %d resumes, %d refused",
		c.transfers.Load(), c.bytes.Load()>>20, opened, c.unbegun.Load(), resumed, refused)
	c.mu.Lock()
	pauses := slices.Sorted(slices.Values(c.pauses))
	c.mu.Unlock()
	if n := len(pauses); n > 0 {
		fmt.Fprintf(&b, ", %d pauses after a server was back: p50 %v, p99 %v, max %v", n,
			pauses[n/2].Round(time.Millisecond), pauses[n*99/100].Round(time.Millisecond), pauses[n-1].Round(time.Millisecond))
	}
	return b.String() + ", lost = 0"
}

// gates are the clients'.
func (c *chaos) gates() []*fault.Gate {
	var all []*fault.Gate
	for _, w := range c.workers {
		all = append(all, w.gate)
	}
	return all
}
