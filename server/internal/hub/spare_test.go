package hub

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

// park parks a connection, and waits until the hub has it.
func (f *fixture) park(a *fakeagent.Agent) *frame.Conn {
	f.t.Helper()
	conn, err := a.Park(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	f.parked(a.ID)
	return conn
}

// parked waits until the id has a parked connection.
func (f *fixture) parked(id string) {
	f.t.Helper()
	holder, _ := f.hub.agents.Lookup(id)
	f.until("the parked connection", func() bool {
		holder.mu.Lock()
		defer holder.mu.Unlock()
		return holder.spare != nil
	})
}

// until waits for a condition.
func (f *fixture) until(what string, holds func() bool) {
	f.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(limit) {
			f.t.Fatalf("%s does not come", what)
		}
	}
}

// slowly gives agents all the time that they need to accept a client.
func slowly(h *Hub) { h.answerWait = patience }

// accept accepts the client on a parked connection.
func accept(t *testing.T, conn *frame.Conn) *rendezvous.Dial {
	t.Helper()
	d, err := fakeagent.Accept(conn)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSpare(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	for range 3 { // parked again after each
		spare := f.park(a)
		client := f.client("job") // it is in before the agent has said a word
		if _, err := io.WriteString(client, "question"); err != nil {
			t.Fatal(err)
		}
		if d := accept(t, spare); d.Token != "" || d.Remote == "" {
			t.Errorf("got %+v", d)
		}
		got := make([]byte, 8)
		if _, err := io.ReadFull(spare, got); err != nil || string(got) != "question" {
			t.Fatalf("the agent got %q, %v", got, err)
		}
		say("answer")(spare)
		if text, err := io.ReadAll(client); err != nil || string(text) != "answer" {
			t.Errorf("the client got %q, %v", text, err)
		}
		_ = client.Close()
	}
	f.noVisits()
}

// TestSpareManyBytes sends more than a trial remembers before it is accepted.
func TestSpareManyBytes(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	spare := f.park(a)
	client := f.client("job")
	done := make(chan error, 1)
	go func() { done <- roundTrip(client, 1<<20) }()
	accept(t, spare)
	go echo(spare)
	if err := wait(t, "the round trip", done); err != nil {
		t.Error(err)
	}
	_ = client.Close()
}

// TestSpareDiedSilently: an agent's machine is suspended, or a device in
// between forgot the connection. The client has said something meanwhile.
func TestSpareDiedSilently(t *testing.T) {
	for name, question := range map[string]string{
		"silent client": "", "few words": "question", "many words": strings.Repeat("question", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, func(h *Hub) { h.answerWait = 50 * time.Millisecond })
			a := f.register("job", fakeagent.NewKey())
			f.park(a)
			client := f.client("job")
			go func() { _, _ = io.WriteString(client, question) }()
			data := dialBack(t, a)
			got := make([]byte, len(question))
			if _, err := io.ReadFull(data, got); err != nil || string(got) != question {
				t.Errorf("the agent got %d bytes, want %d: %v", len(got), len(question), err)
			}
			say("answer")(data)
			if text, err := io.ReadAll(client); err != nil || string(text) != "answer" {
				t.Errorf("the client got %q, %v", text, err)
			}
			_ = client.Close()
			f.noVisits()
		})
	}
}

// TestSpareEndsWhenOffered: it closes at the moment that a client comes.
func TestSpareEndsWhenOffered(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	spare := f.park(a)
	client := f.client("job")
	if _, err := rendezvous.Receive(spare); err != nil {
		t.Fatal(err)
	}
	_ = spare.Close()
	data := dialBack(t, a)
	say("answer")(data)
	if text, err := io.ReadAll(client); err != nil || string(text) != "answer" {
		t.Errorf("the client got %q, %v", text, err)
	}
	_ = client.Close()
}

// wantTold checks with which close frame a connection ends.
func wantTold(t *testing.T, conn io.Reader, code int, sentence string) {
	t.Helper()
	_, err := io.Copy(io.Discard, conn)
	var closed *frame.CloseError
	if !errors.As(err, &closed) || closed.Code != code || !strings.Contains(closed.Reason, sentence) {
		t.Errorf("it ended with %v, want close code %d with %q", err, code, sentence)
	}
}

func TestSpareAndNoOtherWay(t *testing.T) {
	f := serve(t, func(h *Hub) { h.answerWait, h.dialWait = 50*time.Millisecond, 50*time.Millisecond })
	a := f.register("job", fakeagent.NewKey())
	f.park(a)
	wantTold(t, f.client("job"), frame.CloseTryAgainLater, "did not answer in time")
	f.noVisits()
}

func TestSpareAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		answer   rendezvous.Message
		sentence string
	}{
		"refusal":        {rendezvous.Message{DialFailed: &rendezvous.DialFailed{Text: "too many clients"}}, "too many clients"},
		"another client": {rendezvous.Message{Accepted: &rendezvous.Accepted{Client: 1 << 40}}, "did not accept"},
		"nonsense":       {rendezvous.Message{Bye: &rendezvous.Bye{}}, "did not accept"},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, slowly)
			spare := f.park(f.register("job", fakeagent.NewKey()))
			client := f.client("job")
			if _, err := rendezvous.Receive(spare); err != nil {
				t.Fatal(err)
			}
			if err := rendezvous.Send(spare, test.answer); err != nil {
				t.Fatal(err)
			}
			wantTold(t, client, frame.CloseTryAgainLater, test.sentence)
		})
	}
}

// TestSpareInSmallPieces: the answer comes byte by byte, and what follows it
// in the same segment is the client's.
func TestSpareInSmallPieces(t *testing.T) {
	f := serve(t, slowly)
	spare := f.park(f.register("job", fakeagent.NewKey()))
	client := f.client("job")
	m, err := rendezvous.Receive(spare)
	if err != nil {
		t.Fatal(err)
	}
	var answer bytes.Buffer
	if err := rendezvous.Send(&answer, rendezvous.Message{Accepted: &rendezvous.Accepted{Client: m.Dial.Client}}); err != nil {
		t.Fatal(err)
	}
	all := append(answer.Bytes(), "hello"...)
	for piece := range slices.Chunk(all[:len(all)-6], 1) {
		if _, err := spare.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := spare.Write(all[len(all)-6:]); err != nil {
		t.Fatal(err)
	}
	_ = spare.Close()
	if text, err := io.ReadAll(client); err != nil || string(text) != "hello" {
		t.Errorf("the client got %q, %v", text, err)
	}
	_ = client.Close()
}

func TestSpareMustNotSpeakFirst(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	spare := f.park(a)
	if _, err := io.WriteString(spare, "SSH-2.0-eager"); err != nil {
		t.Fatal(err)
	}
	wantTold(t, spare, frame.ClosePolicy, "nothing was asked")
	waiting := f.dialLater("job")
	data := dialBack(t, a)
	if err := wait(t, "the client", waiting).err; err != nil {
		t.Error(err)
	}
	_ = data.Close()
}

func TestSpareIsReplaced(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	first := f.park(a)
	second, err := a.Park(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, first); err != nil {
		t.Errorf("the first one ended with %v, want a normal close", err)
	}
	client := f.client("job")
	accept(t, second)
	say("second")(second)
	if text, _ := io.ReadAll(client); string(text) != "second" {
		t.Errorf("the client got %q", text)
	}
	_ = client.Close()
}

func TestSpareToken(t *testing.T) {
	f := serve(t, nil)
	a := f.register("job", fakeagent.NewKey())
	b := f.register("other", fakeagent.NewKey())
	leave := func(a *fakeagent.Agent) *rendezvous.Dial {
		m, err := a.Ask(rendezvous.Message{Park: &rendezvous.Park{}})
		if err != nil || m.Parking == nil || len(m.Parking.Token) < 43 {
			t.Fatalf("%+v, %v", m, err)
		}
		return &rendezvous.Dial{Client: m.Parking.Client, Token: m.Parking.Token}
	}
	refused := func(d *rendezvous.Dial, sentence string) {
		t.Helper()
		_, err := a.DialBack(t.Context(), d)
		wantRefused(t, err, http.StatusForbidden, sentence)
	}
	first := leave(a)
	second := leave(a)
	refused(first, "nobody waits") // void since the second
	others := leave(b)
	refused(&rendezvous.Dial{Client: second.Client, Token: others.Token}, "nobody waits")
	refused(&rendezvous.Dial{Client: second.Client}, "nobody waits")
	conn, err := a.DialBack(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	refused(second, "nobody waits") // once only
	_ = conn.Close()

	third := leave(a)
	f.hub.vmu.Lock()
	f.hub.visits[third.Client].until = time.Now()
	f.hub.vmu.Unlock()
	refused(third, "too late")

	fourth := leave(a)
	// No answer to it, and no harm done by one.
	if err := a.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: fourth.Client}}); err != nil {
		t.Fatal(err)
	}
	_ = a.Send(rendezvous.Message{Bye: &rendezvous.Bye{}}) // the server may be faster
	_, _ = a.Receive()
	refused(fourth, "nobody waits")
}

