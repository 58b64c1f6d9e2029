package hub

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

// network is a TCP proxy whose cable can be pulled: connections stay open at
// both ends and nothing comes through any more.
type network struct {
	listener net.Listener
	target   string

	mu    sync.Mutex
	whole sync.Cond // on mu
	cut   bool
	conns []net.Conn
	pumps sync.WaitGroup
}

func newNetwork(t *testing.T, target string) *network {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{listener: l, target: target}
	n.whole.L = &n.mu
	n.pumps.Go(n.accept)
	t.Cleanup(func() {
		_ = l.Close()
		n.set(false)
		n.mu.Lock()
		for _, c := range n.conns {
			_ = c.Close()
		}
		n.mu.Unlock()
		n.pumps.Wait()
	})
	return n
}

func (n *network) accept() {
	for {
		near, err := n.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", n.target)
		if err != nil {
			_ = near.Close()
			return
		}
		n.mu.Lock()
		n.conns = append(n.conns, near, far)
		n.mu.Unlock()
		n.pumps.Go(func() { n.pump(near, far) })
		n.pumps.Go(func() { n.pump(far, near) })
	}
}

// pump copies while the network is whole; an end is passed on then too.
func (n *network) pump(to, from net.Conn) {
	buf := make([]byte, 4096)
	for {
		got, err := from.Read(buf)
		n.mu.Lock()
		for n.cut {
			n.whole.Wait()
		}
		n.mu.Unlock()
		if got > 0 {
			if _, err := to.Write(buf[:got]); err != nil {
				return
			}
		}
		if err != nil {
			_ = to.(*net.TCPConn).CloseWrite()
			return
		}
	}
}

// set cuts the network, or makes it whole and lets through what was held up.
func (n *network) set(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
	n.whole.Broadcast()
}

func (n *network) server() rendezvous.Server {
	return rendezvous.Server{Host: n.listener.Addr().String()}
}

// TestReturnOverHalfOpenLink: the server cannot know that the agent's old
// connection is dead, and must believe the key.
func TestReturnOverHalfOpenLink(t *testing.T) {
	f := serve(t, nil)
	cable := newNetwork(t, f.addr)
	key := fakeagent.NewKey()
	old, err := fakeagent.Register(t.Context(), cable.server(), "job", key, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = old.Conn.Close() })

	cable.set(true)
	// Nobody but the key's owner gets the id, however dead the holder is.
	for range 3 {
		_, err := fakeagent.Register(t.Context(), f.rv, "job", fakeagent.NewKey(), nil)
		var refused *rendezvous.Refused
		if !errors.As(err, &refused) || refused.Code != rendezvous.RefusedTaken {
			t.Fatalf("a stranger's registration: %v", err)
		}
		wait(t, "the end of the stranger's connection", f.closed)
	}
	// A client that came before the agent's return is told to try again.
	early := f.dialLater("job")
	for f.visits() == 0 { // it yields to the server by dialling
		_, err := f.dial("nobody")
		wantRefused(t, err, http.StatusNotFound, "")
	}

	f.serveAgent("job", key, say("back"))
	if got := f.hear("job"); got != "back" {
		t.Errorf("a client after the return heard %q", got)
	}
	cable.set(false)
	wantRefused(t, wait(t, "the early client", early).err, http.StatusBadGateway, "")
	// What the network held up: the early client's dial, if it was that early,
	// and then the reason.
	m, err := old.Receive()
	if m.Dial != nil {
		_, err = old.DialBack(t.Context(), m.Dial)
		wantRefused(t, err, http.StatusForbidden, "nobody waits")
		_, err = old.Receive()
	}
	wantRefusal(t, old, err, rendezvous.RefusedDisplaced, "newer connection")

	// The end of the old connection does not free the successor's id.
	for f.open.Load() != 1 {
		wait(t, "the end of the old connection", f.closed)
	}
	if got := f.hear("job"); got != "back" {
		t.Errorf("a client after the end of the old connection heard %q", got)
	}
}

// visits is how many clients wait.
func (f *fixture) visits() int {
	f.hub.vmu.Lock()
	defer f.hub.vmu.Unlock()
	return len(f.hub.visits)
}

// TestReturnKeepsSessions: clients of the old connection stay.
func TestReturnKeepsSessions(t *testing.T) {
	f := serve(t, nil)
	key := fakeagent.NewKey()
	ended := f.serveAgent("job", key, echo)
	client := f.client("job")
	f.serveAgent("job", key, say("back"))
	wait(t, "the end of the old control connection", f.closed)
	if _, err := io.WriteString(client, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "ping" {
		t.Errorf("%q, %v", got, err)
	}
	_ = client.Close()
	var refused *rendezvous.Refused
	if err := wait(t, "the end of the old agent", ended); !errors.As(err, &refused) || refused.Code != rendezvous.RefusedDisplaced {
		t.Errorf("the old connection ended with %v", err)
	}
	if got := f.hear("job"); got != "back" {
		t.Errorf("heard %q", got)
	}
}
