package front

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is what no test reaches, however loaded the machine is.
const patience = time.Minute

// endpoints say what they were called with.
type endpoints struct{}

func (endpoints) ServeAgent(w http.ResponseWriter, _ *http.Request, id string) {
	_, _ = fmt.Fprintf(w, "agent %s", id)
}

func (endpoints) ServeClient(w http.ResponseWriter, _ *http.Request, id string) {
	_, _ = fmt.Fprintf(w, "client %s", id)
}

func (endpoints) ServeData(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "data")
}

// pages say the path that they were called with.
func pages(w http.ResponseWriter, r *http.Request) {
	_, _ = fmt.Fprintf(w, "page %s %s", r.URL.Path, r.URL.EscapedPath())
}

// open serves a Front until the end of the test and returns its address. The
// hooks are called after the Front's own.
func open(t *testing.T, cfg Config, hooks ...func(http.ConnState)) (*Front, string) {
	t.Helper()
	if cfg.Endpoints == nil {
		cfg.Endpoints = endpoints{}
	}
	if cfg.Pages == nil {
		cfg.Pages = http.HandlerFunc(pages)
	}
	f := New(cfg)
	own := f.http.ConnState
	f.http.ConnState = func(conn net.Conn, state http.ConnState) {
		own(conn, state)
		for _, hook := range hooks {
			hook(state)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f, l.Addr().String()
}

// peer is a raw connection to a Front.
type peer struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func connect(t *testing.T, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn)
}

func connectTLS(t *testing.T, addr string, cfg *tls.Config) *peer {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn)
}

func newPeer(t *testing.T, conn net.Conn) *peer {
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &peer{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p, text); err != nil {
		p.t.Fatal(err)
	}
}

// answer reads one HTTP answer with its body.
func (p *peer) answer() (*http.Response, string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(body)
}

// ended waits until the server has closed the connection and returns what it
// said before.
func (p *peer) ended() string {
	p.t.Helper()
	words, err := io.ReadAll(p.r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Error("the server did not end the connection")
	}
	return string(words)
}

// get sends a request whose target nobody cleans and returns the answer.
func get(t *testing.T, addr, method, target string, header ...string) (*http.Response, string) {
	t.Helper()
	p := connect(t, addr)
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: h", "Connection: close"}, header...)
	p.send(strings.Join(lines, "\r\n") + "\r\n\r\n")
	return p.answer()
}
