package frame

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/converge/pkg/transport"
)

// newServer serves a handler and gives its ws or wss URL and a transport.
func newServer(t *testing.T, secure bool, h http.HandlerFunc) (string, *http.Transport) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	if secure {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	rawURL := "ws" + strings.TrimPrefix(srv.URL, "http")
	tr, err := transport.Options{Insecure: secure}.Transport(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.CloseIdleConnections)
	return rawURL, tr
}

// echo accepts a websocket and sends everything back until it ends.
func echo(w http.ResponseWriter, r *http.Request) {
	peer, err := Accept(w, r, "")
	if err != nil {
		return
	}
	conn := Server(peer.Conn, io.MultiReader(bytes.NewReader(peer.Early), peer.Conn), quiet)
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
	_ = conn.CloseWrite()
}

// echoed sends data and compares what comes back.
func echoed(t *testing.T, conn *Conn, data []byte) {
	t.Helper()
	sent := async(func() error { _, err := conn.Write(data); return err })
	got := make([]byte, len(data))
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatal(err)
	}
	await(t, "Write", sent)
	sameBytes(t, "echo", got, data)
}

func TestDialEcho(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("tls ", secure), func(t *testing.T) {
			url, tr := newServer(t, secure, func(w http.ResponseWriter, r *http.Request) {
				if !IsHandshake(r) || r.Header.Get("X-Test") != "yes" || r.Host != "other.test" {
					http.Error(w, "the headers are wrong", http.StatusBadRequest)
					return
				}
				echo(w, r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			conn, err := Dial(ctx, url+"#fragment", tr, http.Header{"X-Test": {"yes"}, "Host": {"other.test"}}, quiet)
			cancel() // bounds the handshake only
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			echoed(t, conn, randomBytes(t, 3<<20))
			if conn.LocalAddr().String() == conn.RemoteAddr().String() {
				t.Error("the addresses are not the connection's")
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, conn); n != 0 || err != nil {
				t.Errorf("after the end: %d bytes, %v", n, err)
			}
		})
	}
}

func TestDialRefused(t *testing.T) {
	url, tr := newServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "there is no agent with this id", http.StatusNotFound)
	})
	_, err := Dial(t.Context(), url, tr, nil, quiet)
	var refused *transport.RefusedError
	if !errors.As(err, &refused) || refused.Status != 404 || refused.Text != "there is no agent with this id" {
		t.Fatalf("got %v", err)
	}
	for _, url := range []string{"http://127.0.0.1/", "127.0.0.1:80", "ws://[::1", "ws:///x"} {
		if conn, err := Dial(t.Context(), url, tr, nil, quiet); err == nil {
			_ = conn.Close()
			t.Errorf("%s: no error", url)
		}
	}
}

func acceptFor(key string) string {
	sum := sha1.Sum([]byte(key + acceptGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// answerRaw reads one handshake and answers it with text in a single write;
// in the text KEY stands for the right Sec-WebSocket-Accept.
func answerRaw(t *testing.T, text string, then func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := async(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return err
		}
		text := strings.Replace(text, "KEY", acceptFor(req.Header.Get("Sec-WebSocket-Key")), 1)
		if _, err := io.WriteString(conn, text); err != nil {
			return err
		}
		then(conn)
		return nil
	})
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return "ws://" + l.Addr().String()
}

const switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"

func TestDialChecksAnswer(t *testing.T) {
	for name, answer := range map[string]string{
		"Sec-WebSocket-Accept": switching + "Sec-WebSocket-Accept: " + acceptFor("other") + "\r\n\r\n",
		"subprotocol":          switching + "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
		"extension":            switching + "Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
		"other than websocket": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: KEY\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			url := answerRaw(t, answer, func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
			conn, err := Dial(t.Context(), url, &http.Transport{}, nil, quiet)
			if err == nil {
				_ = conn.Close()
			}
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Fatalf("got %v", err)
			}
		})
	}
}

