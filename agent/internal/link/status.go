package link

import (
	"context"
	"time"

	"example.com/converge/pkg/rendezvous"
)

// statusPause is the least time between two messages about how the agent
// stands: each key that a user types puts off its end.
const statusPause = 2 * time.Second

// Status says how the agent stands, for the server's sessions page: now, if it
// is registered, and after each registration. It never waits.
func (l *Link) Status(s rendezvous.Status) {
	l.smu.Lock()
	same := l.status != nil && *l.status == s
	l.status = &s
	l.smu.Unlock()
	if same {
		return
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// tellStatus passes on what Status was told, until ctx ends.
func (l *Link) tellStatus(ctx context.Context, c *control) {
	var said rendezvous.Status
	for {
		l.smu.Lock()
		status := l.status
		l.smu.Unlock()
		if status != nil && *status != said {
			said = *status
			c.send(ctx, l.sendWait, rendezvous.Message{Status: &said})
			timer := time.NewTimer(statusPause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
		select {
		case <-l.changed:
		case <-ctx.Done():
			return
		}
	}
}
