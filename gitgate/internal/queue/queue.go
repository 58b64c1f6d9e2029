// Package queue runs one piece of work at a time for each key, and a limited
// number in all. Of what arrives for a key while its work runs only the newest
// waits. Failures are tried again, with growing pauses. It does not know what the
// work is.
package queue

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// maxPause is the longest pause between two tries.
const maxPause = 30 * time.Second

// Options say how to run.
type Options[J any] struct {
	// Threads is how much runs at a time, at least 1.
	Threads int
	// Tries is how often a job is tried in all, at least 1, and Delay the first
	// pause; each after it is twice as long.
	Tries int
	Delay time.Duration
	// Pace is the least time from one start to the next of the same key, so that
	// a storm of jobs becomes two: the first, and one for all the others. Another
	// try comes after its own pause, of which a newer job waits for no more than
	// this.
	Pace time.Duration
	// Run does the work. again asks for another try; it is not looked at after
	// the last one. ctx does not end while the queue is closed in order.
	Run func(ctx context.Context, key string, job J, last bool) (again bool)
	// Merge makes one job of one that waits for its turn or another try and a newer
	// one, and reports whether its tries begin anew, without a pause; else they go
	// on. nil takes the newer, anew.
	Merge func(older, newer J) (merged J, anew bool)
}

// Queue is one. All methods may be called concurrently.
type Queue[J any] struct {
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu      sync.Mutex
	o       Options[J]
	keys    map[string]*work[J]
	ready   []*work[J] // waiting for a thread, first come first served
	running int
	closing chan struct{}
	closed  bool
}

// work is what a key has to do.
type work[J any] struct {
	key     string
	job     J
	waiting bool          // job is to be run
	undone  bool          // it has been run, and is to be tried again
	idle    bool          // there is nothing to do but to keep the pace
	newer   chan struct{} // has an element when job is newer than what is tried
	turn    chan struct{} // gets an element when it may run
}

// New makes a queue. Close ends it.
func New[J any](o Options[J]) *Queue[J] {
	q := &Queue[J]{o: o, keys: map[string]*work[J]{}, closing: make(chan struct{})}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// Configure changes numbers and times from now on; Run and Merge stay.
func (q *Queue[J]) Configure(threads, tries int, delay time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.o.Threads, q.o.Tries, q.o.Delay = threads, tries, delay
	q.admit()
}

// Add takes a job for a key. It reports false after Close. A job that waits for
// its turn, or for another try, is merged with it, and its pause is over when the
// pace allows.
func (q *Queue[J]) Add(key string, job J) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	w := q.keys[key]
	if w == nil {
		w = &work[J]{key: key, newer: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
		q.keys[key] = w
		w.job, w.waiting = job, true
		q.wait.Go(func() { q.work(w) })
		return true
	}
	anew := true
	if w.waiting || w.undone {
		job, anew = q.merge(w.job, job)
	}
	w.job = job
	if anew {
		w.waiting, w.idle = true, false
		select {
		case w.newer <- struct{}{}:
		default:
		}
	}
	return true
}

func (q *Queue[J]) merge(older, newer J) (J, bool) {
	if q.o.Merge == nil {
		return newer, true
	}
	return q.o.Merge(older, newer)
}

// Busy returns how many keys have something to do.
func (q *Queue[J]) Busy() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := 0
	for _, w := range q.keys {
		if !w.idle {
			n++
		}
	}
	return n
}

// Close refuses jobs, drops those that wait, and waits for those that run. Where
// ctx ends first, their context ends, and it still waits.
func (q *Queue[J]) Close(ctx context.Context) {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
	}
	q.mu.Unlock()
	stop := context.AfterFunc(ctx, q.cancel)
	q.wait.Wait()
	stop()
	q.cancel()
}

// work runs the jobs of one key until there is none.
func (q *Queue[J]) work(w *work[J]) {
	for {
		q.mu.Lock()
		if !w.waiting || q.closed {
			delete(q.keys, w.key)
			q.mu.Unlock()
			return
		}
		pace := q.o.Pace
		q.mu.Unlock()
		start := time.Now()
		q.tries(w)
		q.mu.Lock()
		w.idle = !w.waiting
		q.mu.Unlock()
		if pace -= time.Since(start); pace > 0 {
			q.sleep(pace, nil)
		}
	}
}

// tries runs what waits, until that is good, or was tried often enough.
func (q *Queue[J]) tries(w *work[J]) {
	for try := 1; ; try++ {
		if !q.acquire(w) {
			return
		}
		q.mu.Lock()
		job := w.job
		if w.waiting { // it is the first, or another came meanwhile
			try = 1
		}
		w.waiting, w.undone = false, false
		select {
		case <-w.newer: // it is the one that is taken
		default:
		}
		most := q.o.Tries
		q.mu.Unlock()
		start := time.Now()
		again := q.o.Run(q.ctx, w.key, job, try >= most)
		q.release()
		if !again || try >= most {
			return
		}
		q.mu.Lock()
		w.undone = true
		if w.waiting {
			if w.job, w.waiting = q.merge(job, w.job); !w.waiting {
				<-w.newer
			}
		}
		pause, pace := min(q.o.Delay<<min(try-1, 20), maxPause), q.o.Pace
		q.mu.Unlock()
		pause = time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
		// A storm of jobs that fail keeps the pace as well.
		fixed := min(pause, max(0, pace-time.Since(start)))
		if !q.sleep(fixed, nil) || !q.sleep(pause-fixed, w.newer) {
			return
		}
	}
}

// sleep waits, until early has something at most; false when the queue is
// closing.
func (q *Queue[J]) sleep(d time.Duration, early <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-early:
	case <-q.closing:
		return false
	}
	return true
}

// acquire waits for a thread.
func (q *Queue[J]) acquire(w *work[J]) bool {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return false
	}
	q.ready = append(q.ready, w)
	q.admit()
	q.mu.Unlock()
	select {
	case <-w.turn:
		return true
	case <-q.closing:
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, r := range q.ready {
		if r == w {
			q.ready = append(q.ready[:i:i], q.ready[i+1:]...)
			return false
		}
	}
	<-w.turn // it was let in at the same moment
	q.running--
	q.admit()
	return false
}

// admit lets those in for whom there is room. The caller holds the mutex.
func (q *Queue[J]) admit() {
	for q.running < q.o.Threads && len(q.ready) > 0 {
		q.running++
		q.ready[0].turn <- struct{}{}
		q.ready = q.ready[1:]
	}
}

func (q *Queue[J]) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.running--
	q.admit()
}
