package hub

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/fakeagent"
)

// wantRefusal checks what an agent was told, and that its connection ends.
func wantRefusal(t *testing.T, a *fakeagent.Agent, err error, code, sentence string) {
	t.Helper()
	var refused *rendezvous.Refused
	if !errors.As(err, &refused) || refused.Code != code || !strings.Contains(refused.Text, sentence) {
		t.Fatalf("got %#v, want a refusal %q with %q", err, code, sentence)
	}
	wantGone(t, a, wsconn.PolicyViolation)
}

// wantGone checks the code with which the server closed a control connection.
func wantGone(t *testing.T, a *fakeagent.Agent, code int) {
	t.Helper()
	_ = a.Conn.SetReadDeadline(time.Now().Add(patience))
	_, err := a.Receive()
	var closed *wsconn.CloseError
	if !errors.As(err, &closed) || closed.Code != code {
		t.Errorf("the control connection ended with %v, want close code %d", err, code)
	}
}

// connect opens a control connection that says nothing of itself.
func (f *fixture) connect(id string) *fakeagent.Agent {
	f.t.Helper()
	a, err := fakeagent.Connect(f.t.Context(), f.rv, id, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = a.Conn.Close() })
	return a
}

func TestSession(t *testing.T) {
	f := serve(t, nil)
	f.serveAgent("team/repo/job", fakeagent.NewKey(), say("hello"))
	for range 3 {
		if got := f.hear("team/repo/job"); got != "hello" {
			t.Errorf("heard %q", got)
		}
	}
}

func TestHelloTimeout(t *testing.T) {
	f := serve(t, func(h *Hub) { h.helloWait = 50 * time.Millisecond })
	a := f.connect("job")
	_, err := a.Receive()
	wantRefusal(t, a, err, rendezvous.RefusedMessage, "hello")
}

func TestProofTimeout(t *testing.T) {
	f := serve(t, func(h *Hub) { h.proofWait = 50 * time.Millisecond })
	a := f.connect("job")
	if m, err := a.Ask(fakeagent.Hello(fakeagent.NewKey())); err != nil || m.Challenge == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	_, err := a.Receive()
	wantRefusal(t, a, err, rendezvous.RefusedMessage, "proof")
	if _, ok := f.hub.agents.Lookup("job"); ok {
		t.Error("an agent without a proof is registered")
	}
}

// TestNoDeadlineOnceRegistered: the deadline of the proof ends with it.
func TestNoDeadlineOnceRegistered(t *testing.T) {
	f := serve(t, func(h *Hub) { h.proofWait = time.Second })
	a, err := fakeagent.Register(t.Context(), f.rv, "job", fakeagent.NewKey(), nil)
	for err != nil { // it was not fast enough, on a machine that has much to do
		a, err = fakeagent.Register(t.Context(), f.rv, "job", fakeagent.NewKey(), nil)
	}
	t.Cleanup(func() { _ = a.Conn.Close() })
	// The time is over as soon as another agent, which came later, met its end.
	other := f.connect("other")
	if m, err := other.Ask(fakeagent.Hello(fakeagent.NewKey())); err != nil || m.Challenge == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	_, err = other.Receive()
	wantRefusal(t, other, err, rendezvous.RefusedMessage, "proof")
	waiting := f.dialLater("job")
	data := dialBack(t, a)
	_ = data.Close()
	if err := wait(t, "the client", waiting).err; err != nil {
		t.Error(err)
	}
}

func TestRegistrationRefused(t *testing.T) {
	hello := func(change func(*rendezvous.Hello)) rendezvous.Message {
		m := fakeagent.Hello(fakeagent.NewKey())
		change(m.Hello)
		return m
	}
	f := serve(t, nil)
	for name, test := range map[string]struct {
		first          rendezvous.Message
		code, sentence string
	}{
		"proof before hello": {rendezvous.Message{Proof: &rendezvous.Proof{Signature: make([]byte, 64)}}, rendezvous.RefusedMessage, "hello"},
		"bye before hello":   {rendezvous.Message{Bye: &rendezvous.Bye{}}, rendezvous.RefusedMessage, "hello"},
		"nothing":            {rendezvous.Message{}, rendezvous.RefusedMessage, "hello"},
		"too new": {hello(func(h *rendezvous.Hello) { h.Version, h.MinVersion = 9, 9 }),
			rendezvous.RefusedVersion, "too new for the server (protocol 9, the server speaks 2 at most)"},
		"no versions": {hello(func(h *rendezvous.Hello) { h.Version = 0 }), rendezvous.RefusedMessage, "hello"},
		"short key":   {hello(func(h *rendezvous.Hello) { h.Key = h.Key[1:] }), rendezvous.RefusedMessage, "hello"},
		"too long":    {hello(func(h *rendezvous.Hello) { h.Software = strings.Repeat("a", 2000) }), rendezvous.RefusedMessage, "hello"},
	} {
		t.Run(name, func(t *testing.T) {
			a := f.connect("job")
			_, err := a.Ask(test.first)
			wantRefusal(t, a, err, test.code, test.sentence)
		})
	}
}

func TestNewerAgentIsTaken(t *testing.T) {
	f := serve(t, nil)
	m := fakeagent.Hello(fakeagent.NewKey())
	m.Hello.Version = 9
	got, err := f.connect("job").Ask(m)
	if err != nil || got.Challenge == nil || got.Challenge.Version != rendezvous.Version {
		t.Errorf("%+v, %v", got.Challenge, err)
	}
}

