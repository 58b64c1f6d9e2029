package link

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
)

// closeTime is what a connection has to be closed, beyond any limit here.
const closeTime = 2 * time.Second

// bubble runs a test in a synctest bubble, with a server that is in it too.
func bubble(t *testing.T, test func(t *testing.T, server *servertest.Server)) {
	synctest.Test(t, func(t *testing.T) {
		server := servertest.NewInMemory()
		t.Cleanup(server.End)
		test(t, server)
	})
}

// within checks how long something took.
func within(t *testing.T, what string, took, from, to time.Duration) {
	t.Helper()
	if took < from || took > to {
		t.Errorf("%s: it took %v, want %v to %v", what, took, from, to)
	}
}

// means are the mean pauses of attempts in a row.
var means = []time.Duration{
	200 * time.Millisecond, 300 * time.Millisecond, 450 * time.Millisecond, 675 * time.Millisecond,
	1012500 * time.Microsecond, 1518750 * time.Microsecond, 2278125 * time.Microsecond, 3417187500,
	longestPause, longestPause, longestPause,
}

func TestBackoffGrows(t *testing.T) {
	b := newBackoff(firstPause, longestPause)
	for _, mean := range means {
		within(t, "pause", b.next(), mean/2, mean*3/2)
	}
	// Random means spread: that so many lie so close is less likely than any
	// fault of the machine.
	shortest, longest := b.next(), time.Duration(0)
	for range 100 {
		pause := b.next()
		shortest, longest = min(shortest, pause), max(longest, pause)
	}
	if longest-shortest < longestPause/2 {
		t.Errorf("the pauses lie between %v and %v", shortest, longest)
	}
}

func TestBackoffBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(firstPause, longestPause)
		for range 10 {
			b.next()
		}
		short := time.Now()
		time.Sleep(longestPause - 1)
		b.held(short, false)
		within(t, "after a short connection", b.next(), longestPause/2, longestPause*3/2)
		long := time.Now()
		time.Sleep(longestPause)
		b.held(long, false)
		within(t, "after a long one", b.next(), firstPause/2, firstPause*3/2)
	})
}

// TestBackoffAllowsForRestarts begins anew for a server that said why it ended
// the connection, however short that was, but not for one that does little else.
func TestBackoffAllowsForRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackoff(firstPause, longestPause)
		for range 2 {
			for range 20 {
				b.next()
			}
			b.held(time.Now(), true)
			within(t, "after a restart", b.next(), firstPause/2, firstPause*3/2)
			time.Sleep(longestPause - 1)
			for range 20 {
				b.next()
			}
			b.held(time.Now(), true)
			within(t, "after another restart", b.next(), longestPause/2, longestPause*3/2)
			time.Sleep(time.Nanosecond)
		}
	})
}

// TestRollingRestart has an agent back in less than a second after each of two
// servers that end in turn, however short it was with the first.
func TestRollingRestart(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		b := startOver(t, server, nil, nil)
		for _, stay := range []time.Duration{time.Millisecond, longestPause} {
			c := b.registered()
			synctest.Wait()
			time.Sleep(stay)
			check(t, c.CloseWith(1012, ""))
			began := time.Now()
			again := b.registered()
			within(t, "coming back", time.Since(began), firstPause/2, firstPause*3/2)
			time.Sleep(longestPause)
			check(t, again.Close())
		}
	})
}

// TestDroppedAtOnce is about a server that registers agents and drops them,
// and is not to be asked five times a second for that.
func TestDroppedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		b := startOver(t, server, nil, nil)
		last := time.Now()
		for i, mean := range append([]time.Duration{0}, means...) {
			c := b.registered()
			within(t, "attempt", time.Since(last), mean/2, mean*3/2)
			if i == 0 {
				within(t, "the first one", time.Since(last), 0, 0)
			}
			check(t, c.Close())
			last = time.Now()
		}
		// One that lasts makes good for that.
		c := b.registered()
		time.Sleep(longestPause)
		check(t, c.Close())
		last = time.Now()
		b.registered()
		within(t, "after a long one", time.Since(last), firstPause/2, firstPause*3/2)
	})
}

