package link

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
)

// hour is a patience that no test can wait for.
func hour(cfg *Config) { cfg.Patience = time.Hour }

func TestRegister(t *testing.T) {
	meta := map[string]string{"branch": "main"}
	b := start(t, newServer(t), func(cfg *Config) {
		cfg.ID = "team/repo/job-1"
		cfg.Software = "agent v1.2.3"
		cfg.Meta = meta
		cfg.Header = http.Header{"X-Token": {"secret, with a comma"}}
		cfg.KeepAlive = 0
	}, nil)
	c := b.registered()
	if c.ID != "team/repo/job-1" {
		t.Errorf("the agent asks for %q", c.ID)
	}
	if got := c.Header.Get("X-Token"); got != "secret, with a comma" {
		t.Errorf("the handshake's header is %q", got)
	}
	h := c.Hello
	if h.Version != rendezvous.Version || h.MinVersion != rendezvous.MinVersion ||
		h.Software != "agent v1.2.3" || !maps.Equal(h.Meta, meta) || len(h.Key) != ed25519.PublicKeySize {
		t.Errorf("the hello is %+v", h)
	}
	if id := receive(t, "an id", b.ids); id != "team/repo/job-1" {
		t.Errorf("registered as %q", id)
	}
	b.end()
	saysBye(t, c)
	check(t, b.wait())
	none(t, "registered once more", b.ids)
}

func TestNewRefusesBadID(t *testing.T) {
	if _, err := New(Config{ID: "../x"}); !errors.Is(err, rendezvous.ErrInvalidID) {
		t.Errorf("the error is %v", err)
	}
	l, err := New(Config{ID: "x"})
	if err != nil || l.log == nil {
		t.Errorf("without a logger: %v", err)
	}
}

func TestKeysDiffer(t *testing.T) {
	a, err := New(Config{ID: "x"})
	check(t, err)
	b, err := New(Config{ID: "x"})
	check(t, err)
	if a.key.Equal(b.key) {
		t.Error("two agents have one run key")
	}
}

// TestRefusedForGood shows refusals that no patience mends, in the server's
// own words.
func TestRefusedForGood(t *testing.T) {
	_, tooOld := rendezvous.CommonVersion(&rendezvous.Hello{Version: rendezvous.MinVersion - 1})
	_, tooNew := rendezvous.CommonVersion(&rendezvous.Hello{Version: rendezvous.Version + 1, MinVersion: rendezvous.Version + 1})
	for name, test := range map[string]struct{ code, text, want string }{
		"too old":    {tooOld.Code, tooOld.Text, "this agent is too old for the server"},
		"too new":    {tooNew.Code, tooNew.Text, "this agent is too new for the server"},
		"proof":      {rendezvous.RefusedProof, "the agent did not prove itself", "did not prove itself"},
		"no words":   {rendezvous.RefusedVersion, "", `the server refused the agent without saying why ("version")`},
		"bad manner": {rendezvous.RefusedVersion, "go\x1b[2J\r\naway\u202e", "go?[2J??away?"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, newServer(t), hour, nil)
			check(t, b.control().Refuse(test.code, test.text))
			b.fails(test.want)
			none(t, "registered", b.ids)
		})
	}
}

func TestServerOfOtherVersion(t *testing.T) {
	for _, version := range []int{rendezvous.MinVersion - 1, rendezvous.Version + 1} {
		b := start(t, newServer(t), hour, nil)
		c := b.control()
		_, err := c.Hear()
		check(t, err)
		check(t, c.Say(rendezvous.Message{Challenge: &rendezvous.Challenge{Version: version, Nonce: rendezvous.NewNonce()}}))
		b.fails("protocol version", "does not speak: download the agent from the server again")
	}
}

func TestTakenIsFatalWhereIDIsKept(t *testing.T) {
	b := start(t, newServer(t), func(cfg *Config) { hour(cfg); cfg.KeepID = true }, nil)
	check(t, b.control().Refuse(rendezvous.RefusedTaken, `the id "job" is taken`))
	b.fails(`the id "job" is taken: choose another --id`)
}

