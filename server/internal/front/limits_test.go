package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"
)

// checkPlain fails if somebody else would read another path in it.
func checkPlain(t *testing.T, escaped string) {
	t.Helper()
	u, err := url.ParseRequestURI(escaped)
	if err != nil {
		return // net/http refuses it
	}
	if cleaned := path.Clean(u.Path); cleaned != u.Path && cleaned+"/" != u.Path {
		t.Errorf("%q is %q, which cleans to %q", escaped, u.Path, cleaned)
	}
	if n, m := strings.Count(escaped, "/"), strings.Count(u.Path, "/"); n != m {
		t.Errorf("%q has %d slashes, and decoded %d", escaped, n, m)
	}
}

func TestSlowHeader(t *testing.T) {
	_, addr := open(t, Config{HeaderWait: 50 * time.Millisecond})
	for name, text := range map[string]string{
		"nothing":       "",
		"half a line":   "GET /agent/jo",
		"half a header": "GET /agent/job HTTP/1.1\r\nHost: h\r\nX-A: ",
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, addr)
			p.send(text)
			p.ended()
		})
	}
	t.Run("drop by drop", func(t *testing.T) {
		p := connect(t, addr)
		p.send("GET /agent/job HTTP/1.1\r\nHost: h\r\nX-A: ")
		ended := make(chan string, 1)
		go func() { ended <- p.ended() }()
		drops := time.NewTicker(time.Millisecond)
		defer drops.Stop()
		for {
			select {
			case words := <-ended:
				if strings.Contains(words, "431") {
					t.Error("the header's size has ended it, not its time")
				}
				return
			case <-drops.C:
				_, _ = io.WriteString(p, "a") // fails once the server has gone
			}
		}
	})
}

func TestLargeHeader(t *testing.T) {
	_, addr := open(t, Config{})
	for name, text := range map[string]string{
		"one":    "X-A: " + strings.Repeat("a", 32<<10),
		"many":   strings.Repeat("X-A: a\r\n", 4<<10) + "X-B: b",
		"target": "",
	} {
		t.Run(name, func(t *testing.T) {
			p := connect(t, addr)
			target := "/"
			if name == "target" {
				target += strings.Repeat("a", 32<<10)
			}
			// The server may hang up before it has read all.
			_, _ = io.WriteString(p, "GET "+target+" HTTP/1.1\r\nHost: h\r\n"+text+"\r\n\r\n")
			if resp, body := p.answer(); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
				t.Errorf("%s %q, want 431", resp.Status, body)
			}
			p.ended()
		})
	}
	if resp, _ := get(t, addr, "GET", "/agent/job", "X-A: "+strings.Repeat("a", 12<<10)); resp.StatusCode != 200 {
		t.Errorf("12 KiB: %s", resp.Status)
	}
}

func TestReadiness(t *testing.T) {
	inPage, goOn := make(chan struct{}), make(chan struct{})
	f, addr := open(t, Config{Pages: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inPage)
		<-goOn
		_, _ = io.WriteString(w, "done")
	})})
	for target, want := range map[string]string{"/healthz": "ok\n", "/readyz": "ready\n"} {
		resp, body := get(t, addr, "GET", target)
		if resp.StatusCode != 200 || body != want || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s %q %q", target, resp.Status, body, resp.Header)
		}
	}
	slow := connect(t, addr)
	slow.send("GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
	<-inPage
	ending := make(chan error, 1)
	stopped := make(chan struct{})
	f.http.RegisterOnShutdown(sync.OnceFunc(func() { close(stopped) }))
	go func() { ending <- f.Shutdown(context.Background()) }()
	<-stopped
	// net/http drops what it reads from now on: these stand for requests that
	// it has just read.
	for target, want := range map[string]int{"/readyz": 503, "/healthz": 200} {
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if w.Code != want {
			t.Errorf("%s while ending: %d %q, want %d", target, w.Code, w.Body, want)
		}
	}
	if conn, err := net.Dial("tcp", addr); err == nil {
		_ = conn.Close()
		t.Error("a server that ends takes new connections")
	}
	close(goOn)
	if resp, body := slow.answer(); resp.StatusCode != 200 || body != "done" {
		t.Errorf("a request under way: %s %q", resp.Status, body)
	}
	if err := <-ending; err != nil {
		t.Error(err)
	}
}

// TestDrain: who is in stays and is served, newcomers are sent elsewhere, and
// whoever asks whether the server is ready hears that it is not.
func TestDrain(t *testing.T) {
	for _, prefix := range []string{"", "/tools"} {
		f, addr := open(t, Config{Prefix: prefix})
		f.Drain()
		for target, want := range map[string]struct {
			status int
			body   string
		}{
			"/healthz":    {200, "ok\n"},
			"/page":       {200, "page /page /page"},
			"/data":       {200, "data"},
			"/readyz":     {503, "the server is ending: try again in a moment\n"},
			"/agent/job":  {503, "the server is ending: try again in a moment\n"},
			"/client/job": {503, "the server is ending: try again in a moment\n"},
			"/client/":    {400, "invalid id: it is empty\n"},
		} {
			p := connect(t, addr)
			p.send("GET " + prefix + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
			resp, body := p.answer()
			if resp.StatusCode != want.status || body != want.body {
				t.Errorf("%s%s: %s %q, want %d %q", prefix, target, resp.Status, body, want.status, want.body)
			}
			ending := want.status == 503
			if (resp.Header.Get("Retry-After") != "") != ending || resp.Close != ending {
				t.Errorf("%s%s: closes %v, %v", prefix, target, resp.Close, resp.Header)
			}
		}
	}
}

func TestShutdownHasALimit(t *testing.T) {
	inPage, gone := make(chan struct{}), make(chan struct{})
	f, addr := open(t, Config{Pages: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inPage)
		<-r.Context().Done()
		close(gone)
	})})
	p := connect(t, addr)
	p.send("GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
	<-inPage
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-gone // the connection was closed on it
}

// TestServeFails when the listener does.
func TestServeFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	err = New(Config{Endpoints: endpoints{}, Pages: http.HandlerFunc(pages)}).Serve(l)
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(fmt.Sprint(err), "cannot go on serving") {
		t.Errorf("got %v", err)
	}
}
