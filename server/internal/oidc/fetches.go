package oidc

import (
	"context"
	"sync"
	"time"
)

// flight is a fetch that is under way.
type flight struct {
	began time.Time
	done  chan struct{} // closed at its end
}

// fetches owns the goroutines that ask issuers. Its methods may be called
// concurrently.
type fetches struct {
	ctx    context.Context // of all of them, until close
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
}

func newFetches() *fetches {
	f := &fetches{}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// start runs ask in a goroutine, unless close has been called.
func (f *fetches) start(ask func(context.Context)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.running.Go(func() { ask(f.ctx) })
	return true
}

// close ends what runs, and waits for it.
func (f *fetches) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.cancel()
	f.running.Wait()
}