func TestWrongProof(t *testing.T) {
	f := serve(t, nil)
	key := fakeagent.NewKey()
	for name, prove := range map[string]func(nonce []byte) *rendezvous.Proof{
		"another key":   func(nonce []byte) *rendezvous.Proof { return rendezvous.Prove(fakeagent.NewKey(), nonce, "job") },
		"another id":    func(nonce []byte) *rendezvous.Proof { return rendezvous.Prove(key, nonce, "jobs") },
		"another nonce": func([]byte) *rendezvous.Proof { return rendezvous.Prove(key, rendezvous.NewNonce(), "job") },
	} {
		t.Run(name, func(t *testing.T) {
			a := f.connect("job")
			m, err := a.Ask(fakeagent.Hello(key))
			if err != nil || m.Challenge == nil {
				t.Fatalf("%+v, %v", m, err)
			}
			_, err = a.Ask(rendezvous.Message{Proof: prove(m.Challenge.Nonce)})
			wantRefusal(t, a, err, rendezvous.RefusedProof, "did not prove")
			if _, ok := f.hub.agents.Lookup("job"); ok {
				t.Error("it is registered all the same")
			}
		})
	}
}

func TestIDTakenByStranger(t *testing.T) {
	f := serve(t, nil)
	f.serveAgent("job", fakeagent.NewKey(), say("mine"))
	stranger := f.connect("job")
	key := fakeagent.NewKey()
	m, err := stranger.Ask(fakeagent.Hello(key))
	if err != nil || m.Challenge == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	_, err = stranger.Ask(rendezvous.Message{Proof: rendezvous.Prove(key, m.Challenge.Nonce, "job")})
	wantRefusal(t, stranger, err, rendezvous.RefusedTaken, `"job" is taken`)
	if got := f.hear("job"); got != "mine" {
		t.Errorf("a client after the stranger's attempt heard %q", got)
	}
}

func TestByeFreesTheID(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	_ = a.Send(rendezvous.Message{Bye: &rendezvous.Bye{Text: "done"}}) // the server may be faster
	if _, err := a.Receive(); err != io.EOF {
		t.Errorf("after bye: %v, want the end", err)
	}
	if _, err := f.dial("job"); err == nil {
		t.Error("a client got through to an agent that has said goodbye")
	}
	f.serveAgent("job", fakeagent.NewKey(), say("next"))
	if got := f.hear("job"); got != "next" {
		t.Errorf("heard %q", got)
	}
}

func TestVanishedAgentFreesTheID(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	waiting := f.dialLater("job")
	if _, err := a.Dialled(); err != nil {
		t.Fatal(err)
	}
	a.Vanish()
	wantRefused(t, wait(t, "the client's end", waiting).err, http.StatusBadGateway, "went away")
	wait(t, "the end of the control connection", f.closed)
	_, err := f.dial("job")
	wantRefused(t, err, http.StatusNotFound, "")
	f.serveAgent("job", fakeagent.NewKey(), say("next"))
	if got := f.hear("job"); got != "next" {
		t.Errorf("heard %q", got)
	}
}

func TestControlConnectionMisused(t *testing.T) {
	f := serve(t, nil)
	for name, test := range map[string]struct {
		bytes string
		code  int
	}{
		"text frame":    {masked(ws.OpText, "hello"), wsconn.UnsupportedData},
		"reserved bits": {"\xc2\x80\x00\x00\x00\x00", wsconn.ProtocolError},
		"length 0":      {masked(ws.OpBinary, "\x00\x00"), wsconn.PolicyViolation},
		"no JSON":       {masked(ws.OpBinary, "\x00\x01x"), wsconn.PolicyViolation},
	} {
		t.Run(name, func(t *testing.T) {
			_, r := f.raw(handshake(f, "/agent/job", nil) + test.bytes)
			wantAnswer(t, r, http.StatusSwitchingProtocols)
			wantClose(t, r, test.code)
		})
	}
}

func TestOversizeFrameEndsAnAgent(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	if _, err := a.Conn.Write([]byte(strings.Repeat("\x00\x02{}", rendezvous.MaxMessage/4+1))); err != nil {
		t.Fatal(err)
	}
	wantGone(t, a, wsconn.MessageTooBig)
}

func TestMalformedMessageEndsAnAgent(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	if _, err := a.Conn.Write([]byte("\x00\x01x")); err != nil {
		t.Fatal(err)
	}
	_, err := a.Receive()
	wantRefusal(t, a, err, rendezvous.RefusedMessage, "malformed")
	wait(t, "the end of the control connection", f.closed)
	_, err = f.dial("job")
	wantRefused(t, err, http.StatusNotFound, "")
}

// TestUnknownMessagesAreIgnored: they are ignored, so that a later version may send some.
func TestUnknownMessagesAreIgnored(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	for _, body := range []string{"{}", "null", `{"later":{}}`} {
		if _, err := a.Conn.Write([]byte("\x00" + string(rune(len(body))) + body)); err != nil {
			t.Fatal(err)
		}
	}
	waiting := f.dialLater("job")
	conn := dialBack(t, a)
	if err := wait(t, "the client", waiting).err; err != nil {
		t.Error(err)
	}
	_ = conn.Close()
}

// TestEarlyHello comes in the same segment as the handshake.
func TestEarlyHello(t *testing.T) {
	f := serve(t, nil)
	var hello strings.Builder
	if err := rendezvous.Send(&hello, fakeagent.Hello(fakeagent.NewKey())); err != nil {
		t.Fatal(err)
	}
	_, r := f.raw(handshake(f, "/agent/job", nil) + masked(ws.OpBinary, hello.String()))
	wantAnswer(t, r, http.StatusSwitchingProtocols)
	_, payload, err := readFrame(r)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := rendezvous.Receive(bytes.NewReader(payload)); err != nil || m.Challenge == nil {
		t.Errorf("%+v, %v", m, err)
	}
}
