package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
)

// TestReconnect loses the connection in each way and has the agent come back
// under its id, as the same agent.
func TestReconnect(t *testing.T) {
	for name, lose := range map[string]func(*servertest.Server, *servertest.Control) error{
		"closed":  func(_ *servertest.Server, c *servertest.Control) error { return c.Close() },
		"restart": func(_ *servertest.Server, c *servertest.Control) error { return c.CloseWith(1012, "later") },
		"killed": func(s *servertest.Server, _ *servertest.Control) error {
			s.Cut()
			return nil
		},
		"goodbye": func(_ *servertest.Server, c *servertest.Control) error {
			return c.Say(rendezvous.Message{Bye: &rendezvous.Bye{Text: "see you"}})
		},
		"refused": func(_ *servertest.Server, c *servertest.Control) error {
			return c.Say(rendezvous.Message{Refused: &rendezvous.Refused{Code: rendezvous.RefusedDisplaced, Text: "dis\x1bplaced"}})
		},
		"malformed": func(_ *servertest.Server, c *servertest.Control) error {
			return c.SayRaw(raw("nonsense"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, newServer(t), nil, nil)
			first := b.registered()
			check(t, lose(b.server, first))
			second := b.registered()
			if second.ID != first.ID || string(second.Hello.Key) != string(first.Hello.Key) {
				t.Errorf("the agent comes back as another: %q", second.ID)
			}
			if m, err := first.Hear(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the connection is left open: %+v, %v", m, err)
			}
			data, _ := b.visit(second)
			check(t, data.Close())
			receive(t, "an id", b.ids)
			none(t, "announced once more", b.ids)
			b.end()
			saysBye(t, second)
			check(t, b.stop())
		})
	}
}

// TestClientsOutliveControl shows that who is inside stays there while the
// agent is registered anew.
func TestClientsOutliveControl(t *testing.T) {
	b := start(t, newServer(t), nil, nil)
	first := b.registered()
	data, _ := b.visit(first)
	check(t, first.Close())
	exchange(t, data)
	b.registered()
	exchange(t, data)
}

// TestServerComesBack ends the server and starts one in its place.
func TestServerComesBack(t *testing.T) {
	server := servertest.New()
	b := start(t, server, nil, nil)
	first := b.registered()
	address := server.Listener.Addr().String()
	server.End()
	b.logged("cannot register with the server yet", 2)
	var err error
	if b.server, err = servertest.NewAt(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.server.End)
	second := b.registered()
	if second.ID != first.ID {
		t.Errorf("the agent comes back as %q", second.ID)
	}
	b.visit(second)
	receive(t, "an id", b.ids)
	none(t, "announced once more", b.ids)
}

// TestTakenWhileAway has somebody else take the id of an agent that is away.
func TestTakenWhileAway(t *testing.T) {
	t.Run("another is chosen", func(t *testing.T) {
		b := start(t, newServer(t), nil, nil)
		check(t, b.registered().Close())
		check(t, b.control().Refuse(rendezvous.RefusedTaken, "taken"))
		c := b.registered()
		if id := receive(t, "an id", b.ids); id != "job" {
			t.Errorf("announced as %q first", id)
		}
		if id := receive(t, "another id", b.ids); id != c.ID || id == "job" {
			t.Errorf("announced as %q, registered as %q", id, c.ID)
		}
	})
	t.Run("it is kept", func(t *testing.T) {
		b := start(t, newServer(t), func(cfg *Config) { cfg.KeepID = true }, nil)
		check(t, b.registered().Close())
		check(t, b.control().Refuse(rendezvous.RefusedTaken, "taken"))
		b.fails("choose another --id")
	})
}

// TestUselessToTryAgain shows errors that end the agent at once, however
// patient it is.
func TestUselessToTryAgain(t *testing.T) {
	for status, want := range map[int]string{
		http.StatusBadRequest: "it said ?[31mno",
		http.StatusNotFound:   "it said ?[31mno",
		http.StatusForbidden:  "it said ?[31mno",
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			server := newServer(t)
			server.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "it said \x1b[31mno", status) })
			b := start(t, server, hour, nil)
			b.fails(want)
		})
	}
	t.Run("a page", func(t *testing.T) {
		server := newServer(t)
		server.Answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })
		start(t, server, hour, nil).fails("answered 200 OK instead of opening a websocket", "check the URL")
	})
	t.Run("a redirect", func(t *testing.T) {
		server := newServer(t)
		server.Answer(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) })
		start(t, server, hour, nil).fails("answered 302 Found instead of opening a websocket")
	})
	t.Run("untrusted", func(t *testing.T) {
		server := servertest.NewTLS()
		t.Cleanup(server.End)
		start(t, server, hour, nil).fails("the TLS certificate of wss://127.0.0.1:", "--ca FILE")
	})
	t.Run("no TLS", func(t *testing.T) {
		b := start(t, newServer(t), func(cfg *Config) { hour(cfg); cfg.Server.Secure = true }, nil)
		b.fails("does not speak TLS: try ws://")
	})
}

