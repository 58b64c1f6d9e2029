//go:build unix

package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/server/internal/fakeagent"
)

// startWithFiles starts a server that may have so many files open.
func startWithFiles(t *testing.T, files int, args ...string) *process {
	t.Helper()
	return startBy(t, []string{"sh", "-c", `ulimit -n "$0" && exec server "$@"`, fmt.Sprint(files)}, args...)
}

// refusal returns the status of a refused handshake, and 0 for anything else.
func refusal(err error) int {
	var refused *transport.RefusedError
	if !errors.As(err, &refused) {
		return 0
	}
	return refused.Status
}

// TestOutOfFiles fills the server with sessions, then with connections, until
// it takes no more of them. Who is in stays in, newcomers get their sentence,
// and when some leave there is room again.
func TestOutOfFiles(t *testing.T) {
	p := startWithFiles(t, 64)
	p.serveAgent("job")
	idle, err := fakeagent.Register(t.Context(), p.server, "idle", fakeagent.NewKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Vanish()
	var sessions []*frame.Conn
	for {
		conn, err := p.dial("job")
		if err == nil {
			sessions = append(sessions, conn)
			continue
		}
		if refusal(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "no room for more connections") {
			t.Fatalf("session %d: %v, want 503", len(sessions), err)
		}
		break
	}
	if n := len(sessions); n < 8 || n > 32 {
		t.Fatalf("of 64 files %d sessions were made, which have two each", n)
	}
	if _, err := fakeagent.Register(t.Context(), p.server, "other", fakeagent.NewKey(), nil); refusal(err) != http.StatusServiceUnavailable {
		t.Errorf("another agent: %v, want 503", err)
	}

	// Nothing is parked: leave for it would come before the answer to a goodbye.
	for _, m := range []rendezvous.Message{{Park: &rendezvous.Park{}}, {Bye: &rendezvous.Bye{}}} {
		if err := idle.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := idle.Receive(); err == nil {
		t.Errorf("an agent that asked to park, and left, was told %+v", m)
	}

	// There is still room for pages, and then for nothing.
	var web []*peer
	for {
		c := p.connect()
		if got := c.status("/assets/icon.svg"); got == http.StatusServiceUnavailable {
			if len(web) == 0 {
				continue // until those that were refused are seen to be gone
			}
			break
		} else if got != http.StatusOK {
			t.Fatalf("page %d: %d", len(web), got)
		}
		web = append(web, c)
		if len(web) > 64 {
			t.Fatal("it takes more connections than it may have files")
		}
	}
	if got := p.connect().status("/healthz"); got != http.StatusOK {
		t.Errorf("a full server says of its health %d", got)
	}
	for range 20 {
		if _, err := p.dial("job"); refusal(err) != http.StatusServiceUnavailable {
			t.Errorf("when all is taken: %v, want 503", err)
		}
	}
	for _, conn := range sessions {
		echoes(t, conn)
	}
	for _, c := range web {
		if got := c.status("/"); got != http.StatusOK {
			t.Errorf("a page over a connection that is there: %d", got)
		}
	}

	for _, conn := range sessions[1:] {
		_ = conn.Close()
	}
	for _, c := range web {
		_ = c.Close()
	}
	p.roomAgain()
	echoes(t, sessions[0])
	_ = sessions[0].Close()
	if logged := p.end(syscall.SIGTERM); strings.Contains(logged, "too many open files") {
		t.Errorf("it met its limit:\n%s", logged)
	}
}

// roomAgain dials until the server has seen that others have left, and checks
// the session that it gets.
func (p *process) roomAgain() {
	p.t.Helper()
	for begin := time.Now(); ; {
		conn, err := p.dial("job")
		if err == nil {
			echoes(p.t, conn)
			_ = conn.Close()
			return
		}
		if refusal(err) != http.StatusServiceUnavailable || time.Since(begin) > patience {
			p.t.Fatalf("there is no room again: %v", err)
		}
	}
}

// TestCrowd has a thousand clients with a wrong id come upon a server that has
// room for a few at a time. Each gets one sentence or the other.
func TestCrowd(t *testing.T) {
	p := startWithFiles(t, 64)
	p.serveAgent("job")
	session := p.client("job")
	var group errgroup.Group
	group.SetLimit(100)
	for i := range 1000 {
		group.Go(func() error {
			_, err := frame.Dial(t.Context(), p.server.ClientURL(fmt.Sprintf("wrong%d", i)), fakeagent.Transport(), nil, frame.Options{})
			if got := refusal(err); got != http.StatusNotFound && got != http.StatusServiceUnavailable {
				t.Errorf("client %d: %v, want 404 or 503", i, err)
			}
			return nil
		})
	}
	_ = group.Wait()
	echoes(t, session)
	p.roomAgain()
	_ = session.Close()
	p.end(syscall.SIGTERM)
}

// TestAcceptFails has so few files that the limit is met before it is
// counted: who is there is served, and who waits is when others leave.
func TestAcceptFails(t *testing.T) {
	p := startWithFiles(t, 12, "--log-level", "debug")
	var crowd []*peer
	for range 24 {
		c := p.connect() // the kernel takes it in
		c.ask("/healthz")
		crowd = append(crowd, c)
	}
	p.logged("too many open files")
	for i, c := range crowd {
		if got := c.answer().StatusCode; got != http.StatusOK {
			t.Errorf("connection %d: %d", i, got)
		}
		_ = c.Close()
	}
	p.end(syscall.SIGTERM)
}
