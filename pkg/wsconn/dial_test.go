package wsconn

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/transport"
)

func TestRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/sentence":
			http.Error(w, "there is no agent with this id: start it first", http.StatusNotFound)
		case "/redirect":
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
		case "/elsewhere":
			t.Error("a redirect was followed")
		case "/lie": // 101 without the proof
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
	}))
	defer server.Close()
	url := strings.Replace(server.URL, "http", "ws", 1)
	for path, want := range map[string]string{
		"/sentence": "opening a websocket: there is no agent with this id: start it first (HTTP 404)",
		"/redirect": "opening a websocket: the server answered 302 Found instead of opening a websocket: check the URL",
		"/ok":       "opening a websocket: the server answered 200 OK instead of opening a websocket: check the URL",
	} {
		_, err := Dial(t.Context(), url+path+"?token=secret", nil, nil, quiet)
		var refused *transport.RefusedError
		if !errors.As(err, &refused) || err.Error() != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	_, err := Dial(t.Context(), url+"/lie", nil, nil, quiet)
	if err == nil || !strings.Contains(err.Error(), "Sec-WebSocket-Accept") {
		t.Errorf("no proof: %v", err)
	}
}

func TestDialErrorsHaveNoURL(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	for _, url := range []string{
		"ws://" + listener.Addr().String() + "/?token=secret",
		"ftp://host/secret",
		"ws://host/%zz/secret",
	} {
		_, err := Dial(t.Context(), url, nil, nil, quiet)
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestDialContext(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer server.Close()
	defer close(release)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, strings.Replace(server.URL, "http", "ws", 1), nil, nil, quiet)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a handshake without an answer: %v", err)
	}
}

func TestContextBoundsTheHandshakeOnly(t *testing.T) {
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		server := serve(t, quiet, secure)
		ctx, cancel := context.WithCancel(t.Context())
		client, err := Dial(ctx, server.url, server.client, nil, quiet)
		if err != nil {
			t.Fatal(err)
		}
		conn := <-server.conns
		cancel()
		server.client.CloseIdleConnections()
		for range 100 {
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantRead(t, conn, "x")
			if _, err := conn.Write([]byte("y")); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			wantRead(t, client, "y")
		}
		closeAll(client, conn)
	}
}

func TestHeaderIsSent(t *testing.T) {
	got := make(chan http.Header, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.WriteHeader(http.StatusTeapot)
	}))
	defer server.Close()
	header := http.Header{"X-Token": {"a", "b"}}
	_, err := Dial(t.Context(), strings.Replace(server.URL, "http", "ws", 1), nil, header, quiet)
	if err == nil {
		t.Fatal("a teapot opened a websocket")
	}
	if values := (<-got)["X-Token"]; len(values) != 2 || len(header) != 1 {
		t.Errorf("sent %q, and header is now %v", values, header)
	}
}

// wrapped is a middleware's response, which hides everything but Unwrap.
type wrapped struct{ w http.ResponseWriter }

func (w wrapped) Header() http.Header         { return w.w.Header() }
func (w wrapped) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w wrapped) WriteHeader(status int)      { w.w.WriteHeader(status) }
func (w wrapped) Unwrap() http.ResponseWriter { return w.w }

func TestAcceptThroughMiddleware(t *testing.T) {
	conns := make(chan *Conn, 1)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Set-Before", "yes")
		conn, err := Accept(wrapped{wrapped{w}}, r, quiet)
		if err != nil {
			t.Error(err)
		}
		conns <- conn
	}))
	// Deadlines of the server are not the websocket's.
	server.Config.ReadTimeout, server.Config.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	server.Start()
	defer server.Close()
	a := &accepting{url: strings.Replace(server.URL, "http", "ws", 1), client: &http.Transport{}, conns: conns}
	client, conn := a.dial(t, quiet)
	if err := conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("the server's deadline ended it: %v", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	wantRead(t, conn, "x")
}

func TestAcceptRefuses(t *testing.T) {
	request := httptest.NewRequest(http.MethodGet, "/", nil)
	answer := httptest.NewRecorder() // which is no Hijacker
	if conn, err := Accept(answer, request, quiet); conn != nil || err == nil || answer.Code != http.StatusNotImplemented {
		t.Errorf("%v, %v, %d", conn, err, answer.Code)
	}
	if conn, err := Accept(wrapped{answer}, request, quiet); conn != nil || err == nil {
		t.Errorf("%v, %v", conn, err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if conn, err := Accept(w, r, quiet); conn != nil || err == nil {
			t.Errorf("a plain request was accepted: %v", err)
		}
	}))
	defer server.Close()
	resp, err := server.Client().Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("a plain request was answered %s", resp.Status)
	}
}

func TestAcceptLeavesTheOriginToTheCaller(t *testing.T) {
	server := serve(t, quiet, false)
	client, err := Dial(t.Context(), server.url, server.client, http.Header{"Origin": {"https://elsewhere.example"}}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	closeAll(client, <-server.conns)
}