func TestTakenLeadsToAlternative(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	first := b.control()
	check(t, first.Refuse(rendezvous.RefusedTaken, "taken"))
	second := b.control()
	check(t, second.Refuse(rendezvous.RefusedTaken, "taken"))
	third := b.registered() // which checks the proof for the id in the URL
	if first.ID != "job" || !strings.HasPrefix(second.ID, "job-") || !strings.HasPrefix(third.ID, "job-") || second.ID == third.ID {
		t.Errorf("the agent asks for %q, %q and %q", first.ID, second.ID, third.ID)
	}
	if len(third.ID) != len(second.ID) {
		t.Errorf("alternatives grow: %q, %q", second.ID, third.ID)
	}
	if id := receive(t, "an id", b.ids); id != third.ID {
		t.Errorf("announced as %q, registered as %q", id, third.ID)
	}
	// It is the one to come back under.
	check(t, third.Close())
	again := b.registered()
	if again.ID != third.ID {
		t.Errorf("the agent comes back as %q, was %q", again.ID, third.ID)
	}
	b.visit(again)
	none(t, "announced once more", b.ids)
}

// TestTakenAlways shows that ids are not tried without end.
func TestTakenAlways(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	seen := map[string]bool{}
	for range 1 + maxAlternatives {
		c := b.control()
		seen[c.ID] = true
		check(t, c.Refuse(rendezvous.RefusedTaken, "everything is taken"))
	}
	b.fails("everything is taken")
	if len(seen) != 1+maxAlternatives {
		t.Errorf("ids are tried twice: %v", seen)
	}
}

// TestRefusedForNow shows refusals after which the agent asks again.
func TestRefusedForNow(t *testing.T) {
	for _, code := range []string{rendezvous.RefusedFull, rendezvous.RefusedMessage, rendezvous.RefusedDisplaced, "of-tomorrow"} {
		t.Run(code, func(t *testing.T) {
			b := start(t, newServer(t), hour, nil)
			check(t, b.control().Refuse(code, "not \x07now"))
			if c := b.registered(); c.ID != "job" {
				t.Errorf("the agent asks for %q", c.ID)
			}
			if text := b.journal.String(); !strings.Contains(text, "not ?now") {
				t.Errorf("the log does not say why:\n%s", text)
			}
		})
	}
}

func TestImpatient(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	check(t, b.control().Refuse(rendezvous.RefusedFull, "the server is full"))
	b.fails("the server is full")
}

// TestNotConverge shows the sentence for servers that speak otherwise.
func TestNotConverge(t *testing.T) {
	hear := func(c *servertest.Control) error {
		_, err := c.Hear()
		return err
	}
	for name, test := range map[string]struct {
		act  func(c *servertest.Control) error
		want string
	}{
		"registered at once": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.Say(rendezvous.Message{Registered: &rendezvous.Registered{ID: c.ID}}))
		}, "it sent no challenge"},
		"registered as another": {func(c *servertest.Control) error {
			return errors.Join(c.Challenge(), c.Say(rendezvous.Message{Registered: &rendezvous.Registered{ID: "other"}}))
		}, "it did not confirm the registration"},
		"challenged twice": {func(c *servertest.Control) error {
			return errors.Join(c.Challenge(), c.Say(rendezvous.Message{
				Challenge: &rendezvous.Challenge{Version: rendezvous.Version, Nonce: rendezvous.NewNonce()}}))
		}, "it did not confirm the registration"},
		"short nonce": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.Say(rendezvous.Message{Challenge: &rendezvous.Challenge{Version: rendezvous.Version}}))
		}, "malformed control message"},
		"no JSON": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.SayRaw(raw("\x1b[2Jboo")))
		}, "malformed control message"},
		"too long": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.SayRaw(bytes.Repeat(raw("{}"), rendezvous.MaxMessage)))
		}, "the peer sent a message of more than 16386 bytes"},
		"closed": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.CloseWith(1008, "not\x1bhere"))
		}, "not?here"},
		"closed after the hello": {func(c *servertest.Control) error {
			return errors.Join(hear(c), c.Close())
		}, "check that it is a Converge server"},
		"closed after the proof": {func(c *servertest.Control) error {
			return errors.Join(c.Challenge(), c.Close())
		}, "check that it is a Converge server"},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, newServer(t), nil, nil)
			check(t, test.act(b.control()))
			b.fails("cannot register at ws://127.0.0.1:", "check that it is a Converge server", test.want)
			none(t, "registered", b.ids)
		})
	}
}