// TestUsefulToTryAgain shows the same, and others, where it may yet go well.
func TestUsefulToTryAgain(t *testing.T) {
	t.Run("unavailable", func(t *testing.T) {
		server := newServer(t)
		server.Answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not yet", http.StatusServiceUnavailable) })
		b := start(t, server, hour, nil)
		b.logged("not yet", 3)
		server.Answer(nil)
		b.visit(b.registered())
	})
	t.Run("not up yet", func(t *testing.T) {
		server := servertest.New()
		address := server.Listener.Addr().String()
		server.End()
		b := start(t, server, hour, nil)
		b.logged("cannot reach ws://"+address, 2)
		var err error
		if b.server, err = servertest.NewAt(address); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.server.End)
		b.visit(b.registered())
	})
	t.Run("no path, once registered", func(t *testing.T) {
		b := start(t, newServer(t), nil, nil)
		c := b.registered()
		b.server.Answer(http.NotFound) // a proxy whose server is away
		check(t, c.Close())
		b.logged("404", 3)
		b.server.Answer(nil)
		b.visit(b.registered())
	})
}

func TestNobodyThere(t *testing.T) {
	server := servertest.New()
	server.End()
	start(t, server, nil, nil).fails("cannot reach ws://127.0.0.1:", "check that the server runs")
}

// TestEndsAtOnce ends the agent wherever it waits.
func TestEndsAtOnce(t *testing.T) {
	t.Run("before it began", func(t *testing.T) {
		l, err := New(Config{ID: "job", Server: newServer(t).Address, Transport: newServer(t).Transport()})
		check(t, err)
		ctx, end := context.WithCancel(t.Context())
		end()
		check(t, l.Run(ctx))
	})
	t.Run("between attempts", func(t *testing.T) {
		server := servertest.New()
		server.End()
		b := start(t, server, hour, func(l *Link) { l.pause = newBackoff(time.Hour, time.Hour) })
		b.logged("cannot register", 1)
		check(t, b.stop())
	})
	t.Run("while the server thinks", func(t *testing.T) {
		b := start(t, newServer(t), hour, nil)
		_, err := b.control().Hear()
		check(t, err)
		check(t, b.stop())
	})
	t.Run("while the handshake hangs", func(t *testing.T) {
		server := newServer(t)
		asked := make(chan struct{})
		server.Answer(func(_ http.ResponseWriter, r *http.Request) {
			close(asked)
			<-r.Context().Done()
		})
		b := start(t, server, hour, nil)
		receive(t, "a handshake", asked)
		check(t, b.stop())
	})
}

// TestGoodbyeWithoutReader ends the agent while its server takes nothing.
func TestGoodbyeWithoutReader(t *testing.T) {
	network := newStuck()
	change := func(cfg *Config) { through(cfg.Transport, func(c net.Conn) net.Conn { return network.wrap(c) }) }
	tune := func(l *Link) {
		l.sendWait, l.byeWait = time.Hour, time.Millisecond
		l.slots = make(chan struct{}) // for nobody
	}
	t.Run("the goodbye", func(t *testing.T) {
		b := start(t, newServer(t), change, tune)
		b.registered()
		receive(t, "an id", b.ids)
		network.stop()
		b.end()
		check(t, b.wait())
	})
	network = newStuck()
	t.Run("what is said before it", func(t *testing.T) {
		b := start(t, newServer(t), change, tune)
		c := b.registered()
		receive(t, "an id", b.ids)
		network.stop()
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}))
		receive(t, "an answer on its way", network.waiting)
		b.end()
		check(t, b.wait())
	})
}

// TestSlowReaderIsGone gives a server that does not take an answer up.
func TestSlowReaderIsGone(t *testing.T) {
	network := newStuck()
	b := start(t, newServer(t), func(cfg *Config) {
		through(cfg.Transport, func(conn net.Conn) net.Conn {
			if network.stopped() {
				return conn // the second one is well
			}
			return network.wrap(conn)
		})
	}, func(l *Link) {
		l.sendWait = time.Millisecond
		l.slots = make(chan struct{})
	})
	c := b.registered()
	receive(t, "an id", b.ids)
	network.stop()
	check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}))
	b.registered()
}

// TestPermanentIsTransparent keeps the cause visible to callers.
func TestPermanentIsTransparent(t *testing.T) {
	cause := &rendezvous.Refused{Code: "x", Text: "y"}
	var found *rendezvous.Refused
	if err := error(permanent{fmt.Errorf("z: %w", cause)}); !errors.As(err, &found) || !strings.Contains(err.Error(), "z: y") {
		t.Errorf("%v hides its cause", err)
	}
}
