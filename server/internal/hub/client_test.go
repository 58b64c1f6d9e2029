package hub

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

func TestUnknownID(t *testing.T) {
	f := serve(t, nil)
	_, err := f.dial("team/job")
	wantRefused(t, err, http.StatusNotFound, `no agent is registered as "team/job": check the id, or the job may have ended`)
}

func TestPlainRequests(t *testing.T) {
	f := serve(t, nil)
	for _, path := range []string{"/agent/job", "/client/job", "/data"} {
		_, r := f.raw("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
		if body := wantAnswer(t, r, http.StatusUpgradeRequired); !strings.Contains(body, "websocket only") {
			t.Errorf("%s: %q", path, body)
		}
	}
}

func TestBadHandshakes(t *testing.T) {
	f := serve(t, nil)
	f.serveAgent("job", fakeagent.NewKey(), echo)
	for _, path := range []string{"/agent/other", "/client/job"} {
		for name, broken := range map[string]string{
			"version": strings.Replace(handshake(f, path, nil), "Version: 13", "Version: 12", 1),
			"key":     strings.Replace(handshake(f, path, nil), "Key: A", "Key: ", 1),
		} {
			_, r := f.raw(broken)
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusUpgradeRequired {
				t.Errorf("%s with a bad %s: %s", path, name, resp.Status)
			}
		}
	}
	if _, ok := f.hub.agents.Lookup("other"); ok {
		t.Error("a bad handshake registered an agent")
	}
}

func TestAgentDoesNotDialBack(t *testing.T) {
	f := serve(t, func(h *Hub) { h.dialWait = 50 * time.Millisecond })
	a := f.register("job", fakeagent.NewKey())
	_, err := f.dial("job")
	wantRefused(t, err, http.StatusGatewayTimeout, "did not answer in time")
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.DialBack(t.Context(), d)
	wantRefused(t, err, http.StatusForbidden, "nobody waits")
	f.noVisits()
}

// noVisits checks that no client waits.
func (f *fixture) noVisits() {
	f.t.Helper()
	f.hub.vmu.Lock()
	defer f.hub.vmu.Unlock()
	if n := len(f.hub.visits); n != 0 {
		f.t.Errorf("%d visits are left", n)
	}
}

func TestDialFailed(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	other := f.register("other", fakeagent.NewKey())
	waiting := f.dialLater("job")
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	// Another agent cannot send this one's clients away; it learns that its
	// message was read by what it is asked next.
	if err := other.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: "mine now"}}); err != nil {
		t.Fatal(err)
	}
	_ = other.Send(rendezvous.Message{Bye: &rendezvous.Bye{}}) // the server may be faster
	if _, err := other.Receive(); err != io.EOF {
		t.Fatal(err)
	}
	for range 2 { // the second is of no use and does no harm
		if err := a.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: "too many clients"}}); err != nil {
			t.Fatal(err)
		}
	}
	wantRefused(t, wait(t, "the client's end", waiting).err, http.StatusBadGateway, "too many clients")
	_, err = a.DialBack(t.Context(), d)
	wantRefused(t, err, http.StatusForbidden, "nobody waits")
	f.noVisits()
}

func TestToken(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	first, second := f.dialLater("job"), f.dialLater("job")
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	e, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	if d.Token == e.Token || d.Client == e.Client || len(d.Token) < 43 {
		t.Errorf("tokens %q and %q, clients %d and %d", d.Token, e.Token, d.Client, e.Client)
	}
	for name, wrong := range map[string]rendezvous.Dial{
		"empty":            {Client: d.Client},
		"another client's": {Client: d.Client, Token: e.Token},
		"a prefix":         {Client: d.Client, Token: d.Token[:len(d.Token)-1]},
		"longer":           {Client: d.Client, Token: d.Token + "A"},
		"unknown client":   {Client: e.Client + 1000, Token: d.Token},
		"client 0":         {Client: 0, Token: d.Token},
	} {
		_, err := a.DialBack(t.Context(), &wrong)
		t.Log(name)
		wantRefused(t, err, http.StatusForbidden, "nobody waits")
	}
	// No header at all, and one that is no number.
	_, r := f.raw(handshake(f, "/data", nil))
	wantAnswer(t, r, http.StatusForbidden)
	_, r = f.raw(handshake(f, "/data", http.Header{rendezvous.ClientHeader: {"x"}, rendezvous.TokenHeader: {d.Token}}))
	wantAnswer(t, r, http.StatusForbidden)

	// The clients still wait, and each gets its own connection.
	for _, dial := range []*rendezvous.Dial{d, e} {
		conn, err := a.DialBack(t.Context(), dial)
		if err != nil {
			t.Fatal(err)
		}
		say(dial.Token)(conn)
		_, err = a.DialBack(t.Context(), dial)
		wantRefused(t, err, http.StatusForbidden, "nobody waits") // once only
	}
	heard := make(map[string]bool)
	for _, ch := range []<-chan dialled{first, second} {
		got := wait(t, "a client", ch)
		if got.err != nil {
			t.Fatal(got.err)
		}
		text, err := io.ReadAll(got.conn)
		if err != nil {
			t.Error(err)
		}
		heard[string(text)] = true
	}
	if !heard[d.Token] || !heard[e.Token] {
		t.Errorf("heard %v", heard)
	}
	f.noVisits()
}

