package resume

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errRefusedByServer = errors.New("the server wants a password")

// notices collects what is told.
type notices struct {
	mu   sync.Mutex
	list []string
}

func (n *notices) add(notice Notice) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, notice.State.String())
}

func (n *notices) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.list, " ")
}

// TestOutage: attempts go on while there is no agent, the first at once and
// the others at growing distances, and the user learns of it, once.
func TestOutage(t *testing.T) {
	tests := []struct {
		name        string
		outage      time.Duration
		notices     string
		least, most int // attempts
	}{
		{"a moment", 500 * time.Millisecond, "", 3, 9},
		{"a while", time.Minute, "stalled flowing", 15, 40},
		{"nearly the window", DefaultWindow - 10*time.Second, "stalled flowing", 60, 140},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAgent(t, HubConfig{})
				var said notices
				var down time.Time
				tries := 0
				client, server := a.open(Config{Notice: said.add, Dial: func(ctx context.Context) (net.Conn, error) {
					if !down.IsZero() {
						tries++
						if time.Since(down) < test.outage {
							return nil, errNoAgent
						}
					}
					return a.dial(ctx)
				}})
				mustWrite(t, client, "before ")
				wantRead(t, server, "before ")
				down = time.Now()
				cutLink(client)
				mustWrite(t, client, "meanwhile ")
				mustWrite(t, server, "likewise")
				wantRead(t, server, "meanwhile ")
				wantRead(t, client, "likewise")
				synctest.Wait()
				took := time.Since(down)
				if took < test.outage || took > test.outage*3/2+longestPause {
					t.Errorf("it was back after %v of %v", took, test.outage)
				}
				if tries < test.least || tries > test.most {
					t.Errorf("%d attempts, want %d to %d", tries, test.least, test.most)
				}
				if said.String() != test.notices {
					t.Errorf("the user was told %q, want %q", &said, test.notices)
				}
			})
		})
	}
}

// TestNoConnectionForTheWindow: both ends give up, with a sentence.
func TestNoConnectionForTheWindow(t *testing.T) {
	for _, window := range []time.Duration{time.Minute, 10 * time.Minute} { // the agent's is 5 min
		synctest.Test(t, func(t *testing.T) {
			a := newAgent(t, HubConfig{})
			down := false
			client, server := a.open(Config{Window: window, Dial: func(ctx context.Context) (net.Conn, error) {
				if down {
					return nil, errNoAgent
				}
				return a.dial(ctx)
			}})
			mustWrite(t, server, "the last words")
			synctest.Wait()
			down = true
			start := time.Now()
			cutLink(client)
			<-client.done
			if took, want := time.Since(start), min(window, DefaultWindow); took != want {
				t.Errorf("the client gave up after %v, want %v", took, want)
			}
			wantRead(t, client, "the last words") // what had arrived is not lost
			_, err := client.Read(make([]byte, 1))
			wantError(t, "read", err, ErrExpired)
			wantError(t, "the reason in it", err, errNoAgent)
			_, err = client.Write([]byte("x"))
			wantError(t, "write", err, ErrExpired)
			wantError(t, "half close", client.CloseWrite(), ErrExpired)
			_, err = server.Read(make([]byte, 1))
			wantError(t, "the agent's read", err, ErrExpired)
			if took := time.Since(start); took != DefaultWindow {
				t.Errorf("the agent gave up after %v", took)
			}
			if stats := a.Stats(); stats != (Stats{}) {
				t.Errorf("the Hub is left with %+v", stats)
			}
		})
	}
}

