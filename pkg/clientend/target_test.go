package clientend

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/transport"
)

// somePin is 32 bytes that are nobody's key.
const somePin = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

func TestNewTarget(t *testing.T) {
	const good = "" // nothing to say
	for _, test := range []struct {
		url        string
		says, raws string // in the errors of the two modes
	}{
		{"ws://host/client/id", good, good},
		{"wss://host:8443/prefix/client/team/repo/job", good, good},
		{"ws://host/", "/client/ID", good},
		{"ws://host/agent/id", "/client/ID", good},
		{"ws://host/client/", "empty", good},
		{"ws://host/client/../x", "letter or digit", good},
		{"ws://host/client/a%2Fb", "only letters", good},
		{"ws://host/client/id?x=1", "query", good},
		{"ws://host/client/id#" + somePin, good, "leave --raw out"},
		{"ws://host/client/id#sha256:" + somePin, good, "leave --raw out"},
		{"ws://host/client/id#pin", "copy the whole URL", "leave --raw out"},
		{"ws://host/client/id#", "copy the whole URL", "leave --raw out"},
		{"ws://host/client/id#" + somePin + "#", "copy the whole URL", "leave --raw out"},
		{"http://host/client/id", "ws or wss", "ws or wss"},
		{"host/client/id", "ws or wss", "ws or wss"},
		{"ws:///client/id", "host", "host"},
		{"ws://user:secret@host/client/id", "--header @FILE", "--header @FILE"},
		{"ws://host:port/client/id", "parsed", "parsed"},
	} {
		for raw, says := range map[bool]string{false: test.says, true: test.raws} {
			target, err := NewTarget(test.url, raw)
			switch {
			case says == good && (err != nil || target == nil):
				t.Errorf("NewTarget(%q, %v): %v", test.url, raw, err)
			case says == good:
			case err == nil || target != nil || !strings.Contains(err.Error(), says):
				t.Errorf("NewTarget(%q, %v) = %v, %v, want %q", test.url, raw, target, err, says)
			case strings.Contains(err.Error(), "secret"):
				t.Errorf("NewTarget(%q, %v) tells the password: %v", test.url, raw, err)
			}
		}
	}
}

// echo is a websocket server that sends back the header X-Test, and then
// whatever comes.
func echo(t *testing.T) (url string) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/client/none" {
			http.Error(w, "there is no agent none", http.StatusNotFound)
			return
		}
		peer, err := frame.Accept(w, r, "")
		if err != nil {
			t.Error(err)
			return
		}
		conn := frame.Server(peer.Conn, io.MultiReader(strings.NewReader(string(peer.Early)), peer.Conn), frame.Options{})
		defer conn.Close()
		_, _ = io.WriteString(conn, r.Header.Get("X-Test"))
		_, _ = io.Copy(conn, conn)
	}))
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func target(t *testing.T, url string, raw bool, o transport.Options) *Target {
	t.Helper()
	target, err := NewTarget(url, raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Use(o, Resumption{}); err != nil {
		t.Fatal(err)
	}
	return target
}

func TestDial(t *testing.T) {
	url := echo(t) + "/client/id"
	for name, raw := range map[string]bool{"raw": true, "converge": false} {
		t.Run(name, func(t *testing.T) {
			conn, err := target(t, url, raw, transport.Options{Header: http.Header{"X-Test": {"head"}}}).Dial(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			expect(t, conn, "head")
			write(t, conn, "echo")
			expect(t, conn, "echo")
			_, half := conn.(interface{ CloseWrite() error })
			if half == raw {
				t.Errorf("the connection has a half-close: %v", half)
			}
		})
	}
}

// TestDialRefused leaves no connection behind, or TestMain fails.
func TestDialRefused(t *testing.T) {
	url := echo(t) + "/client/none"
	for name, raw := range map[string]bool{"raw": true, "converge": false} {
		t.Run(name, func(t *testing.T) {
			conn, err := target(t, url, raw, transport.Options{}).Dial(t.Context(), nil)
			var refused *transport.RefusedError
			if conn != nil || !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
				t.Fatalf("Dial: %v, %v", conn, err)
			}
			if !strings.Contains(err.Error(), "there is no agent none") {
				t.Errorf("not the server's sentence: %v", err)
			}
		})
	}
}

func TestDialTellsNoSecret(t *testing.T) {
	const address = "127.0.0.1:1" // where nobody listens
	_, err := target(t, "ws://"+address+"/path?token=secret", true, transport.Options{}).Dial(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), address+"/path") || strings.Contains(err.Error(), "secret") {
		t.Errorf("Dial: %v", err)
	}
}

func TestDialEndsWithContext(t *testing.T) {
	// A server that takes the connection and never answers.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	for name, raw := range map[string]bool{"raw": true, "converge": false} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			mute := target(t, "ws://"+listener.Addr().String()+"/client/id", raw, transport.Options{})
			done := make(chan error, 1)
			go func() {
				_, err := mute.Dial(ctx, nil)
				done <- err
			}()
			conn, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("Dial: %v", err)
			}
		})
	}
}

func TestUse(t *testing.T) {
	target, err := NewTarget("wss://host/client/id", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Use(transport.Options{CAFile: "testdata/none.pem"}, Resumption{}); err == nil || !strings.Contains(err.Error(), "none.pem") {
		t.Errorf("Use: %v", err)
	}
}
