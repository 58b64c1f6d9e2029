package repos

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/certtest"
	"example.com/converge/pkg/nomadtest"
)

func newConsul(t *testing.T, address string) *Consul {
	t.Helper()
	c, err := NewConsul(settings.Consul{Address: address, Token: "c0nsul-T0KEN"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestConsul is what the fake and a real Consul have in common; the real one is
// used, too, where CONSUL_BIN names it.
func TestConsul(t *testing.T) {
	t.Run("fake", func(t *testing.T) {
		fake := nomadtest.NewConsul(t)
		contract(t, newConsul(t, fake.URL), func(repo, text string) { fake.Put(repo, text) })
	})
	if program := os.Getenv("CONSUL_BIN"); program != "" {
		t.Run("real", func(t *testing.T) {
			address := startConsul(t, program)
			contract(t, newConsul(t, address), func(repo, text string) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, address+"/v1/kv/"+Key(repo), strings.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Fatalf("%s", resp.Status)
				}
			})
		})
	}
}

func contract(t *testing.T, c *Consul, put func(repo, text string)) {
	t.Helper()
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Get(t.Context(), repo); !errors.Is(err, ErrUnknown) || r != nil {
		t.Errorf("before it is registered: %+v, %v", r, err)
	}
	put(repo, albatros)
	r, err := c.Get(t.Context(), repo)
	if err != nil || r.URL != repo || r.Key != Key(repo) || !r.TokenIs("s3cr3t-h00k") {
		t.Errorf("%+v, %v", r, err)
	}
	// A change holds at once.
	put(repo, `{"hook":{"token":"other"}}`)
	if r, err := c.Get(t.Context(), repo); err != nil || !r.TokenIs("other") {
		t.Errorf("%+v, %v", r, err)
	}
	// Keys whose base64 has what means something in a URL.
	for _, odd := range []string{"https://x/y/z?>>>", "https://x/y/z~~~???", "https://x/y/" + strings.Repeat("é", 100)} {
		put(odd, albatros)
		if r, err := c.Get(t.Context(), odd); err != nil || r.URL != odd {
			t.Errorf("%s is %s: %v", odd, Key(odd), err)
		}
	}
	put(repo, `{"hook":"s3cr3t"`)
	_, err = c.Get(t.Context(), repo)
	quiet(t, err, Key(repo), "byte 16", "no JSON")
	put(repo, `{"hook":{"token":7}}`)
	_, err = c.Get(t.Context(), repo)
	quiet(t, err, Key(repo), "hook.token", "must be a string")
	put(repo, "")
	_, err = c.Get(t.Context(), repo)
	quiet(t, err, Key(repo), "byte 0", "no JSON")
}

// startConsul starts one as its developers do, and waits until it has a leader.
func startConsul(t *testing.T, program string) string {
	t.Helper()
	var ports []string
	for range 4 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
		l.Close()
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", "-http-port="+ports[0], "-server-port="+ports[1],
		"-serf-lan-port="+ports[2], "-serf-wan-port="+ports[3], "-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1", "-log-level=warn")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() })
	address := "http://127.0.0.1:" + ports[0]
	c := newConsul(t, address)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := c.Check(ctx); err == nil {
			return address
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("Consul has no leader within a minute:\n%s", out.String())
		}
	}
}

// TestConsulFaults: whatever goes wrong there is ErrAway, which is asked again, and
// never ErrUnknown, which would refuse a delivery for good.
func TestConsulFaults(t *testing.T) {
	fake := nomadtest.NewConsul(t)
	fake.Put(repo, albatros)
	c := newConsul(t, fake.URL)
	for name, fault := range map[string]*nomadtest.Fault{
		"broken":     {Status: 500, Body: "s3cr3t"},
		"no leader":  {Status: 500, Body: "No cluster leader"},
		"forbidden":  {Status: 403, Body: "Permission denied: s3cr3t"},
		"busy":       {Status: 429},
		"elsewhere":  {Status: 301},
		"cut":        {Cut: 20},
		"not Consul": {Status: 200, Body: "<html>s3cr3t"},
		"no entry":   {Status: 200, Body: "[]"},
		"two":        {Status: 200, Body: `[{"Value":"e30="},{"Value":"e30="}]`},
		"too much":   {Status: 200, Body: strings.Repeat(" ", 3*maxValue)},
	} {
		fake.SetFault(func(*http.Request) *nomadtest.Fault { return fault })
		r, err := c.Get(t.Context(), repo)
		if !errors.Is(err, ErrAway) || errors.Is(err, ErrUnknown) || r != nil {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "T0KEN")) {
			t.Errorf("%s: a secret is in %q", name, err)
		}
		if err := c.Check(t.Context()); name != "not Consul" && name != "no entry" && name != "two" && name != "too much" && name != "cut" && !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	fake.SetFault(func(*http.Request) *nomadtest.Fault { return &nomadtest.Fault{Status: 200, Body: `""`} })
	if err := c.Check(t.Context()); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "no leader") {
		t.Errorf("%v", err)
	}
	// One that never answers does not hold anybody for ever.
	hang := make(chan struct{})
	arrived := make(chan struct{}, 1)
	fake.SetFault(func(*http.Request) *nomadtest.Fault {
		arrived <- struct{}{}
		return &nomadtest.Fault{Hang: hang}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, err := c.Get(ctx, repo); done <- err }()
	<-arrived
	cancel()
	if err := <-done; !errors.Is(err, ErrAway) {
		t.Errorf("%v", err)
	}
	close(hang)
	if c.client.Timeout != consulTimeout {
		t.Error("it waits for ever")
	}
	// Nobody there.
	gone := newConsul(t, "http://127.0.0.1:1")
	if _, err := gone.Get(t.Context(), repo); !errors.Is(err, ErrAway) || strings.Contains(err.Error(), Key(repo)) {
		t.Errorf("%v", err)
	}
	fake.SetFault(nil)
	if _, err := c.Get(t.Context(), repo); err != nil {
		t.Errorf("it does not recover: %v", err)
	}
}

// TestConsulTLS: with a certificate of one's own, for both.
func TestConsulTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pair, err := certtest.New(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Write(cert, key); err != nil {
		t.Fatal(err)
	}
	loaded, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	var token string
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token = r.Header.Get("X-Consul-Token")
		fmt.Fprint(w, `"127.0.0.1:8300"`)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{loaded}, ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	all := settings.Consul{Address: server.URL, Token: "c0nsul", CACert: cert, ClientCert: cert, ClientKey: key}
	c, err := NewConsul(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(t.Context()); err != nil || token != "c0nsul" || !strings.HasPrefix(c.Name(), "Consul at 127.0.0.1:") {
		t.Errorf("%v, %q, %s", err, token, c.Name())
	}
	c.Close()
	for name, change := range map[string]func(*settings.Consul){
		"untrusted":      func(s *settings.Consul) { s.CACert = "" },
		"no certificate": func(s *settings.Consul) { s.ClientCert, s.ClientKey = "", "" },
	} {
		s := all
		change(&s)
		c, err := NewConsul(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(t.Context()); !errors.Is(err, ErrAway) {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
	for want, change := range map[string]func(*settings.Consul){
		"CA certificates":      func(s *settings.Consul) { s.CACert = filepath.Join(dir, "none") },
		"client certificate":   func(s *settings.Consul) { s.ClientCert = key },
		"an http or https URL": func(s *settings.Consul) { s.Address = "127.0.0.1:8500" },
	} {
		s := all
		change(&s)
		if _, err := NewConsul(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