// TestEndsRetries: what makes further attempts useless.
func TestEndsRetries(t *testing.T) {
	tests := []struct {
		name string
		want error
		dial func(a, restarted *agent) (net.Conn, error)
	}{
		{"the agent was restarted", ErrGone, func(_, restarted *agent) (net.Conn, error) {
			return restarted.dial(context.Background())
		}},
		{"an error that will stay", errRefusedByServer, func(*agent, *agent) (net.Conn, error) {
			return nil, errRefusedByServer
		}},
		{"another version", ErrVersion, func(*agent, *agent) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				_, _, _ = readMessage(far)
				_, _ = far.Write(encode(msgRefused, []byte{byte(refusedVersion)}))
			}()
			return near, nil
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, restarted := newAgent(t, HubConfig{}), newAgent(t, HubConfig{})
				first := true
				client, _ := a.open(Config{
					Permanent: func(err error) bool { return errors.Is(err, errRefusedByServer) },
					Dial: func(ctx context.Context) (net.Conn, error) {
						if first {
							first = false
							return a.dial(ctx)
						}
						return test.dial(a, restarted)
					},
				})
				start := time.Now()
				cutLink(client)
				_, err := client.Read(make([]byte, 1))
				wantError(t, "read", err, test.want)
				if took := time.Since(start); took > 0 {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// TestHangingAttempts: a server that accepts and says nothing, and one whose
// dialling never ends, cost one attempt each.
func TestHangingAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		n := 0
		client, server := a.open(Config{Dial: func(ctx context.Context) (net.Conn, error) {
			n++
			switch n {
			case 2:
				near, far := net.Pipe()
				t.Cleanup(func() { _ = far.Close() })
				return near, nil
			case 3:
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return a.dial(ctx)
		}})
		start := time.Now()
		cutLink(client)
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
		if took := time.Since(start); took > handshakeWait+attemptWait+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestFirstConnection: Client does not try again and says why.
func TestFirstConnection(t *testing.T) {
	_, err := Client(context.Background(), Config{Dial: func(context.Context) (net.Conn, error) { return nil, errNoAgent }})
	wantError(t, "no agent", err, errNoAgent)

	_, err = Client(context.Background(), Config{Dial: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			_, _, _ = readMessage(far)
			_, _ = io.WriteString(far, "SSH-2.0-Go\r\n")
		}()
		return near, nil
	}})
	wantError(t, "an agent that speaks something else", err, errPreface)

	synctest.Test(t, func(t *testing.T) {
		silent := func(context.Context) (net.Conn, error) {
			near, far := net.Pipe()
			t.Cleanup(func() { _ = far.Close() })
			return near, nil
		}
		start := time.Now()
		_, err := Client(context.Background(), Config{Dial: silent})
		if took := time.Since(start); err == nil || took != handshakeWait {
			t.Errorf("a silent agent: %v after %v", err, took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = Client(ctx, Config{Dial: silent})
		wantError(t, "a context that ends", err, context.DeadlineExceeded)
	})
	for _, cfg := range []Config{{Window: -1}, {Buffer: 1}, {Buffer: MaxBuffer + 1}, {Ping: -1}} {
		if _, err := Client(context.Background(), cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestDeadPath: a path that swallows everything is noticed within a minute, at
// both ends, and one that swallows one direction too.
func TestDeadPath(t *testing.T) {
	for _, both := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			relay := &hostile{agent: newAgent(t, HubConfig{})}
			var dead atomic.Bool
			swallow := func(conn, n int, unit []byte) [][]byte {
				if conn == 0 && dead.Load() {
					return nil
				}
				return [][]byte{unit}
			}
			relay.up = swallow
			if both {
				relay.down = swallow
			}
			client, server := relay.agent.open(Config{Dial: relay.dial})
			mustWrite(t, client, "x")
			wantRead(t, server, "x")
			time.Sleep(10 * time.Minute)
			if relay.count() != 1 {
				t.Fatalf("an idle stream made %d connections", relay.count())
			}
			dead.Store(true)
			start := time.Now()
			mustWrite(t, client, "y")
			wantRead(t, server, "y")
			if took := time.Since(start); took > time.Minute {
				t.Errorf("the dead path was noticed after %v", took)
			}
		})
	}
}

// TestSuspended: a connection from before the machine slept is given up.
func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		dials := 0
		client, server := a.open(Config{Dial: func(ctx context.Context) (net.Conn, error) {
			dials++
			return a.dial(ctx)
		}})
		client.mu.Lock()
		clock := &client.link.tickClock
		clock.wall = clock.wall.Add(-time.Hour)
		client.mu.Unlock()
		time.Sleep(2 * DefaultPing)
		synctest.Wait()
		if dials != 2 {
			t.Errorf("%d connections were made, want 2", dials)
		}
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
	})
}

// TestClose: what was written arrives, at either end, whoever closes.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{})
		mustWrite(t, client, "the last words")
		mustClose(t, client.Close())
		mustClose(t, client.Close())
		_, err := client.Read(make([]byte, 1))
		wantError(t, "read after close", err, net.ErrClosed)
		_, err = client.Write([]byte("x"))
		wantError(t, "write after close", err, net.ErrClosed)
		wantError(t, "half close after close", client.CloseWrite(), net.ErrClosed)
		wantError(t, "deadline after close", client.SetDeadline(time.Time{}), net.ErrClosed)
		_, err = server.Write([]byte("x"))
		wantError(t, "write to a closed end", err, io.ErrClosedPipe)
		got, err := io.ReadAll(server)
		if string(got) != "the last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}

		client, server = a.open(Config{})
		mustWrite(t, server, "the last words")
		mustClose(t, server.Close())
		got, err = io.ReadAll(client)
		if string(got) != "the last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		synctest.Wait()
		if stats := a.Stats(); stats != (Stats{}) {
			t.Errorf("the Hub is left with %+v", stats)
		}
	})
}

// TestHalfClose: each direction ends by itself.
func TestHalfClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{})
		mustWrite(t, client, "question")
		mustClose(t, client.CloseWrite())
		mustClose(t, client.CloseWrite())
		_, err := client.Write([]byte("x"))
		wantError(t, "write after CloseWrite", err, io.ErrClosedPipe)
		got, err := io.ReadAll(server)
		if string(got) != "question" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		cutLink(client) // the end is not forgotten
		mustWrite(t, server, "answer")
		mustClose(t, server.CloseWrite())
		got, err = io.ReadAll(client)
		if string(got) != "answer" || err != nil {
			t.Fatalf("read %q, %v", got, err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the end was followed by %v", err)
		}
	})
}

// TestCloseWhileStalled: a client's Close waits no longer than it should, and
// an agent's last words wait for the client.
func TestCloseWhileStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		var down time.Time
		dial := func(ctx context.Context) (net.Conn, error) {
			if !down.IsZero() && time.Since(down) < time.Minute {
				return nil, errNoAgent
			}
			return a.dial(ctx)
		}
		client, server := a.open(Config{Dial: dial})
		down = time.Now()
		cutLink(client)
		synctest.Wait()
		server.Keep()
		mustWrite(t, server, "exit status 0")
		mustClose(t, server.Close())
		got, err := io.ReadAll(client)
		if string(got) != "exit status 0" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if time.Since(down) < time.Minute {
			t.Error("it came before the connection was back")
		}
		mustClose(t, client.Close())

		down = time.Time{}
		client, _ = a.open(Config{Dial: dial})
		down = time.Now()
		cutLink(client)
		mustWrite(t, client, "x")
		wantError(t, "close", client.Close(), ErrUnsent)
		if took := time.Since(down); took != DefaultLinger {
			t.Errorf("Close took %v", took)
		}
	})
}
