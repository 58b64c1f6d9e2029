package transport

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// setProxy clears the environment of proxies and sets the given variables.
func setProxy(t *testing.T, env map[string]string) {
	t.Helper()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "REQUEST_METHOD"} {
		t.Setenv(name, env[name])
		t.Setenv(strings.ToLower(name), "")
	}
}

// proxy is a small HTTP proxy that knows only CONNECT and one server, whatever
// name it is asked for.
type proxy struct {
	addr   string
	seen   chan *http.Request
	server string
	answer func(net.Conn) // in place of a tunnel
}

// newProxy serves until the test ends; config makes it speak TLS.
func newProxy(t *testing.T, server string, config *tls.Config, answer func(net.Conn)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), seen: make(chan *http.Request, 10), server: server, answer: answer}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(conn)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	br := bufio.NewReader(client)
	req, err := http.ReadRequest(br)
	if err != nil {
		return
	}
	p.seen <- req
	if p.answer != nil {
		p.answer(client)
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	_, _ = io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n")
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	_, _ = io.Copy(server, br)
	_ = server.Close()
	<-back
}

func say(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

func TestProxyPlain(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(hello))
	defer srv.Close()
	p := newProxy(t, srv.Listener.Addr().String(), nil, nil)
	setProxy(t, map[string]string{"HTTP_PROXY": "http://user:p%40ss@" + p.addr, "HTTPS_PROXY": "http://127.0.0.1:1"})
	got, err := get(t, Options{}, "http://server.test/x")
	if err != nil || got != "1 hello server.test" {
		t.Fatalf("got %q, %v", got, err)
	}
	req := <-p.seen
	if req.Method != http.MethodConnect || req.RequestURI != "server.test:80" || req.Host != "server.test:80" {
		t.Errorf("the proxy was asked for %s %s", req.Method, req.RequestURI)
	}
	// user:p@ss
	if got := req.Header.Get("Proxy-Authorization"); got != "Basic dXNlcjpwQHNz" {
		t.Errorf("Proxy-Authorization: %q", got)
	}
}

func TestProxyTLS(t *testing.T) {
	srv, caFile := tlsServer(t)
	for _, test := range []struct {
		name   string
		scheme string
		config *tls.Config
	}{
		{"plain proxy", "http://", nil},
		{"TLS proxy", "https://", &tls.Config{Certificates: srv.TLS.Certificates}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProxy(t, srv.Listener.Addr().String(), test.config, nil)
			setProxy(t, map[string]string{"HTTPS_PROXY": test.scheme + p.addr})
			got, err := get(t, Options{CAFile: caFile}, "https://example.com:444/")
			if err != nil || got != "1 hello example.com:444" {
				t.Fatalf("got %q, %v", got, err)
			}
			if req := <-p.seen; req.RequestURI != "example.com:444" || req.Header.Get("Proxy-Authorization") != "" {
				t.Errorf("the proxy was asked for %s with %v", req.RequestURI, req.Header)
			}
			// The name is verified through the tunnel too.
			if _, err := get(t, Options{CAFile: caFile}, "https://server.test/"); err == nil || !Permanent(err) {
				t.Errorf("another name: %v", err)
			}
		})
	}
}

func TestProxyFails(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(net.Conn)
		want   string
	}{
		{"refusal", say("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno"), "refused a tunnel to server.test:80: it answered 407 Proxy Authentication Required"},
		{"hostile refusal", say("HTTP/1.1 403 \x1b[31m\r\n\r\n"), "it answered 403 ?[31m"},
		{"nonsense", say("SSH-2.0-x\r\n"), "cannot read the answer"},
		{"end", func(net.Conn) {}, "cannot read the answer"},
		{"forward server", say("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 101 x\r\n"), "spoke before the tunnel was used"},
		{"endless", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for {
				if _, err := io.WriteString(c, "X: "+strings.Repeat("y", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}, "longer than 32 KiB"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := newProxy(t, "", nil, test.answer)
			setProxy(t, map[string]string{"HTTP_PROXY": "http://user:secret@" + p.addr})
			_, err := get(t, Options{}, "http://server.test/")
			var op *net.OpError
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &op) || op.Op != proxyOp {
				t.Fatalf("got %v", err)
			}
			if text := Explain("TARGET", err).Error(); strings.Contains(text, "secret") || !strings.Contains(text, "through a proxy") {
				t.Errorf("explained as %q", text)
			}
		})
	}
}

// TestProxySilent cancels while the proxy says nothing.
func TestProxySilent(t *testing.T) {
	p := newProxy(t, "", nil, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
	ctx, cancel := context.WithCancel(t.Context())
	tunnel := &tunnel{proxy: &url.URL{Scheme: "http", Host: p.addr}, dial: (&net.Dialer{}).DialContext}
	go func() {
		<-p.seen
		cancel()
	}()
	if _, err := tunnel.DialContext(ctx, "tcp", "server.test:80"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestProxyUnreachable(t *testing.T) {
	setProxy(t, map[string]string{"HTTP_PROXY": "http://127.0.0.1:1"})
	if _, err := get(t, Options{}, "http://server.test/"); err == nil || !strings.Contains(err.Error(), "cannot reach the proxy") || Permanent(err) {
		t.Errorf("got %v", err)
	}
}

func TestProxyFor(t *testing.T) {
	env := map[string]string{
		"HTTP_PROXY":  "plain.test:3128",
		"HTTPS_PROXY": "socks5://user:secret@tls.test",
		"NO_PROXY":    "inside.test,.example.com,10.0.0.0/8",
	}
	for rawURL, want := range map[string]string{
		"ws://server.test/client/x":  "http://plain.test:3128",
		"wss://server.test/client/x": "socks5://user:secret@tls.test",
		"ws://inside.test:8080/":     "",
		"wss://a.example.com":        "",
		"ws://10.1.2.3":              "",
		"ws://localhost":             "",
		"ws://127.0.0.1:80":          "",
		"ws://[::1":                  "",
	} {
		setProxy(t, env)
		proxy, err := proxyFor(rawURL)
		got := ""
		if proxy != nil {
			got = proxy.String()
		}
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", rawURL, got, err, want)
		}
	}
	for _, value := range []string{"ftp://user:secret@proxy.test", "http://user:secret@pro xy", "http://user:secret@"} {
		setProxy(t, map[string]string{"HTTPS_PROXY": value})
		_, err := Options{}.Transport("wss://server.test")
		if err == nil || !strings.Contains(err.Error(), "cannot use HTTPS_PROXY") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", value, err)
		}
	}
	setProxy(t, map[string]string{"HTTP_PROXY": "http://proxy.test", "REQUEST_METHOD": "GET"})
	if _, err := proxyFor("ws://server.test"); err == nil || !strings.Contains(err.Error(), "cannot use HTTP_PROXY") {
		t.Errorf("in a CGI script: %v", err)
	}
	setProxy(t, env)
	tr, err := Options{}.Transport("wss://server.test")
	if err != nil {
		t.Fatal(err)
	}
	if proxy, err := tr.Proxy(httptest.NewRequest("GET", "https://server.test", nil)); err != nil || proxy.Scheme != "socks5" {
		t.Errorf("SOCKS: got %v, %v", proxy, err)
	}
}
