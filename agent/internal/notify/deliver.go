package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"example.com/converge/pkg/apicall"
)

const (
	// attempts is how often one notice is tried, and noticeTimeout for how long.
	attempts      = 6
	noticeTimeout = 2 * time.Minute
	// firstPause is the first pause between two attempts; each one after it is
	// twice as long.
	firstPause = time.Second
	// maxRetryAfter is the longest pause that a service may ask for.
	maxRetryAfter = time.Minute
)

// worker sends to one target, one notice after the other.
type worker struct {
	target  *target
	client  *http.Client
	service service
	log     *slog.Logger
	closing <-chan struct{} // nothing is added any more
	wake    chan struct{}

	mu    sync.Mutex
	queue []Notice
	lost  int
}

// add puts a notice at the end of the queue. The newest ones are the ones to know.
func (w *worker) add(n Notice) {
	w.mu.Lock()
	if len(w.queue) == maxQueue {
		w.queue = w.queue[1:]
		w.lost++
	}
	w.queue = append(w.queue, n)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next returns the first notice, and how many were dropped before it; false when
// there is none.
func (w *worker) next() (n Notice, lost int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return n, 0, false
	}
	n, lost = w.queue[0], w.lost
	w.queue, w.lost = w.queue[1:], 0
	return n, lost, true
}

// run delivers until the session is closed and nothing is left, or ctx ends.
func (w *worker) run(ctx context.Context) {
	log := w.log.With("to", w.target.name)
	for ctx.Err() == nil {
		n, lost, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-w.closing:
			case <-ctx.Done():
				return
			}
			if n, lost, ok = w.next(); !ok {
				return
			}
		}
		if lost > 0 {
			log.Warn("there were more notices than could be sent: the oldest were dropped", "count", lost)
		}
		err := w.deliver(ctx, n)
		switch {
		case err == nil:
			log.Debug("told", "event", string(n.Event))
		case errors.Is(err, errGone):
			log.Warn("a notice was refused", "event", string(n.Event), "err", err)
			return
		default:
			log.Warn("a notice could not be delivered", "event", string(n.Event), "err", err)
		}
	}
}

// deliver sends one notice, again and again where that may help. Once the session
// is closed only its end is worth another attempt.
func (w *worker) deliver(ctx context.Context, n Notice) error {
	m, err := w.service.message(n)
	if err != nil || m == nil {
		return err
	}
	body, kind := m.body, m.kind
	if m.object != nil {
		if body, err = encode(m.object); err != nil {
			return err
		}
		kind = "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	pause := firstPause
	for attempt := 1; ; attempt++ {
		answer, wait, err := w.post(ctx, m, body, kind)
		if err == nil {
			w.service.answered(answer)
			return nil
		}
		if wait < 0 || attempt == attempts {
			return err
		}
		if wait > maxRetryAfter {
			return fmt.Errorf("%w, and asked for a pause of %s", err, wait.Round(time.Second))
		}
		jittered := time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
		if !w.wait(ctx, max(wait, jittered), n.Event != Ended) {
			return err
		}
		pause *= 2
	}
}

// wait reports whether another attempt is due; giveUp makes the end of the session
// end it.
func (w *worker) wait(ctx context.Context, d time.Duration, giveUp bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	closing := w.closing
	if !giveUp {
		closing = nil
	}
	select {
	case <-timer.C:
		return true
	case <-closing:
	case <-ctx.Done():
	}
	return false
}

// post makes one request. wait is how long to wait for another attempt at least,
// negative where there is no use in one.
func (w *worker) post(ctx context.Context, m *message, body []byte, kind string) (answer []byte, wait time.Duration, err error) {
	const useless = -1
	r := apicall.Request{Method: http.MethodPost, Address: w.target.address.String(), Header: w.target.header, Body: body, Type: kind}
	if m.path != "" {
		r.Method, r.Address = m.method, r.Address+m.path
	}
	caller := apicall.Caller{Client: w.client, UserAgent: "converge-agent", Secrets: w.target.secrets}
	if answer, err = caller.Do(ctx, r); err == nil {
		return answer, 0, nil
	}
	var why *apicall.Error
	switch {
	case !errors.As(err, &why):
		return nil, useless, err
	case why.Gone():
		return nil, useless, fmt.Errorf("%w: %w", err, errGone)
	case why.Retry:
		return nil, why.After, err
	}
	return nil, useless, err
}