// TestLaterProtocol shows that messages of a later version are passed over, as
// spec.md of the protocol has it.
func TestLaterProtocol(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	c := b.control()
	check(t, c.SayRaw(raw(`{"weather":{"rain":true}}`)))
	check(t, c.Challenge())
	check(t, c.SayRaw(raw(`{}`)))
	check(t, c.SayRaw(raw(`{"weather":{}}`)))
	check(t, c.Say(rendezvous.Message{Registered: &rendezvous.Registered{ID: c.ID}}))
	receive(t, "an id", b.ids)
	check(t, c.SayRaw(raw(`{"weather":{}}`)))
	b.visit(c)
}

// TestHandshakeSegment has the challenge arrive in the segment that ends the
// handshake.
func TestHandshakeSegment(t *testing.T) {
	server := newServer(t)
	peers := make(chan io.ReadWriter, 1)
	nonce := rendezvous.NewNonce()
	server.Answer(func(w http.ResponseWriter, r *http.Request) {
		var first bytes.Buffer
		sendErr := rendezvous.Send(&first, rendezvous.Message{Challenge: &rendezvous.Challenge{Version: rendezvous.Version, Nonce: nonce}})
		conn, err := upgrade(w, r, first.Bytes())
		if err = errors.Join(sendErr, err); err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { _ = conn.Close() })
		peers <- conn
	})
	b := start(t, server, nil, nil)
	peer := receive(t, "a handshake", peers)
	hello, err := rendezvous.Receive(peer)
	check(t, err)
	proof, err := rendezvous.Receive(peer)
	check(t, err)
	if hello.Hello == nil || proof.Proof == nil || !proof.Proof.Verify(hello.Hello.Key, nonce, "job") {
		t.Fatalf("the agent said %+v and %+v", hello, proof)
	}
	check(t, rendezvous.Send(peer, rendezvous.Message{Registered: &rendezvous.Registered{ID: "job"}}))
	receive(t, "an id", b.ids)
}

// TestLastWords has the server refuse the agent and hang up before that can say
// hello.
func TestLastWords(t *testing.T) {
	for name, test := range map[string]struct {
		words rendezvous.Message
		want  string
	}{
		"refused": {rendezvous.Message{Refused: &rendezvous.Refused{Code: rendezvous.RefusedVersion, Text: "this agent is too old"}}, "this agent is too old"},
		"nothing of use": {rendezvous.Message{Challenge: &rendezvous.Challenge{Version: rendezvous.Version, Nonce: rendezvous.NewNonce()}},
			"cannot send a control message"},
	} {
		t.Run(name, func(t *testing.T) {
			var first bytes.Buffer
			check(t, rendezvous.Send(&first, test.words))
			server := newServer(t)
			server.Answer(func(w http.ResponseWriter, r *http.Request) {
				conn, err := upgrade(w, r, first.Bytes())
				if err != nil {
					t.Error(err)
					return
				}
				t.Cleanup(func() { _ = conn.Close() })
			})
			b := start(t, server, func(cfg *Config) {
				through(cfg.Transport, func(c net.Conn) net.Conn { return &oneWay{Conn: c} })
			}, nil)
			b.fails(test.want)
		})
	}
}
