package engine

import (
	"context"
	"sync"

	"example.com/converge/dispatch/internal/build"
)

// subscriber gets the newest state of each build that has changed.
type subscriber struct {
	id   string
	mu   sync.Mutex
	next []string
	what map[string]build.Build
	wake chan struct{}
}

// Subscribe implements build.Store.
func (e *Engine) Subscribe(ctx context.Context, id string) <-chan build.Build {
	out := make(chan build.Build)
	s := &subscriber{id: id, what: map[string]build.Build{}, wake: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		close(out)
		return out
	}
	e.subs[s] = true
	e.wg.Go(func() {
		defer close(out)
		defer func() {
			e.mu.Lock()
			delete(e.subs, s)
			e.mu.Unlock()
		}()
		for {
			b, ok := s.take()
			if !ok {
				select {
				case <-s.wake:
				case <-ctx.Done():
					return
				case <-e.ctx.Done():
					return
				}
				continue
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return
			case <-e.ctx.Done():
				return
			}
		}
	})
	return out
}

func (s *subscriber) take() (build.Build, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.next) == 0 {
		return build.Build{}, false
	}
	id := s.next[0]
	s.next = s.next[1:]
	b := s.what[id]
	delete(s.what, id)
	return b, true
}

func (s *subscriber) put(b build.Build) {
	if s.id != "" && s.id != b.ID {
		return
	}
	s.mu.Lock()
	if _, waits := s.what[b.ID]; !waits {
		s.next = append(s.next, b.ID)
	}
	s.what[b.ID] = b
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// publish tells everybody that a build has changed. The lock is held.
func (e *Engine) publish(x *entry) {
	close(x.changed)
	x.changed = make(chan struct{})
	b := public(x.rec)
	for s := range e.subs {
		s.put(b)
	}
}
