package debug

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/server/internal/presence"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheckAddress(t *testing.T) {
	for address, want := range map[string][2]bool{ // alone, and with public
		"127.0.0.1:6060": {true, true}, "[::1]:0": {true, true}, "localhost:6060": {true, true},
		":6060": {false, true}, "0.0.0.0:6060": {false, true}, "[::]:6060": {false, true}, "192.0.2.1:6060": {false, true}, "example.org:6060": {false, true},
		"6060": {false, false}, "127.0.0.1": {false, false}, "127.0.0.1:": {false, false},
	} {
		for i, public := range []bool{false, true} {
			if err := CheckAddress(address, public); (err == nil) != want[i] {
				t.Errorf("%s, %v: %v", address, public, err)
			}
		}
	}
}

// TestFigures asks for what is counted, for profiles, and for what there is not.
func TestFigures(t *testing.T) {
	meter := NewMeter()
	meter.Watch(Live{Moved: func() (int64, int64) { return 5, 7 }})
	meter.Joined("agent", time.Second)
	meter.Joined("client", time.Millisecond)
	meter.Left("client", time.Minute)
	meter.Refused("client", "no-such-id")
	for _, public := range []bool{false, true} {
		s := New(meter, nil, public, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Serve(l) }()
		get := func(path, host string) (int, string) {
			t.Helper()
			req := httptest.NewRequest(http.MethodGet, "http://"+l.Addr().String()+path, nil)
			req.RequestURI = ""
			if host != "" {
				req.Host = host
			}
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			return resp.StatusCode, string(body)
		}
		status, text := get("/metrics", "")
		for _, want := range []string{
			`converge_present{role="agent"} 1`, `converge_present{role="client"} 0`, `converge_joined_total{role="client"} 1`,
			`converge_refused_total{reason="no-such-id",role="client"} 1`, `converge_relayed_bytes_total{to="agent"} 5`, "go_goroutines ",
		} {
			if status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%d, no %s in\n%s", status, want, text)
			}
		}
		for path, want := range map[string]int{"/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/cmdline": 404, "/": 404, "/healthz": 404} {
			if status, _ := get(path, ""); status != want {
				t.Errorf("%s: %d, want %d", path, status, want)
			}
		}
		// A page whose host's name was made to point here.
		want := http.StatusForbidden
		if public {
			want = http.StatusOK
		}
		if status, _ := get("/metrics", "evil.example.org:6060"); status != want {
			t.Errorf("by another name: %d, want %d", status, want)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestStatus is for the machine itself, whoever may have the figures.
func TestStatus(t *testing.T) {
	s := New(NewMeter(), func() Status { return Status{Version: "v1", Agents: []presence.Agent{{ID: "acme/1"}}} }, true, nil)
	answers := func(remote, host string, header ...string) bool {
		r := httptest.NewRequest(http.MethodGet, StatusPath, nil)
		r.RemoteAddr, r.Host = remote, host
		for _, name := range header {
			r.Header.Set(name, "for=192.0.2.1")
		}
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		if shown := strings.Contains(w.Body.String(), "acme"); shown != (w.Code == http.StatusOK) || !shown && w.Code != http.StatusForbidden {
			t.Errorf("from %q by %q with %q: %d %s", remote, host, header, w.Code, w.Body)
		}
		return w.Code == http.StatusOK
	}
	for remote, want := range map[string]bool{"127.0.0.1:4711": true, "[::1]:4711": true, "[::ffff:127.0.0.1]:4711": true, "192.0.2.1:4711": false, "[2001:db8::1]:1": false, "": false} {
		if answers(remote, "localhost:6060") != want {
			t.Errorf("from %q it is not %v", remote, want)
		}
	}
	// A page whose name was made to point here, and a proxy on the machine.
	for host, want := range map[string]bool{
		"127.0.0.1:6060": true, "[::1]:6060": true, "127.0.0.1": true,
		"evil.example.org:6060": false, "evil.example.org": false, "192.0.2.1:6060": false, "": false,
	} {
		if answers("127.0.0.1:4711", host) != want {
			t.Errorf("by the name %q it is not %v", host, want)
		}
	}
	for _, name := range []string{"X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"} {
		if answers("127.0.0.1:4711", "127.0.0.1:6060", name) {
			t.Errorf("a proxy that says %s is answered", name)
		}
	}
}
