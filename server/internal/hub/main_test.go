package hub

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
	"example.com/converge/server/internal/fakeagent"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what no test reaches, however loaded the machine is.
const patience = time.Minute

// fixture is a hub behind a real HTTP server.
type fixture struct {
	t    *testing.T
	hub  *Hub
	http *httptest.Server
	rv   rendezvous.Server
	addr string

	open   atomic.Int64  // what Opened and Closed make of it
	closed chan struct{} // one for each Closed
	tcp    *tcp
}

// serve starts a fixture, which the test's end shuts down. tune may change
// the hub before it serves.
func serve(t *testing.T, tune func(*Hub)) *fixture {
	t.Helper()
	f := &fixture{t: t, closed: make(chan struct{}, 10_000)}
	f.hub = New(Config{
		Opened: func() { f.open.Add(1) },
		Closed: func() { f.open.Add(-1); f.closed <- struct{}{} },
	})
	if tune != nil {
		tune(f.hub)
	}
	f.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, rendezvous.AgentPath):
			f.hub.ServeAgent(w, r, strings.TrimPrefix(r.URL.Path, rendezvous.AgentPath))
		case strings.HasPrefix(r.URL.Path, rendezvous.ClientPath):
			f.hub.ServeClient(w, r, strings.TrimPrefix(r.URL.Path, rendezvous.ClientPath))
		case r.URL.Path == rendezvous.DataPath:
			f.hub.ServeData(w, r)
		}
	}))
	f.tcp = &tcp{Listener: f.http.Listener}
	f.http.Listener = f.tcp
	f.http.Start()
	f.addr = f.http.Listener.Addr().String()
	f.rv = rendezvous.Server{Host: f.addr}
	t.Cleanup(func() {
		f.shutdown()
		f.http.Close()
		// Nothing may be left: neither by the hub's count nor by the kernel's.
		if n := f.open.Load(); n != 0 {
			t.Errorf("the hub has %d connections open at its end by its own count", n)
		}
		f.tcp.conns.Wait()
	})
	return f
}

// shutdown ends the hub and fails if that does not work.
func (f *fixture) shutdown() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := f.hub.Shutdown(ctx); err != nil {
		f.t.Error(err)
	}
}

// tcp counts the connections that a listener has accepted and that are open.
type tcp struct {
	net.Listener
	conns sync.WaitGroup
}

func (l *tcp) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.conns.Add(1)
	return &counted{TCPConn: conn.(*net.TCPConn), done: sync.OnceFunc(l.conns.Done)}, nil
}

type counted struct {
	*net.TCPConn
	done func()
}

func (c *counted) Close() error {
	defer c.done()
	return c.TCPConn.Close()
}

// register registers an agent that the test's end closes.
func (f *fixture) register(id string, key ed25519.PrivateKey) *fakeagent.Agent {
	f.t.Helper()
	a, err := fakeagent.Register(f.t.Context(), f.rv, id, key, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = a.Conn.Close() })
	return a
}

// serveAgent registers an agent and lets it serve its clients. The channel
// tells how its control connection ended.
func (f *fixture) serveAgent(id string, key ed25519.PrivateKey, handle func(net.Conn)) <-chan error {
	f.t.Helper()
	a := f.register(id, key)
	end := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { end <- a.Serve(handle) })
	f.t.Cleanup(func() { _ = a.Conn.Close(); serving.Wait() })
	return end
}

// say makes a handler that says a word and goes.
func say(word string) func(net.Conn) {
	return func(conn net.Conn) {
		_, _ = io.WriteString(conn, word)
		_ = conn.Close()
	}
}

// echo is a handler that sends everything back.
func echo(conn net.Conn) {
	_, _ = io.Copy(conn, conn)
	_ = conn.Close()
}

// dial connects a client.
func (f *fixture) dial(id string) (*frame.Conn, error) {
	conn, err := frame.Dial(f.t.Context(), f.rv.ClientURL(id), fakeagent.Transport(), nil, frame.Options{})
	if err == nil {
		f.t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// client connects a client that must get through.
func (f *fixture) client(id string) *frame.Conn {
	f.t.Helper()
	conn, err := f.dial(id)
	if err != nil {
		f.t.Fatal(err)
	}
	return conn
}

// hear returns all that a client of id is told.
func (f *fixture) hear(id string) string {
	f.t.Helper()
	conn := f.client(id)
	text, err := io.ReadAll(conn)
	if err != nil {
		f.t.Fatal(err)
	}
	_ = conn.Close()
	return string(text)
}

// dialLater connects a client in the background.
func (f *fixture) dialLater(id string) <-chan dialled {
	result := make(chan dialled, 1)
	go func() {
		conn, err := f.dial(id)
		result <- dialled{conn, err}
	}()
	return result
}

type dialled struct {
	conn *frame.Conn
	err  error
}

// dialBack dials back for the client that the agent is told of next.
func dialBack(t *testing.T, a *fakeagent.Agent) *frame.Conn {
	t.Helper()
	d, err := a.Dialled()
	if err != nil {
		t.Fatal(err)
	}
	data, err := a.DialBack(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wait receives from a channel.
func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
		panic("unreachable")
	}
}

// wantRefused checks the status and the sentence of a refused handshake.
func wantRefused(t *testing.T, err error, status int, sentence string) {
	t.Helper()
	var refused *transport.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("got %v, want an answer with status %d", err, status)
		return
	}
	if refused.Status != status || !strings.Contains(refused.Error(), sentence) {
		t.Errorf("got %d %v, want %d and %q", refused.Status, refused, status, sentence)
	}
}

// handshake is the request of a websocket handshake, to be sent raw.
func handshake(f *fixture, path string, header http.Header) string {
	var b strings.Builder
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", path, f.addr)
	_ = header.Write(&b)
	return b.String() + "\r\n"
}

// raw sends bytes over a fresh TCP connection in one write.
func (f *fixture) raw(text string) (net.Conn, *bufio.Reader) {
	f.t.Helper()
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		f.t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// wantAnswer reads an HTTP answer and checks its status.
func wantAnswer(t *testing.T, r *bufio.Reader, status int) string {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body []byte
	if resp.StatusCode != http.StatusSwitchingProtocols {
		if body, err = io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	}
	if resp.StatusCode != status {
		t.Fatalf("got %s %q, want %d", resp.Status, body, status)
	}
	return string(body)
}

// masked encodes a frame as a client must send it.
func masked(op ws.OpCode, payload string) string {
	return string(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, []byte(payload)))))
}

// readFrame reads one frame as a server sends it: without a mask.
func readFrame(r io.Reader) (ws.OpCode, []byte, error) {
	header, err := ws.ReadHeader(r)
	if err != nil {
		return 0, nil, err
	}
	if header.Masked || header.Length > 1<<20 {
		return 0, nil, fmt.Errorf("a frame that no server sends: %+v", header)
	}
	payload := make([]byte, header.Length)
	_, err = io.ReadFull(r, payload)
	return header.OpCode, payload, err
}

// wantClose reads frames until a close frame and checks its code.
func wantClose(t *testing.T, r io.Reader, code int) {
	t.Helper()
	for {
		opcode, payload, err := readFrame(r)
		if err != nil {
			t.Fatalf("no close frame with %d: %v", code, err)
		}
		if opcode != ws.OpClose {
			continue
		}
		if status, reason := ws.ParseCloseFrameData(payload); int(status) != code {
			t.Errorf("close code %d %q, want %d", status, reason, code)
		}
		return
	}
}
