package figures

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func get(t *testing.T, address, host, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestListen(t *testing.T) {
	n := int64(1)
	s, err := Listen(t.Context(), "127.0.0.1:0", []Figure{
		{Name: "asked", Help: "How often.", Value: func() int64 { return n }},
		{Name: "open", Help: "How many.", Gauge: true, Value: func() int64 { return -n }},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	n = 7
	const want = "# HELP asked How often.\n# TYPE asked counter\nasked 7\n# HELP open How many.\n# TYPE open gauge\nopen -7\n"
	for _, host := range []string{"", "localhost", "127.0.0.1:1", "[::1]:80"} {
		if code, text := get(t, s.Address, host, "/metrics"); code != http.StatusOK || text != want {
			t.Errorf("%q: %d %q", host, code, text)
		}
	}
	if code, _ := get(t, s.Address, "evil.example", "/metrics"); code != http.StatusForbidden {
		t.Errorf("a name of somebody else's gets %d", code)
	}
	if code, _ := get(t, s.Address, "", "/"); code != http.StatusNotFound {
		t.Errorf("another path gets %d", code)
	}
	if _, err := Listen(t.Context(), s.Address, nil, nil); err == nil || !strings.Contains(err.Error(), "the port is in use: choose another one") {
		t.Errorf("the same address again: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", s.Address); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

func TestCheckAddress(t *testing.T) {
	for address, good := range map[string]bool{
		"127.0.0.1:9100": true, "[::1]:0": true, "localhost:1": true,
		":9100": false, "0.0.0.0:1": false, "192.0.2.1:1": false, "example.org:1": false, "127.0.0.1": false, "127.0.0.1:": false, "": false,
	} {
		if err := CheckAddress(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}