func TestPatience(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Second, time.Minute} {
		bubble(t, func(t *testing.T, server *servertest.Server) {
			attempts := 0 // in turn
			server.Answer(func(w http.ResponseWriter, _ *http.Request) {
				attempts++
				http.Error(w, "not now", http.StatusServiceUnavailable)
			})
			began := time.Now()
			b := startOver(t, server, func(cfg *Config) { cfg.Patience = wait }, nil)
			time.Sleep(wait) // longer than the bench would wait
			b.fails("not now")
			most := wait + longestPause*3/2
			if wait == 0 {
				most = 0
			}
			within(t, "giving up", time.Since(began), wait, most)
			if least := 1 + int(wait/(longestPause*3/2)); attempts < least || wait == 0 && attempts != 1 {
				t.Errorf("with a patience of %v there were %d attempts", wait, attempts)
			}
		})
	}
}

// TestMuteServer bounds a registration, wherever the server falls silent.
func TestMuteServer(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for name, act := range map[string]func(*testing.T, *bench){
		"handshake": nil,
		"challenge": func(t *testing.T, b *bench) {
			_, err := b.control().Hear()
			check(t, err)
		},
		"hello": func(t *testing.T, b *bench) { b.control() },
		"confirmation": func(t *testing.T, b *bench) {
			check(t, b.control().Challenge())
		},
		"small talk": func(t *testing.T, b *bench) {
			c := b.control()
			var talk sync.WaitGroup
			t.Cleanup(talk.Wait)
			talk.Go(func() {
				for range registerWait/time.Second + 5 {
					if err := c.Say(rendezvous.Message{}); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, server *servertest.Server) {
				if act == nil {
					server.Answer(hang)
				}
				began := time.Now()
				b := startOver(t, server, nil, nil)
				if act != nil {
					act(t, b)
				}
				b.fails("server.invalid", "deadline exceeded")
				within(t, "giving up", time.Since(began), registerWait, registerWait+closeTime)
			})
		})
	}
}

// TestMuteDialBack bounds a dial-back.
func TestMuteDialBack(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		b := startOver(t, server, nil, nil)
		c := b.registered()
		server.Answer(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		began := time.Now()
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 7, Token: "t"}}))
		if failed := hearFailed(t, c); failed.Client != 7 {
			t.Errorf("the agent says %+v", failed)
		}
		within(t, "giving up", time.Since(began), dialWait, dialWait)
		// The end of the agent is the end of one that is under way.
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 8, Token: "t"}}))
		synctest.Wait()
		began = time.Now()
		check(t, b.stop())
		within(t, "ending", time.Since(began), 0, closeTime)
	})
}

// TestAnswerStaysWithItsControl keeps what a client of one server run is told
// from the next run, which counts its clients anew.
func TestAnswerStaysWithItsControl(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		b := startOver(t, server, nil, nil)
		first := b.registered()
		asked, answer := make(chan struct{}), make(chan struct{})
		server.Answer(func(w http.ResponseWriter, _ *http.Request) {
			close(asked)
			<-answer
			http.Error(w, "no", http.StatusForbidden)
		})
		check(t, first.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}))
		receive(t, "a dial-back", asked)
		server.Answer(nil)
		check(t, first.Close())
		second := b.registered()
		close(answer)
		synctest.Wait()
		b.logged("cannot dial back for a client", 1)
		b.end()
		saysBye(t, second)
	})
}

// TestTooManyClients refuses those for whom there is no room, until there is.
func TestTooManyClients(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		b := startOver(t, server, nil, nil)
		c := b.registered()
		var last *servertest.Data
		for range maxClients {
			var err error
			last, err = server.Visit(t.Context(), c, "")
			check(t, err)
			receive(t, "a client", b.clients)
		}
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1000, Token: "t"}}))
		failed := hearFailed(t, c)
		if failed.Client != 1000 || failed.Text != "too many clients are connected to the agent" {
			t.Errorf("the agent says %+v", failed)
		}
		none(t, "served one too many", b.clients)
		check(t, last.Close())
		synctest.Wait()
		b.visit(c)
	})
}