// TestTokenOfABrokenHandshake: the token is spent, and the client is told.
func TestTokenOfABrokenHandshake(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	waiting := f.dialLater("job")
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	_, r := f.raw(strings.Replace(handshake(f, "/data", fakeagent.DataHeader(d)), "Version: 13", "Version: 12", 1))
	wantAnswer(t, r, http.StatusUpgradeRequired)
	wantRefused(t, wait(t, "the client's end", waiting).err, http.StatusBadGateway, "the agent's connection failed")
	_, err = a.DialBack(t.Context(), d)
	wantRefused(t, err, http.StatusForbidden, "nobody waits")
}

func TestClientGivesUp(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	conn, _ := f.raw(handshake(f, "/client/job", nil))
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	f.hub.vmu.Lock()
	n := len(f.hub.visits)
	f.hub.vmu.Unlock()
	if n != 1 {
		t.Fatalf("%d visits, want 1", n)
	}
	_ = conn.Close()
	// Whether the server has noticed or not, the agent's connection ends.
	data, err := a.DialBack(t.Context(), d)
	if err == nil {
		_, err = io.Copy(io.Discard, data)
		_ = data.Close()
		if err == nil || errors.Is(err, frame.ErrSilent) {
			t.Logf("the data connection ended with %v", err)
		}
	} else {
		wantRefused(t, err, http.StatusForbidden, "nobody waits")
	}
	a.Vanish()
	wait(t, "the end of the control connection", f.closed)
}

// TestEarlyFrames come in the same segment as a handshake, from both sides.
func TestEarlyFrames(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	// Several kilobytes: more than a buffer of net/http holds.
	question, reply := strings.Repeat("question ", 2000), strings.Repeat("answer ", 2000)
	_, fromClient := f.raw(handshake(f, "/client/job", nil) + masked(ws.OpBinary, question))
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	_, fromData := f.raw(handshake(f, "/data", fakeagent.DataHeader(d)) + masked(ws.OpBinary, reply) + masked(ws.OpClose, "\x03\xe8"))
	wantAnswer(t, fromData, http.StatusSwitchingProtocols)
	wantAnswer(t, fromClient, http.StatusSwitchingProtocols)
	if got := payload(t, fromData, len(question)); got != question {
		t.Errorf("the agent got %d bytes, want the question's %d", len(got), len(question))
	}
	if got := payload(t, fromClient, len(reply)); got != reply {
		t.Errorf("the client got %d bytes, want the answer's %d", len(got), len(reply))
	}
	wantClose(t, fromClient, 1000)
}

// payload reads n bytes of binary frames.
func payload(t *testing.T, r io.Reader, n int) string {
	t.Helper()
	var got []byte
	for len(got) < n {
		opcode, next, err := readFrame(r)
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		if opcode == ws.OpBinary {
			got = append(got, next...)
		}
	}
	return string(got)
}

func TestClientBreaksTheProtocol(t *testing.T) {
	f := serve(t, nil)
	ends := make(chan error, 1)
	a := f.register("job", fakeagent.NewKey())
	for name, test := range map[string]struct {
		bytes string
		code  int
	}{
		"text frame":     {masked(ws.OpText, "x"), frame.CloseUnsupported},
		"unmasked frame": {string(ws.MustCompileFrame(ws.NewBinaryFrame([]byte("x")))), frame.CloseProtocolError},
		"oversize frame": {"\x82\xff\x00\x00\x00\x00\x01\x00\x00\x01abcd", frame.CloseTooBig},
		"huge frame":     {"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd", frame.CloseTooBig},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := f.raw(handshake(f, "/client/job", nil) + test.bytes)
			data := dialBack(t, a)
			go func() {
				_, err := io.Copy(io.Discard, data)
				_ = data.Close()
				ends <- err
			}()
			wantAnswer(t, r, http.StatusSwitchingProtocols)
			wantClose(t, r, test.code)
			// The agent learns that it was not an orderly end.
			var closed *frame.CloseError
			if err := wait(t, "the agent's end", ends); !errors.As(err, &closed) || closed.Code != frame.CloseInternalError {
				t.Errorf("the agent's connection ended with %v, want close code 1011", err)
			}
		})
	}
}

// TestClientsOutliveTheControlConnection: data connections stand by themselves.
func TestClientsOutliveTheControlConnection(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	waiting := f.dialLater("job")
	data := dialBack(t, a)
	client := wait(t, "the client", waiting)
	if client.err != nil {
		t.Fatal(client.err)
	}
	a.Vanish()
	wait(t, "the end of the control connection", f.closed)
	go echo(data)
	if _, err := io.WriteString(client.conn, "still here"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 10)
	if _, err := io.ReadFull(client.conn, got); err != nil || string(got) != "still here" {
		t.Errorf("%q, %v", got, err)
	}
	_ = client.conn.Close()
}
