package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// get asks for a URL the way a handshake does and returns the body.
func get(t *testing.T, o Options, url string) (string, error) {
	t.Helper()
	tr, err := o.Transport("ws" + strings.TrimPrefix(url, "http"))
	if err != nil {
		return "", err
	}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.ProtoMajor, body), err
}

func hello(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.Host) }

// tlsServer has a certificate for example.com and 127.0.0.1, which caFile
// holds.
func tlsServer(t *testing.T) (srv *httptest.Server, caFile string) {
	t.Helper()
	srv = httptest.NewUnstartedServer(http.HandlerFunc(hello))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return srv, caFile
}

func TestTLS(t *testing.T) {
	srv, caFile := tlsServer(t)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	plain := httptest.NewServer(http.HandlerFunc(hello))
	defer plain.Close()
	other := "https://localhost:" + port
	for _, test := range []struct {
		name      string
		o         Options
		url       string
		fails     string // a part of Explain's sentence
		permanent bool
	}{
		{name: "trusted", o: Options{CAFile: caFile}, url: srv.URL},
		{name: "insecure", o: Options{Insecure: true}, url: other},
		{name: "untrusted", url: srv.URL, fails: "name its CA with --ca FILE", permanent: true},
		{name: "other name", o: Options{CAFile: caFile}, url: other, fails: "is for another name: check the host", permanent: true},
		{name: "no TLS", url: "https" + strings.TrimPrefix(plain.URL, "http"), fails: "try ws://", permanent: true},
		{name: "nobody there", url: "http://127.0.0.1:1", fails: "cannot reach TARGET: check that the server runs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := get(t, test.o, test.url)
			if test.fails == "" {
				if err != nil || !strings.HasPrefix(got, "1 hello ") {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err == nil {
				t.Fatal("no error")
			}
			explained := Explain("TARGET", err)
			if !strings.Contains(explained.Error(), test.fails) || !errors.Is(explained, err) {
				t.Errorf("got %q", explained)
			}
			if Permanent(explained) != test.permanent {
				t.Errorf("permanent: %v", !test.permanent)
			}
		})
	}
}

func TestCAFile(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Options{CAFile: empty}).Transport("wss://x"); err == nil || !strings.Contains(err.Error(), empty+" holds no PEM certificate") {
		t.Errorf("empty: %v", err)
	}
	if _, err := (Options{CAFile: empty + ".missing"}).Transport("wss://x"); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "cannot read the CA file") {
		t.Errorf("missing: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		status      int
		contentType string
		body        string
		text        string
		want        string
		temporary   bool
	}{
		{404, "text/plain; charset=utf-8", "there is no agent x\n", "there is no agent x", "there is no agent x (HTTP 404)", false},
		{503, "text/plain", "\n too busy \nmore", "too busy ", "too busy  (HTTP 503)", true},
		{400, "text/plain", "a\x1b[31mb\u202ec\xff", "a?[31mb?c?", "a?[31mb?c? (HTTP 400)", false},
		{502, "text/html", "<html>", "", "the server answered 502 Bad Gateway instead of opening a websocket: check the URL", true},
		{429, "", "", "", "the server answered 429 Too Many Requests instead of opening a websocket: check the URL", true},
		{504, "text/plain", strings.Repeat("x", 5000), strings.Repeat("x", maxRefusal), strings.Repeat("x", maxRefusal) + " (HTTP 504)", true},
		{301, "text/html", "", "", "the server answered 301 Moved Permanently instead of opening a websocket: check the URL", false},
	} {
		resp := &http.Response{
			StatusCode: test.status,
			Header:     http.Header{"Content-Type": {test.contentType}},
			Body:       io.NopCloser(strings.NewReader(test.body)),
		}
		got := Refused(resp)
		if got.Status != test.status || got.Text != test.text || got.Error() != test.want {
			t.Errorf("%d %q: got %+v, %q", test.status, test.body, got, got.Error())
		}
		wrapped := fmt.Errorf("cannot register: %w", got)
		if got.Temporary() != test.temporary || Permanent(wrapped) == test.temporary {
			t.Errorf("%d: temporary %v, permanent %v", test.status, got.Temporary(), Permanent(wrapped))
		}
		if explained := Explain("TARGET", wrapped); explained != error(got) {
			t.Errorf("%d: explained as %v", test.status, explained)
		}
	}
	if got := Refused(&http.Response{StatusCode: 403}); got.Text != "" {
		t.Errorf("without a body: %+v", got)
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "no such host", Name: "x"}, "cannot find the host of TARGET"},
		{&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired}}, "the TLS certificate of TARGET is not valid"},
		{&net.OpError{Op: proxyOp, Err: &net.DNSError{}}, "cannot reach TARGET through a proxy: check HTTP_PROXY"},
		{context.DeadlineExceeded, "cannot reach TARGET: check that the server runs"},
	} {
		got := Explain("TARGET", test.err)
		if !strings.HasPrefix(got.Error(), test.want) || !errors.Is(got, test.err) {
			t.Errorf("%v: got %q", test.err, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, ümläut 日本": "plain text, ümläut 日本",
		"\x1b]0;title\x07":      "?]0;title?",
		"a\nb\tc\r":             "a?b?c?",
		"\u202egnp.exe":         "?gnp.exe",
		"\u009b31m":             "?31m",
		"\xff\xfe":              "??",
		"no\u00a0break\u2028":   "no?break?",
		"##vso[task.x]##[y]###": "#?vso[task.x]#?[y]#?#", // of the CI system's
		"# one #two":            "# one #two",
		"":                      "",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
