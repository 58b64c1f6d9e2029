package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/converge/pkg/cmdline"
)

// TestCheckSelf asks a server on this machine whether it lives, as the health
// check of the image does.
func TestCheckSelf(t *testing.T) {
	status := http.StatusOK
	lives := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			t.Errorf("it asked for %s", r.URL)
		}
		w.WriteHeader(status)
	})
	plain := httptest.NewServer(lives)
	defer plain.Close()
	secure := httptest.NewTLSServer(lives)
	defer secure.Close()
	check := func(t *testing.T, code int, want string, args ...string) {
		t.Helper()
		var out bytes.Buffer
		got := cmdline.Run(t.Context(), program(), append([]string{"server", "--check", "self"}, args...), strings.NewReader(""), &out, &out)
		if got != code || !strings.Contains(out.String(), want) {
			t.Errorf("%q: exit code %d, want %d, and %q in\n%s", args, got, code, want, &out)
		}
	}
	plainAddress, secureAddress := plain.Listener.Addr().String(), secure.Listener.Addr().String()

	check(t, 0, "ok: the server lives\n", "--listen", plainAddress)
	// Every address of this machine is reached by loopback.
	_, port, _ := strings.Cut(plainAddress, ":")
	check(t, 0, "ok", "--listen", ":"+port)
	check(t, 0, "ok", "--listen", "0.0.0.0:"+port)
	// The certificate is for another name; its file is not read.
	check(t, 0, "ok", "--listen", secureAddress, "--tls-cert", "chain.pem", "--tls-key", "key.pem")
	check(t, 1, "400", "--listen", secureAddress)
	// Neither a proxy nor a token has to do with it.
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("CONVERGE_SERVER_LISTEN", plainAddress)
	check(t, 0, "ok")
	status = http.StatusServiceUnavailable
	check(t, 1, "503")
	plain.Close()
	check(t, 1, "no answer from the server on this machine")
	check(t, 2, "needs the port", "--listen", "127.0.0.1:0")
	check(t, 2, "HOST:PORT", "--listen", "8080")
}

func TestSelfURL(t *testing.T) {
	for listen, want := range map[string]string{
		":8080":          "http://127.0.0.1:8080/healthz",
		"0.0.0.0:80":     "http://127.0.0.1:80/healthz",
		"[::]:80":        "http://[::1]:80/healthz",
		"[::1]:80":       "http://[::1]:80/healthz",
		"192.0.2.7:80":   "http://192.0.2.7:80/healthz",
		"localhost:8080": "http://localhost:8080/healthz",
	} {
		if got, err := selfURL(listen, false); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", listen, got, err, want)
		}
	}
}
