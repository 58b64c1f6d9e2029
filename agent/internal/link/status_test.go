package link

import (
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
)

// nextStatus is the next message of that kind.
func nextStatus(t *testing.T, c *servertest.Control) rendezvous.Status {
	t.Helper()
	for {
		check(t, c.SetReadDeadline(time.Now().Add(time.Hour)))
		m, err := rendezvous.Receive(c)
		check(t, err)
		if m.Status != nil {
			return *m.Status
		}
	}
}

// TestStatus is told when it changes, not more often than the server wants, and
// again after each registration.
func TestStatus(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		var l *Link
		b := startOver(t, server, func(cfg *Config) { cfg.KeepAlive = time.Minute }, func(made *Link) { l = made })
		waiting := rendezvous.Status{State: "waiting", Expires: 1000}
		l.Status(waiting)
		c := b.registered()
		if got := nextStatus(t, c); got != waiting {
			t.Errorf("first it says %+v", got)
		}
		began := time.Now()
		for i := range 100 { // as many keys
			l.Status(rendezvous.Status{State: "active", Users: 1, Expires: int64(2000 + i)})
			time.Sleep(time.Millisecond)
		}
		if got := nextStatus(t, c); got.Expires != 2099 || got.Users != 1 {
			t.Errorf("then it says %+v", got)
		}
		within(t, "the second message", time.Since(began), statusPause-time.Second, statusPause+time.Millisecond)
		check(t, c.Close())
		c = b.registered()
		if got := nextStatus(t, c); got.Expires != 2099 {
			t.Errorf("registered again it says %+v", got)
		}
		l.Status(rendezvous.Status{State: "active", Users: 1, Expires: 2099}) // the same
		synctest.Wait()
		b.end()
		saysBye(t, c)
	})
}
