package link

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is for what takes milliseconds on an idle machine.
const patience = time.Minute

// bench is a Link that runs against a fake server.
type bench struct {
	t       *testing.T
	server  *servertest.Server
	link    *Link
	journal *servertest.Output // the log
	ids     chan string        // what Registered was called with
	clients chan visitor       // what Serve was called with

	end      context.CancelFunc
	controls []*servertest.Control // those so far
	result   chan error
	failed   error // Run's error, once it has returned
	over     bool

	mu    sync.Mutex
	conns []net.Conn
}

// visitor is a client as Serve sees it.
type visitor struct {
	conn net.Conn
	Client
}

// start runs a Link until the end of the test. It has no time to lose between
// attempts, and may be changed before it runs; either function may be nil.
// Serve echoes.
func start(t *testing.T, server *servertest.Server, change func(*Config), tune func(*Link)) *bench {
	t.Helper()
	tr, err := (transport.Options{}).Transport(server.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	return startOver(t, server, func(cfg *Config) {
		cfg.Transport = tr
		if change != nil {
			change(cfg)
		}
	}, func(l *Link) {
		l.pause = newBackoff(time.Millisecond, time.Hour)
		if tune != nil {
			tune(l)
		}
	})
}

// startOver is start with the server's own transport and the pauses of
// everyday life.
func startOver(t *testing.T, server *servertest.Server, change func(*Config), tune func(*Link)) *bench {
	t.Helper()
	b := &bench{
		t: t, server: server, journal: new(servertest.Output),
		ids: make(chan string, 64), clients: make(chan visitor, 64), result: make(chan error, 1),
	}
	cfg := Config{
		Server: server.Address, ID: "job", Transport: server.Transport(), KeepAlive: -1,
		Registered: func(id string) { b.ids <- id },
		Serve:      b.echo,
		Logger:     slog.New(slog.NewTextHandler(b.journal, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if b.link, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if tune != nil {
		tune(b.link)
	}
	var ctx context.Context
	ctx, b.end = context.WithCancel(t.Context())
	go func() { b.result <- b.link.Run(ctx) }()
	t.Cleanup(func() {
		if err := b.stop(); err != nil {
			t.Errorf("Run after the end: %v", err)
		}
	})
	return b
}

// echo is Serve.
func (b *bench) echo(conn net.Conn, client Client) {
	b.mu.Lock()
	b.conns = append(b.conns, conn)
	b.mu.Unlock()
	b.clients <- visitor{conn, client}
	_, _ = io.Copy(conn, conn)
	_ = conn.Close()
}

// stop ends the link and returns Run's error, unless wait has had it.
func (b *bench) stop() error {
	b.end()
	b.mu.Lock()
	for _, conn := range b.conns {
		_ = conn.SetDeadline(time.Unix(1, 0)) // echo closes it
	}
	b.mu.Unlock()
	for _, c := range b.controls {
		_ = c.Close() // where the goodbye is not read, it would be waited for
	}
	if b.over {
		return nil
	}
	return b.wait()
}

// wait returns Run's error.
func (b *bench) wait() error {
	b.t.Helper()
	b.failed = receive(b.t, "Run to return", b.result)
	b.over = true
	return b.failed
}

// fails waits for Run to return an error of which each text is a part.
func (b *bench) fails(texts ...string) {
	b.t.Helper()
	err := b.wait()
	if err == nil {
		b.t.Fatal("Run returned no error")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			b.t.Errorf("Run's error %q does not say %q", err, text)
		}
	}
	if text := err.Error(); text != transport.Printable(text) {
		b.t.Errorf("Run's error %q is not fit to be shown", text)
	}
}

// control returns the agent's next control connection.
func (b *bench) control() *servertest.Control {
	b.t.Helper()
	c, err := b.server.Control(b.t.Context())
	check(b.t, err)
	b.controls = append(b.controls, c)
	return c
}

// registered returns the agent's next registration.
func (b *bench) registered() *servertest.Control {
	b.t.Helper()
	c := b.control()
	check(b.t, c.Register())
	return c
}

// visit brings a client in and exchanges bytes with it.
func (b *bench) visit(c *servertest.Control) (*servertest.Data, visitor) {
	b.t.Helper()
	data, err := b.server.Visit(b.t.Context(), c, "192.0.2.7:2222")
	check(b.t, err)
	b.t.Cleanup(func() { _ = data.Close() })
	v := receive(b.t, "a client", b.clients)
	exchange(b.t, data)
	return data, v
}

// exchange sends a line through an echo.
func exchange(t *testing.T, conn net.Conn) {
	t.Helper()
	const line = "Is anybody there?"
	check(t, conn.SetDeadline(time.Now().Add(patience)))
	if _, err := io.WriteString(conn, line); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(line))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != line {
		t.Fatalf("%q came back: %v", got, err)
	}
}

// saysBye reads a control connection up to the agent's goodbye.
func saysBye(t *testing.T, c *servertest.Control) {
	t.Helper()
	m, err := c.Hear()
	if err != nil || m.Bye == nil {
		t.Errorf("the agent said %+v (%v), want a goodbye", m, err)
	}
	if _, err := c.Hear(); err != io.EOF {
		t.Errorf("after the goodbye: %v, want EOF", err)
	}
}

// raw is a message on the wire.
func raw(json string) []byte {
	return append([]byte{byte(len(json) >> 8), byte(len(json))}, json...)
}

// receive takes from a channel, in time.
func receive[T any](t *testing.T, what string, from <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-from:
		return v
	case <-timer.C:
		t.Fatalf("waiting for %s: nothing came within %v", what, patience)
		return *new(T)
	}
}

// none checks that a channel holds nothing.
func none[T any](t *testing.T, what string, from <-chan T) {
	t.Helper()
	select {
	case v := <-from:
		t.Errorf("%s: %v", what, v)
	default:
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newServer starts a fake server for one test.
func newServer(t *testing.T) *servertest.Server {
	s := servertest.New()
	t.Cleanup(s.End)
	return s
}

// hearFailed returns the message that a client cannot be served.
func hearFailed(t *testing.T, c *servertest.Control) *rendezvous.DialFailed {
	t.Helper()
	m, err := c.Hear()
	if err != nil || m.DialFailed == nil {
		t.Fatalf("the agent said %+v (%v), want that it cannot dial back", m, err)
	}
	return m.DialFailed
}

// logged waits until the log holds a text n times.
func (b *bench) logged(text string, n int) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	_, err := b.journal.Wait(ctx, fmt.Sprintf("(?s)(%s.*){%d}", regexp.QuoteMeta(text), n))
	check(b.t, err)
}