// TestSubprotocol has the server choose, or not.
func TestSubprotocol(t *testing.T) {
	for _, c := range []struct {
		chosen  string // by the server, if it is offered
		offered []string
		want    string
	}{
		{"b.v1", []string{"a.v1", "b.v1"}, "b.v1"},
		{"b.v1", []string{"b.v1"}, "b.v1"},
		{"b.v1", []string{"B.V1"}, ""},
		{"b.v1", nil, ""},
		{"", []string{"b.v1"}, ""},
	} {
		url, tr := newServer(t, false, func(w http.ResponseWriter, r *http.Request) {
			protocol := c.chosen
			if !Offered(r, protocol) {
				protocol = ""
			}
			if peer, err := Accept(w, r, protocol); err == nil {
				_ = peer.Conn.Close()
			}
		})
		conn, err := Dial(t.Context(), url, tr, nil, quiet, c.offered...)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.Protocol(); got != c.want {
			t.Errorf("%q of %q: got %q, want %q", c.chosen, c.offered, got, c.want)
		}
		_ = conn.Close()
	}
	for _, answer := range []string{"", "c.v1", "a.v1, b.v1", "a.v1\r\nSec-WebSocket-Protocol: a.v1"} {
		url := answerRaw(t, switching+"Sec-WebSocket-Accept: KEY\r\nSec-WebSocket-Protocol: "+answer+"\r\n\r\n",
			func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) })
		conn, err := Dial(t.Context(), url, &http.Transport{}, nil, quiet, "a.v1", "b.v1")
		if err == nil {
			_ = conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "subprotocol") {
			t.Errorf("%q: got %v", answer, err)
		}
	}
}

// TestDialEarlyFrames has frames in the segment of the server's handshake,
// more than net/http's reader takes at once.
func TestDialEarlyFrames(t *testing.T) {
	data := randomBytes(t, 40_000)
	answer := switching + "Sec-WebSocket-Accept: KEY\r\n\r\n" +
		string(rawFrame(true, false, opBinary, []byte("hello"))) + string(rawFrame(true, false, opBinary, data))
	url := answerRaw(t, answer, func(c net.Conn) {
		_, _ = c.Write(rawFrame(true, false, opClose, closePayload(CloseNormal, "")))
		_, _ = io.Copy(io.Discard, c)
	})
	conn, err := Dial(t.Context(), url, &http.Transport{}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, "early frames", got, append([]byte("hello"), data...))
}

// clientHandshake is what a raw client writes first.
func clientHandshake(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
}

// rawClient dials a ws URL, writes the handshake and early in one write, and
// reads the server's handshake.
func rawClient(t *testing.T, url string, early []byte) (*net.TCPConn, io.Reader) {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "ws://"), "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	mustWrite(t, conn, append([]byte(clientHandshake("/"+path)), early...))
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v, %v", resp, err)
	}
	if got, want := resp.Header.Get("Sec-WebSocket-Accept"), acceptFor("AAAAAAAAAAAAAAAAAAAAAA=="); got != want {
		t.Errorf("Sec-WebSocket-Accept %q, want %q", got, want)
	}
	return conn.(*net.TCPConn), br
}

func TestAcceptEarlyFrames(t *testing.T) {
	url, _ := newServer(t, false, echo)
	data := randomBytes(t, 3000)
	_, br := rawClient(t, url, append(fromClient(opBinary, data), fromClient(opClose, nil)...))
	sameBytes(t, "echo", wantFrame(t, br, opBinary), data)
	wantClose(t, br, CloseNormal)
}

func TestAcceptRefuses(t *testing.T) {
	accepted := make(chan error, 1)
	url, _ := newServer(t, false, func(w http.ResponseWriter, r *http.Request) {
		_, err := Accept(w, r, "")
		accepted <- err
	})
	good := clientHandshake("/")
	for old, bad := range map[string]struct {
		text   string
		status int
	}{
		"Version: 13":    {"Version: 8", 426},
		"GET ":           {"PUT ", 405},
		"Key: AAAA":      {"Key: A", 400},
		"Upgrade: webso": {"Upgrade: other", 400},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "ws://"))
		if err != nil {
			t.Fatal(err)
		}
		mustWrite(t, conn, []byte(strings.Replace(good, old, bad.text, 1)))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != bad.status {
			t.Errorf("%s: got %v, %v, want %d", bad.text, resp, err, bad.status)
		}
		_ = conn.Close()
		if err := <-accepted; err == nil {
			t.Errorf("%s: accepted", bad.text)
		}
	}
}

func TestIsHandshake(t *testing.T) {
	for _, test := range []struct {
		upgrade    string
		connection []string
		want       bool
	}{
		{"websocket", []string{"Upgrade"}, true},
		{"WebSocket", []string{"keep-alive, upgrade"}, true},
		{"websocket", []string{"keep-alive", "Upgrade"}, true},
		{"websocket", []string{"keep-alive"}, false},
		{"h2c", []string{"Upgrade"}, false},
		{"", nil, false},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Upgrade"], r.Header["Connection"] = []string{test.upgrade}, test.connection
		if got := IsHandshake(r); got != test.want {
			t.Errorf("%+v: got %v", test, got)
		}
	}
}
