package hub

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/presence"
)

func everybody(string) bool { return true }

// TestPresent: who is here, with their own words, while they are, and every
// byte is counted once.
func TestPresent(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	f.register("other", fakeagent.NewKey())
	status := rendezvous.Status{State: "active", Users: 1, Expires: 1_800_000_000}
	if err := a.Send(rendezvous.Message{Status: &status}); err != nil {
		t.Fatal(err)
	}
	f.until("the status", func() bool {
		agents, _ := f.hub.Present(everybody)
		return len(agents) == 2 && agents[0].State == status.State && agents[0].Users == status.Users && agents[0].Expires != nil && agents[0].Expires.Unix() == status.Expires
	})
	agents, clients := f.hub.Present(func(id string) bool { return id == "job" })
	if len(agents) != 1 || len(clients) != 0 || agents[0].ID != "job" || agents[0].Software != "fake agent" || agents[0].Remote == "" || agents[0].Since.IsZero() {
		t.Errorf("present are %+v, %+v", agents, clients)
	}

	done := f.serveAgent("echo", fakeagent.NewKey(), func(conn net.Conn) { _, _ = io.Copy(conn, conn); _ = conn.Close() })
	session := f.client("echo")
	if _, err := io.WriteString(session, "hello"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(session, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	// Bytes are counted a moment after they are there.
	f.until("the bytes", func() bool {
		_, clients = f.hub.Present(everybody)
		return len(clients) == 1 && clients[0].ToAgent+clients[0].ToClient >= 10
	})
	if len(clients) != 1 || clients[0].ID != "echo" || clients[0].Session != session.Answer().Get(rendezvous.SessionHeader) || clients[0].ToAgent != 5 || clients[0].ToClient != 5 {
		t.Errorf("the clients are %+v", clients)
	}
	if toAgent, toClient := f.hub.Moved(); toAgent != 5 || toClient != 5 {
		t.Errorf("moved were %d and %d", toAgent, toClient)
	}
	_ = session.Close()
	f.until("the client to go", func() bool { _, clients := f.hub.Present(everybody); return len(clients) == 0 })
	if toAgent, toClient := f.hub.Moved(); toAgent != 5 || toClient != 5 {
		t.Errorf("moved were %d and %d in the end", toAgent, toClient)
	}
	a.Vanish()
	f.until("the agent to go", func() bool { agents, _ := f.hub.Present(everybody); return len(agents) == 2 })
	if n := f.hub.Kept(); n != 0 { // without a window
		t.Errorf("%d ids are kept", n)
	}
	_ = done
}

// TestPresentWaits: nothing waits for whoever decides what is shown.
func TestPresentWaits(t *testing.T) {
	f := serve(t, nil)
	f.register("job", fakeagent.NewKey())
	asked := 0
	f.hub.Present(func(string) bool {
		asked++
		done := make(chan struct{})
		go func() { defer close(done); f.hub.Parked() }()
		select {
		case <-done:
		case <-time.After(patience):
			t.Error("it waits")
		}
		return true
	})
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}

// TestSessionID: the same id for the agent and for the client, another one for
// each, and one in a refusal.
func TestSessionID(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	seen := map[string]bool{}
	for _, first := range []string{"", rendezvous.NewSession(), "not an id", strings.Repeat("a", 1000)} {
		header := http.Header{}
		if first != "" {
			header.Set(rendezvous.SessionHeader, first)
		}
		result := make(chan *frame.Conn, 1)
		go func() {
			conn, err := frame.Dial(t.Context(), f.rv.ClientURL("job"), fakeagent.Transport(), header, frame.Options{})
			if err != nil {
				t.Error(err)
			}
			result <- conn
		}()
		m, err := a.Receive()
		if err != nil || m.Dial == nil {
			t.Fatalf("got %+v, %v", m, err)
		}
		data, err := a.DialBack(t.Context(), m.Dial)
		if err != nil {
			t.Fatal(err)
		}
		conn := <-result
		if conn == nil {
			t.FailNow()
		}
		id := conn.Answer().Get(rendezvous.SessionHeader)
		if !rendezvous.ValidSession(id) || id != m.Dial.Session || id == first || seen[id] {
			t.Errorf("the client is told %q, the agent %q", id, m.Dial.Session)
		}
		seen[id] = true
		// The client has its answer a moment before it is among them.
		var clients []presence.Client
		f.until("the client", func() bool { _, clients = f.hub.Present(everybody); return len(clients) > 0 })
		want := ""
		if rendezvous.ValidSession(first) {
			want = first
		}
		if len(clients) != 1 || clients[0].First != want || clients[0].Session != id {
			t.Errorf("the clients are %+v, want one that began as %q", clients, want)
		}
		_ = conn.Close()
		_ = data.Close()
		f.until("the client to go", func() bool { _, clients := f.hub.Present(everybody); return len(clients) == 0 })
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(f.rv.ClientURL("nobody"), "ws", "http", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := fakeagent.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if id := resp.Header.Get(rendezvous.SessionHeader); resp.StatusCode != http.StatusNotFound || !rendezvous.ValidSession(id) {
		t.Errorf("a refusal, %s, has the id %q", resp.Status, id)
	}
}
