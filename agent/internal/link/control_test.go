package link

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
)

func TestVisit(t *testing.T) {
	header := http.Header{"X-Token": {"secret"}}
	b := start(t, newServer(t), func(cfg *Config) { cfg.Header = header }, nil)
	c := b.registered()
	check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1<<64 - 1, Token: "open sesame", Remote: "192.0.2.7:1\x1b]0;boo\x07"}}))
	data, err := b.server.Data(t.Context())
	check(t, err)
	t.Cleanup(func() { _ = data.Close() })
	for name, want := range map[string]string{
		rendezvous.ClientHeader: "18446744073709551615",
		rendezvous.TokenHeader:  "open sesame",
		"X-Token":               "secret",
	} {
		if got := data.Header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	if len(header) != 1 {
		t.Errorf("the caller's header was changed: %v", header)
	}
	v := receive(t, "a client", b.clients)
	if v.Remote != "192.0.2.7:1?]0;boo?" {
		t.Errorf("the client's address is %q", v.Remote)
	}
	exchange(t, data)
	// Another one has a connection of its own.
	other, _ := b.visit(c)
	check(t, data.Close())
	exchange(t, other)
}

// TestVisitSegment has the client's first bytes arrive in the segment that
// ends the dial-back's handshake.
func TestVisitSegment(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	c := b.registered()
	peers := make(chan io.ReadWriter, 1)
	const first = "SSH-2.0-early\r\n"
	b.server.Answer(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrade(w, r, []byte(first))
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		peers <- conn
	})
	check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}))
	got := make([]byte, len(first))
	if _, err := io.ReadFull(receive(t, "a dial-back", peers), got); err != nil || string(got) != first {
		t.Errorf("%q came back: %v", got, err)
	}
}

// TestDialBackFails tells the server, which tells the client.
func TestDialBackFails(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	c := b.registered()
	b.server.Answer(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "never \x1bheard of", http.StatusForbidden)
	})
	check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 41, Token: "t"}}))
	failed := hearFailed(t, c)
	if failed.Client != 41 || failed.Text != "the agent could not connect back" {
		t.Errorf("the agent says %+v", failed)
	}
	if text := b.journal.String(); !strings.Contains(text, "never ?heard of") {
		t.Errorf("the log does not say why:\n%s", text)
	}
	// A token that cannot be a header is no way to make others.
	check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 42, Token: "t\r\nX-Other: 1"}}))
	if failed := hearFailed(t, c); failed.Client != 42 {
		t.Errorf("the agent says %+v", failed)
	}
	b.server.Answer(nil)
	b.visit(c)
	none(t, "served more than one", b.clients)
}

// TestRunWaitsForServe keeps the promise that nobody is served after Run.
func TestRunWaitsForServe(t *testing.T) {
	serving, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	b := start(t, newServer(t), func(cfg *Config) {
		cfg.Serve = func(conn net.Conn, _ Client) {
			close(serving)
			<-leave
			_ = conn.Close()
			close(left)
		}
	}, nil)
	c := b.registered()
	_, err := b.server.Visit(t.Context(), c, "")
	check(t, err)
	receive(t, "a client", serving)
	b.end()
	saysBye(t, c) // does not wait for clients
	none(t, "Run has returned", b.result)
	close(leave)
	check(t, b.wait())
	select {
	case <-left:
	default:
		t.Error("Run has returned before Serve")
	}
}

// TestBytes moves more than any buffer holds, both ways at once.
func TestBytes(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	data, _ := b.visit(b.registered())
	check(t, data.SetDeadline(time.Now().Add(patience)))
	want := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	sent := make(chan error, 1)
	go func() {
		_, err := data.Write(want)
		sent <- err
	}()
	got := make([]byte, len(want))
	_, err := io.ReadFull(data, got)
	check(t, err)
	check(t, receive(t, "the bytes to go", sent))
	if !bytes.Equal(got, want) {
		t.Error("other bytes came back")
	}
}

// TestNothingAfterTheEnd shows that no answer comes between an agent that ends
// and its goodbye, whose time it would take.
func TestNothingAfterTheEnd(t *testing.T) {
	server := newServer(t)
	conn, err := wsconn.Dial(t.Context(), server.Address.AgentURL("job"), server.Transport(), nil, wsconn.Options{})
	check(t, err)
	peer, err := server.Control(t.Context())
	check(t, err)
	c := &control{conn: conn}
	ctx, end := context.WithCancel(t.Context())
	end()
	c.send(ctx, patience, rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: 1}})
	gone := make(chan struct{})
	go func() {
		c.goodbye(patience)
		close(gone)
	}()
	saysBye(t, peer)
	receive(t, "the goodbye to end", gone)
}