// TestRoomToComeBack: while there is no room for another client, those that may
// be coming back are let in, as such, and not without bound.
func TestRoomToComeBack(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		hold := make(chan struct{})
		served := make(chan Client, maxClients+maxReturning)
		b := startOver(t, server, func(cfg *Config) {
			cfg.Protocols = []string{"p"}
			cfg.Serve = func(conn net.Conn, c Client) {
				served <- c
				<-hold
				_ = conn.Close()
			}
		}, nil)
		defer close(hold)
		c := b.registered()
		for i := range maxClients + maxReturning {
			_, err := server.VisitAs(t.Context(), c, "", "p")
			check(t, err)
			if got := receive(t, "a client", served); got.Full != (i >= maxClients) || got.Protocol != "p" {
				t.Fatalf("client %d: %+v", i, got)
			}
		}
		for _, protocol := range []string{"", "p"} {
			check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1000, Token: "t", Protocol: protocol}}))
			if failed := hearFailed(t, c); failed.Client != 1000 || failed.Text != fullText {
				t.Errorf("the agent says %+v", failed)
			}
		}
		hold <- struct{}{}           // one of the clients goes, or of those that came back
		time.Sleep(10 * time.Second) // closing may take a while
		_, err := server.VisitAs(t.Context(), c, "", "p")
		check(t, err)
		receive(t, "a client", served)
	})
}

// TestSilentServer notices a dead path by the pings of the control connection.
func TestSilentServer(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		registered := make(chan time.Time, 1)
		server.Answer(func(w http.ResponseWriter, r *http.Request) {
			conn, err := upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			registerBy(t, conn)
			server.Answer(nil)
			registered <- time.Now() // and nothing is read from here on
		})
		b := startOver(t, server, func(cfg *Config) { cfg.KeepAlive = time.Second }, nil)
		began := receive(t, "a registration", registered)
		b.registered()
		within(t, "noticing", time.Since(began), 2*time.Second, 5*time.Second+closeTime)
		if text := b.journal.String(); text == "" {
			t.Error("nothing was logged")
		}
		receive(t, "an id", b.ids)
		none(t, "announced once more", b.ids)
	})
}

// TestDeadClient ends a client whose path is dead by the same pings.
func TestDeadClient(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		ended := make(chan error, 1)
		b := startOver(t, server, func(cfg *Config) {
			cfg.KeepAlive = time.Second
			cfg.Serve = func(conn net.Conn, _ Client) {
				_, err := io.Copy(io.Discard, conn)
				ended <- err
				_ = conn.Close()
			}
		}, nil)
		c := b.registered()
		server.Answer(func(w http.ResponseWriter, r *http.Request) {
			peer, err := frame.Accept(w, r, "")
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, peer.Conn) // no ping is answered
			_ = peer.Conn.Close()
		})
		check(t, c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}))
		began := time.Now()
		if err := receive(t, "the end of a client", ended); !errors.Is(err, frame.ErrSilent) {
			t.Errorf("the client's connection ended with %v", err)
		}
		within(t, "noticing", time.Since(began), 2*time.Second, 5*time.Second)
	})
}

// TestGoodbyeIsBounded ends an agent whose server reads nothing.
func TestGoodbyeIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, server *servertest.Server) {
		registered := make(chan struct{})
		server.Answer(func(w http.ResponseWriter, r *http.Request) {
			conn, err := upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { _ = conn.Close() })
			registerBy(t, conn)
			close(registered)
		})
		b := startOver(t, server, nil, nil)
		receive(t, "a registration", registered)
		receive(t, "an id", b.ids)
		began := time.Now()
		check(t, b.stop())
		within(t, "ending", time.Since(began), 0, GoodbyeMost)
	})
}
