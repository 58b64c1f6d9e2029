package wsconn

import (
	"sync"
	"time"
)

// deadline is one direction's deadline: a channel that is closed while it has
// passed. The zero value never passes.
type deadline struct {
	mu     sync.Mutex
	timer  *time.Timer
	passed chan struct{}
}

// expired returns a channel that is closed when the deadline passes, also one
// that is set after this call. After set has revoked a deadline that had
// passed, ask again.
func (d *deadline) expired() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.channelLocked()
}

// set moves the deadline; the zero time takes it away.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	passed := d.channelLocked()
	if isDone(passed) {
		d.passed = make(chan struct{})
		passed = d.passed
	}
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		close(passed)
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		// A timer that fires while set replaces it must change nothing.
		if d.timer == timer {
			close(passed)
			d.timer = nil
		}
	})
	d.timer = timer
}

func (d *deadline) channelLocked() chan struct{} {
	if d.passed == nil {
		d.passed = make(chan struct{})
	}
	return d.passed
}