// TestSpareEndsWithTheControlConnection: nobody else gets it.
func TestSpareEndsWithTheControlConnection(t *testing.T) {
	f := serve(t, slowly)
	key := fakeagent.NewKey()
	a := f.register("job", key)
	spare := f.park(a)
	f.register("job", key)                                    // displaces a
	if _, err := spare.Read(make([]byte, 1)); err != io.EOF { // 1001
		t.Errorf("the parked connection ended with %v", err)
	}
	// One that is parked too late is closed as well.
	b := f.register("other", fakeagent.NewKey())
	m, err := b.Ask(rendezvous.Message{Park: &rendezvous.Park{}})
	if err != nil {
		t.Fatal(err)
	}
	holder, _ := f.hub.agents.Lookup("other")
	b.Vanish()
	f.until("the end of the control connection", func() bool {
		select {
		case <-holder.gone:
			return true
		default:
			return false
		}
	})
	_, err = b.DialBack(t.Context(), &rendezvous.Dial{Client: m.Parking.Client, Token: m.Parking.Token})
	wantRefused(t, err, http.StatusForbidden, "nobody waits")
}

// TestSpareClientsEarlyFrames come in the same segment as the handshake, and
// a bad handshake costs no spare.
func TestSpareClientsEarlyFrames(t *testing.T) {
	f := serve(t, slowly)
	spare := f.park(f.register("job", fakeagent.NewKey()))
	_, r := f.raw(strings.Replace(handshake(f, "/client/job", nil), "Version: 13", "Version: 12", 1))
	wantAnswer(t, r, http.StatusUpgradeRequired)
	f.parked("job") // again: the answer comes before that
	_, r = f.raw(handshake(f, "/client/job", nil) + masked(ws.OpBinary, "early") + masked(ws.OpClose, "\x03\xe8"))
	wantAnswer(t, r, http.StatusSwitchingProtocols)
	accept(t, spare)
	if text, err := io.ReadAll(spare); err != nil || string(text) != "early" {
		t.Errorf("the agent got %q, %v", text, err)
	}
	say("late")(spare)
	if got := payload(t, r, 4); got != "late" {
		t.Errorf("the client got %q", got)
	}
	wantClose(t, r, 1000)
}

// TestSpareClientGivesUp before the agent has answered.
func TestSpareClientGivesUp(t *testing.T) {
	f := serve(t, slowly)
	a := f.register("job", fakeagent.NewKey())
	spare := f.park(a)
	conn, r := f.raw(handshake(f, "/client/job", nil))
	wantAnswer(t, r, http.StatusSwitchingProtocols)
	_ = conn.Close()
	accept(t, spare)
	if _, err := io.Copy(io.Discard, spare); err != nil { // 1001
		t.Errorf("the agent's connection ended with %v", err)
	}
	_ = spare.Close()
}

func TestSpareShutdown(t *testing.T) {
	f := serve(t, slowly)
	parked := f.park(f.register("parked", fakeagent.NewKey()))
	offered := f.park(f.register("offered", fakeagent.NewKey()))
	client := f.client("offered")
	// The client is let in before it is offered.
	if _, err := rendezvous.Receive(offered); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { f.shutdown(); close(ended) }()
	wantTold(t, client, frame.CloseServiceRestart, "restarting")
	wantTold(t, parked, frame.CloseServiceRestart, "restarting")
	wantTold(t, offered, frame.CloseServiceRestart, "restarting")
	wait(t, "the end of Shutdown", ended)
}

// TestSpareWithoutRoom: where descriptors run out nothing is parked, and all
// goes on without.
func TestSpareWithoutRoom(t *testing.T) {
	f := serve(t, func(h *Hub) { h.cfg.Room = func() bool { return false } })
	a := f.register("job", fakeagent.NewKey())
	if err := a.Send(rendezvous.Message{Park: &rendezvous.Park{}}); err != nil {
		t.Fatal(err)
	}
	waiting := f.dialLater("job")
	d, err := a.Dialled() // and no leave before it
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.DialBack(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if err := wait(t, "the client", waiting).err; err != nil {
		t.Error(err)
	}
	_ = data.Close()
}
