package apicall

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/pkg/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "XXSECRETXX"

// receiver serves over TLS, and returns a Caller that trusts it.
func receiver(t *testing.T, serve http.HandlerFunc) (address string, c Caller) {
	t.Helper()
	server := httptest.NewUnstartedServer(serve)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(server.URL, ca)
	if err != nil {
		t.Fatal(err)
	}
	return server.URL + "/hooks/" + secret, Caller{Client: client, UserAgent: "converge-test", Secrets: strings.NewReplacer(secret, "…")}
}

func TestAnswers(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(http.ResponseWriter)
		want   string // the error's text, "" for none
		retry  bool
		after  time.Duration
		gone   bool
	}{
		{"good", func(w http.ResponseWriter) { fmt.Fprint(w, "fine") }, "", false, 0, false},
		{"nothing to say", func(w http.ResponseWriter) { w.WriteHeader(204) }, "", false, 0, false},
		{"refused", func(w http.ResponseWriter) { http.Error(w, "no: "+secret+"\x1b[2J\nmore", 400) }, "it answered 400 Bad Request: no: …?[2J", false, 0, false},
		{"a page", func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(502)
			fmt.Fprint(w, "<html>")
		}, "it answered 502 Bad Gateway", true, 0, false},
		{"in a moment", func(w http.ResponseWriter) { w.Header().Set("Retry-After", "7"); w.WriteHeader(429) }, "it answered 429 Too Many Requests", true, 7 * time.Second, false},
		{"GitHub's second limit", func(w http.ResponseWriter) { w.Header().Set("Retry-After", "9"); w.WriteHeader(403) }, "it answered 403 Forbidden", true, 9 * time.Second, false},
		{"GitHub's first limit", func(w http.ResponseWriter) {
			w.Header().Set("X-RateLimit-Remaining", "0")
			w.Header().Set("X-RateLimit-Reset", "1700000000")
			w.WriteHeader(403)
		}, "it answered 403 Forbidden", true, 0, false},
		{"below the limit", func(w http.ResponseWriter) {
			w.Header().Set("X-RateLimit-Remaining", "59")
			w.Header().Set("X-RateLimit-Reset", "1700000000")
			w.WriteHeader(403)
		}, "it answered 403 Forbidden", false, 0, true},
		{"forbidden", func(w http.ResponseWriter) { w.WriteHeader(403) }, "it answered 403 Forbidden", false, 0, true},
		{"unauthorized", func(w http.ResponseWriter) { w.WriteHeader(401) }, "it answered 401 Unauthorized", false, 0, true},
		{"not there", func(w http.ResponseWriter) { w.WriteHeader(404) }, "it answered 404 Not Found", false, 0, true},
		{"gone", func(w http.ResponseWriter) { w.WriteHeader(410) }, "it answered 410 Gone", false, 0, true},
		{"elsewhere", func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://other.example/")
			w.WriteHeader(307)
		}, "it answered 307 Temporary Redirect", false, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got *http.Request
			var body []byte
			arrived := make(chan struct{})
			address, c := receiver(t, func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				close(arrived)
				test.answer(w)
			})
			header := http.Header{"Authorization": {"token x"}}
			answer, err := c.Do(t.Context(), Request{Method: "PUT", Address: address, Header: header, Body: []byte("{}"), Type: "application/json"})
			<-arrived
			if got.Method != "PUT" || got.Header.Get("User-Agent") != "converge-test" || got.Header.Get("Content-Type") != "application/json" ||
				got.Header.Get("Authorization") != "token x" || string(body) != "{}" {
				t.Errorf("it got %s %v %q", got.Method, got.Header, body)
			}
			if len(header) != 1 {
				t.Errorf("the header that was given has become %v", header)
			}
			if test.want == "" {
				if err != nil || test.name == "good" && string(answer) != "fine" {
					t.Errorf("%q, %v", answer, err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || e.Error() != test.want || e.Retry != test.retry || e.After != test.after || e.Gone() != test.gone || answer != nil {
				t.Errorf("%q, %+v, want %+v", answer, e, test)
			}
		})
	}
}

// TestUntilReset: the wait is what is left, two hours at most.
func TestUntilReset(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for reset, want := range map[string]time.Duration{"1700000060": time.Minute, "1700000000": 0, "1600000000": 0, "1800000000": 2 * time.Hour, "9223372036854775807": 2 * time.Hour} {
		if got, ok := untilReset(http.Header{"X-Ratelimit-Reset": {reset}, "X-Ratelimit-Remaining": {"0"}}, now); !ok || got != want {
			t.Errorf("%s: %v, %v, want %v", reset, got, ok, want)
		}
	}
	for _, bad := range []string{"", "soon", "1.5"} {
		if _, ok := untilReset(http.Header{"X-Ratelimit-Reset": {bad}, "X-Ratelimit-Remaining": {"0"}}, now); ok {
			t.Errorf("%q is taken", bad)
		}
	}
}

// TestBounded: nobody makes us read for ever.
func TestBounded(t *testing.T) {
	address, c := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		block := make([]byte, 64<<10)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})
	answer, err := c.Do(t.Context(), Request{Method: "GET", Address: address})
	if err != nil || len(answer) != MaxAnswer {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
}

// TestNoAnswer: what goes wrong below HTTP is said without the address.
func TestNoAnswer(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = conn.Close()
		}
	})
	defer serving.Wait()
	defer plain.Close()
	trusted, c := receiver(t, func(http.ResponseWriter, *http.Request) {})
	pair, err := certtest.New(7)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
	stranger.Config.ErrorLog = log.New(io.Discard, "", 0)
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	stranger.StartTLS()
	defer stranger.Close()
	untrusted := stranger.URL + "/" + secret
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	for _, test := range []struct {
		ctx     context.Context
		address string
		want    string
		retry   bool
	}{
		{t.Context(), "https://" + plain.Addr().String() + "/" + secret, "does not speak TLS", false},
		{t.Context(), untrusted, "not signed by a trusted authority", false},
		{t.Context(), "https://127.0.0.1:1/" + secret, "cannot reach 127.0.0.1:1", true},
		{t.Context(), "https://%zz/" + secret, "cannot be used", false},
		{ended, trusted, "given up", true},
		{late, trusted, "in time", true},
	} {
		_, err := c.Do(test.ctx, Request{Method: "GET", Address: test.address})
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "SECRET") || e.Retry != test.retry || e.Gone() {
			t.Errorf("%v (%+v), want %q", err, e, test.want)
		}
	}
}

func TestNewClientRefuses(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(bad, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := NewClient("https://x", bad); err == nil || !strings.Contains(err.Error(), "no PEM") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "0.5": 500 * time.Millisecond,
		"Sun, 01 Mar 2026 12:01:00 GMT": time.Minute, "Sun, 01 Mar 2026 11:00:00 GMT": 0,
	} {
		if got, ok := RetryAfter(text, now); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "-1", "soon", "NaN", "1e99"} {
		if got, ok := RetryAfter(text, now); ok || got != 0 {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestClip(t *testing.T) {
	for text, want := range map[string]string{"abcd": "abcd", "abcde": "abc…", "ééééé": "ééé…", "a\x1b\n": "a??"} {
		if got := Clip(text, 4); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}
