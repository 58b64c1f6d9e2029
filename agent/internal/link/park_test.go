package link

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
)

// startParking runs a link against a server until the test ends. Clients are told the
// address from which they come.
func startParking(t *testing.T, s *servertest.Server, tune func(*Link)) *Link {
	t.Helper()
	l, err := New(Config{
		Server: s.Address, ID: "job", Transport: &http.Transport{DisableKeepAlives: true},
		Serve: func(conn net.Conn, client Client) {
			_, _ = io.WriteString(conn, client.Remote)
			_ = conn.Close()
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l.firstPark, l.nextPark = 1, 1
	if tune != nil {
		tune(l)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); running.Wait(); s.End() })
	return l
}

// nextControl returns the next control connection.
func nextControl(t *testing.T, s *servertest.Server) *servertest.Control {
	t.Helper()
	c, err := s.Registered(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// parked gives leave to park and returns the connection.
func parked(t *testing.T, s *servertest.Server, c *servertest.Control, token string) *servertest.Data {
	t.Helper()
	m, err := c.HearAll()
	if err != nil || m.Park == nil {
		t.Fatalf("got %+v, %v, want park", m, err)
	}
	if err := c.Say(rendezvous.Message{Parking: &rendezvous.Parking{Client: 7, Token: token}}); err != nil {
		t.Fatal(err)
	}
	data, err := s.Data(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := data.Header; got.Get(rendezvous.TokenHeader) != token || got.Get(rendezvous.ClientHeader) != "7" {
		t.Errorf("the parked connection has the headers %v", got)
	}
	return data
}

// offer brings a client on a parked connection and returns the answer.
func offer(t *testing.T, data *servertest.Data, client uint64, remote string) rendezvous.Message {
	t.Helper()
	if err := rendezvous.Send(data, rendezvous.Message{Dial: &rendezvous.Dial{Client: client, Remote: remote}}); err != nil {
		t.Fatal(err)
	}
	m, err := rendezvous.Receive(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPark(t *testing.T) {
	s := servertest.New()
	startParking(t, s, nil)
	c := nextControl(t, s)
	for _, token := range []string{"first", "second", "third"} { // parked again after each client
		data := parked(t, s, c, token)
		if m := offer(t, data, 42, token+" client"); m.Accepted == nil || m.Accepted.Client != 42 {
			t.Fatalf("got %+v, want accepted", m)
		}
		if text, err := io.ReadAll(data); err != nil || string(text) != token+" client" {
			t.Errorf("the client got %q, %v", text, err)
		}
	}
	// Meanwhile it dials back as ever.
	parked(t, s, c, "fourth")
	data, err := s.Visit(t.Context(), c, "dialled")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(data); err != nil || string(text) != "dialled" {
		t.Errorf("the client got %q, %v", text, err)
	}
}

// TestParkOldServer: one that speaks the first version is asked for nothing.
func TestParkOldServer(t *testing.T) {
	s := servertest.New()
	l := startParking(t, s, nil)
	c, err := s.Control(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m, err := c.Hear(); err != nil || m.Hello == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	nonce := rendezvous.NewNonce()
	for _, step := range []rendezvous.Message{
		{Challenge: &rendezvous.Challenge{Version: 1, Nonce: nonce}},
		{Registered: &rendezvous.Registered{ID: l.cfg.ID}},
	} {
		if err := c.Say(step); err != nil {
			t.Fatal(err)
		}
		if step.Challenge != nil {
			if m, err := c.Hear(); err != nil || m.Proof == nil {
				t.Fatalf("%+v, %v", m, err)
			}
		}
	}
	// The answer to a dial that it cannot follow is the next thing it says.
	s.Answer(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	if err := c.Say(rendezvous.Message{Dial: &rendezvous.Dial{Client: 1, Token: "t"}}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.HearAll(); err != nil || m.DialFailed == nil {
		t.Errorf("got %+v, %v, want dial_failed", m, err)
	}
}

// TestParkAgain: after whatever ends a parked connection there is another.
func TestParkAgain(t *testing.T) {
	s := servertest.New()
	startParking(t, s, nil)
	c := nextControl(t, s)
	_ = parked(t, s, c, "closed").Close()
	data := parked(t, s, c, "nonsense")
	if err := rendezvous.Send(data, rendezvous.Message{Bye: &rendezvous.Bye{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		t.Errorf("it ended with %v", err)
	}
	// Refused, too.
	if m, err := c.HearAll(); err != nil || m.Park == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	s.Answer(func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	if err := c.Say(rendezvous.Message{Parking: &rendezvous.Parking{Client: 7, Token: "refused"}}); err != nil {
		t.Fatal(err)
	}
	if m, err := c.HearAll(); err != nil || m.Park == nil {
		t.Fatalf("%+v, %v", m, err)
	}
	s.Answer(nil)
	if err := c.Say(rendezvous.Message{Parking: &rendezvous.Parking{Client: 8, Token: "last"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Data(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestParkedEndsWithTheControlConnection, and the next one gets its own.
func TestParkedEndsWithTheControlConnection(t *testing.T) {
	s := servertest.New()
	startParking(t, s, nil)
	c := nextControl(t, s)
	data := parked(t, s, c, "first")
	_ = c.Close()
	// To the agent it may not be parked yet, and is then only cut.
	if n, err := data.Read(make([]byte, 1)); err == nil {
		t.Errorf("the parked connection goes on: %d bytes came", n)
	}
	parked(t, s, nextControl(t, s), "second")
}

func TestParkedWithoutRoom(t *testing.T) {
	s := servertest.New()
	startParking(t, s, func(l *Link) { l.slots = make(chan struct{}) })
	data := parked(t, s, nextControl(t, s), "token")
	m := offer(t, data, 42, "")
	if m.DialFailed == nil || m.DialFailed.Client != 42 || m.DialFailed.Text != fullText {
		t.Errorf("got %+v, want dial_failed", m)
	}
	if _, err := data.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("it ended with %v", err)
	}
}

// TestParkedOutlivesTheControlConnection once a client has it.
func TestParkedOutlivesTheControlConnection(t *testing.T) {
	s := servertest.New()
	ready := make(chan struct{})
	startParking(t, s, func(l *Link) {
		l.cfg.Serve = func(conn net.Conn, _ Client) {
			<-ready
			_, _ = io.WriteString(conn, "still here")
			_ = conn.Close()
		}
	})
	c := nextControl(t, s)
	data := parked(t, s, c, "token")
	if m := offer(t, data, 1, ""); m.Accepted == nil {
		t.Fatalf("got %+v", m)
	}
	_ = c.Close()
	nextControl(t, s)
	close(ready)
	if text, err := io.ReadAll(data); err != nil || string(text) != "still here" {
		t.Errorf("the client got %q, %v", text, err)
	}
}

// TestParkPing: a parked connection stays, for its pings are answered, and
// neither a proxy nor the server takes it for dead.
func TestParkPing(t *testing.T) {
	s := servertest.New()
	const every = time.Second
	startParking(t, s, func(l *Link) { l.cfg.KeepAlive = every })
	data := parked(t, s, nextControl(t, s), "token")
	_ = data.SetReadDeadline(time.Now().Add(4 * every)) // longer than a silence may last
	if _, err := data.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the parked connection ended with %v", err)
	}
}
