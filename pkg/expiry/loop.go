package expiry

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxQueued bounds the events that wait for Run. It is reached only while
// handle blocks; senders are then held back.
const maxQueued = 1024

// ErrRun is the error of a second Run.
var ErrRun = errors.New("run expiry loop: it was run before: make a new loop for another session")

// ErrOver is the error of a Do that came after the end of the session.
var ErrOver = errors.New("the session is over")

// Loop owns the State of one session: Run's goroutine alone steps it, woken by
// events and by one timer. All other methods are safe for concurrent use.
type Loop struct {
	handle func(Effect)
	arrive chan struct{} // capacity 1: the queue is not empty
	done   chan struct{} // closed when Run is over

	mu    sync.Mutex
	begun bool
	over  bool
	queue []stamped
	room  chan struct{} // closed, and replaced, when a full queue is taken
	state State

	// Run's alone once it runs: the effects and wake-up of the start.
	effects []Effect
	wake    time.Time
}

// stamped is an event with the time at which it was sent, so that a Run that is
// late does not take an activity in time for one after the deadline.
type stamped struct {
	event Event
	at    time.Time
	done  chan<- struct{} // closed when its effects are carried out; nil for nobody
}

// NewLoop begins a session now. Its error is that of cfg.Validate.
//
// handle is called by Run's goroutine with each effect in order; nil discards
// them. It should return soon, since meanwhile no deadline is kept, and must not
// call Send, which may wait for it; Snapshot is allowed.
func NewLoop(cfg Config, handle func(Effect)) (*Loop, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if handle == nil {
		handle = func(Effect) {}
	}
	l := &Loop{
		handle: handle,
		arrive: make(chan struct{}, 1),
		done:   make(chan struct{}),
		room:   make(chan struct{}),
	}
	l.state, l.effects, l.wake = New(cfg, time.Now())
	return l, nil
}

// Run keeps the session until it ends, and returns the reason after handle has
// returned from the End. If ctx is done before, it returns None and the cause,
// without any effect. It may be called once; a second call returns ErrRun.
func (l *Loop) Run(ctx context.Context) (Reason, error) {
	l.mu.Lock()
	if l.begun {
		l.mu.Unlock()
		return None, ErrRun
	}
	l.begun = true
	l.mu.Unlock()
	defer l.finish()

	for _, effect := range l.effects {
		l.handle(effect)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if l.wake.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(l.wake))
		}
		select {
		case <-ctx.Done():
			return None, context.Cause(ctx)
		case <-timer.C:
		case <-l.arrive:
		}
		for _, s := range l.take() {
			if reason := l.step(s); reason != None {
				return reason, nil
			}
		}
	}
}

// take empties the queue. A Tick follows what it held, for what is due by now.
func (l *Loop) take() []stamped {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := append(l.queue, stamped{event: Tick(), at: time.Now()})
	if len(l.queue) >= maxQueued {
		close(l.room)
		l.room = make(chan struct{})
	}
	l.queue = nil
	return batch
}

// step applies one event and carries its effects out. The state is published
// first, so that handle sees it in a Snapshot.
func (l *Loop) step(s stamped) Reason {
	state, effects, wake := Step(l.state, s.event, s.at)
	l.mu.Lock()
	l.state = state
	l.mu.Unlock()
	l.wake = wake
	for _, effect := range effects {
		l.handle(effect)
	}
	if s.done != nil {
		close(s.done)
	}
	return state.ended
}

func (l *Loop) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	l.queue = nil
	close(l.done)
}

// Send gives the loop an event, stamped with the present time. It returns at
// once, save where more than a thousand events wait for a slow handle: then it
// returns when there is room again or Run is over. After that it does nothing.
// Events sent before Run wait for it.
func (l *Loop) Send(e Event) { l.send(e, nil) }

// Do is Send, and waits until the event has happened and its effects have been
// carried out. It returns the status after that; the error is ErrOver if the
// session was over before, or ctx's, which does not take the event back.
func (l *Loop) Do(ctx context.Context, e Event) (Status, error) {
	done := make(chan struct{})
	l.send(e, done)
	select {
	case <-done:
		return l.Snapshot(), nil
	case <-l.done:
	case <-ctx.Done():
		return l.Snapshot(), context.Cause(ctx)
	}
	select {
	case <-done: // it was the last event
		return l.Snapshot(), nil
	default:
		return l.Snapshot(), ErrOver
	}
}

func (l *Loop) send(e Event, done chan<- struct{}) {
	for {
		room := l.offer(e, done)
		if room == nil {
			return
		}
		select {
		case <-room:
		case <-l.done:
			return
		}
	}
}

// offer queues e, or returns what to wait for.
func (l *Loop) offer(e Event, done chan<- struct{}) (room <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return nil
	}
	now := time.Now()
	// A bulk transfer is activity thousands of times a second. Of what came
	// within a second of the one before it, the last is enough.
	if n := len(l.queue); n > 1 && e.kind == evActivity && done == nil &&
		l.queue[n-1].event.kind == evActivity && l.queue[n-2].event.kind == evActivity &&
		now.Sub(l.queue[n-2].at) < time.Second {
		l.queue[n-1].at = now
		return nil
	}
	if len(l.queue) >= maxQueued {
		return l.room
	}
	l.queue = append(l.queue, stamped{e, now, done})
	select {
	case l.arrive <- struct{}{}:
	default: // a wake-up is on its way already
	}
	return nil
}

// Done is closed when Run is over.
func (l *Loop) Done() <-chan struct{} { return l.done }

// Snapshot describes the session as it stands. Before Run that is the start,
// after it the end.
func (l *Loop) Snapshot() Status {
	l.mu.Lock()
	state := l.state
	l.mu.Unlock()
	return state.Status(time.Now())
}
