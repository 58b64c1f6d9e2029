package sshd

import (
	"sync"
	"time"

	gssh "github.com/gliderlabs/ssh"
)

// Limits of failed attempts to log in, of all connections together; those of
// one connection are maxAuthTries. Each key that is offered in vain is one.
const (
	// freeFailures is how many are answered at once.
	freeFailures = 30
	// failureEvery is the time after which one more is.
	failureEvery = 500 * time.Millisecond
)

// pace spaces events out: some at once, the others at a steady rate (the
// generic cell rate algorithm). It is safe for concurrent use.
type pace struct {
	mu sync.Mutex
	// due is when all that have been counted would have come at the steady
	// rate.
	due time.Time
}

// wait counts an event and returns how long it has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(failureEvery)
	return p.due.Sub(now) - freeFailures*failureEvery
}

// paced returns whether an attempt is allowed, later if it is not and many
// others have failed. Those that succeed never wait, whoever else tries. A
// connection waits for one answer at a time, and at most maxPending can wait:
// nobody waits longer than that many times failureEvery.
func (s *Server) paced(ctx gssh.Context, allowed bool) bool {
	if allowed {
		return true
	}
	wait := s.failures.wait(time.Now())
	if wait <= 0 {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Value(connKey).(*conn).closed:
	}
	return false
}
