//go:build unix

package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/certtest"
	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/fakeagent"
)

// TestServe: an id, a session, the pages, and the end by either signal.
func TestServe(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t)
			p.serveAgent("team/repo/job")
			session := p.client("team/repo/job")
			echoes(t, session)
			_ = session.Close()
			web := p.connect()
			for target, want := range map[string]int{"/": 200, "/healthz": 200, "/readyz": 200, "/docs/agent": 404, "/agent/../x": 400, "/client/team/repo/job": 426} {
				if got := web.status(target); got != want {
					t.Errorf("%s: %d, want %d", target, got, want)
				}
			}
			if logged := p.end(sig); !strings.HasSuffix(logged, "\n") || !strings.Contains(logged, `"msg":"client ended"`) {
				t.Errorf("it logged\n%s", logged)
			}
		})
	}
}

// TestOptions reach what they are for.
func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"index.html": "at @secure@ @host@", "agent-linux-amd64": "program"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := start(t, "--static", dir, "--downloads="+dir, "--public-url", "https://converge.example.org/tools/", "--keepalive", "1s")
	p.server.Prefix = "/tools" // a proxy may cut it off or not
	p.serveAgent("job")
	p.server.Prefix = ""
	session := p.client("job")
	echoes(t, session)
	_ = session.Close()
	web := p.connect()
	for target, want := range map[string]string{
		"/":                 "at s converge.example.org/tools",
		"/tools/":           "at s converge.example.org/tools",
		"/docs/agent":       "program",
		"/tools/docs/agent": "program",
	} {
		resp := web.get(target)
		if got, err := io.ReadAll(resp.Body); string(got) != want || err != nil {
			t.Errorf("%s: %s %q, %v, want %q", target, resp.Status, got, err, want)
		}
	}
	p.end(syscall.SIGTERM)

	proxied := start(t, "--static", dir, "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1")
	resp := proxied.connect().get("/", "X-Forwarded-Host: front.example.org", "X-Forwarded-Proto: https")
	if got, err := io.ReadAll(resp.Body); string(got) != "at s front.example.org" || err != nil {
		t.Errorf("behind a proxy: %q, %v", got, err)
	}
	proxied.end(syscall.SIGTERM)
}

// TestLogs shows every line to be JSON, at the level that says most, and no
// secret in any of them: ids are no secret from who runs the server, but what
// proves something is.
func TestLogs(t *testing.T) {
	const secret = "hush-hush"
	p := start(t, "--log-level", "debug")

	// A registration, by hand because of the nonce and the proof.
	key := fakeagent.NewKey()
	a, err := fakeagent.Connect(t.Context(), p.server, "job", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Conn.Close() })
	m, err := a.Ask(fakeagent.Hello(key))
	if err != nil || m.Challenge == nil {
		t.Fatalf("got %+v, %v, want a challenge", m, err)
	}
	proof := rendezvous.Prove(key, m.Challenge.Nonce, "job")
	secrets := []string{secret, base64.StdEncoding.EncodeToString(m.Challenge.Nonce)[:20], base64.StdEncoding.EncodeToString(proof.Signature)[:20]}
	if m, err = a.Ask(rendezvous.Message{Proof: proof}); err != nil || m.Registered == nil {
		t.Fatalf("got %+v, %v, want registered", m, err)
	}

	// A session, a client whose agent fails it, and one whose agent is refused.
	visit := func(answer func(d *rendezvous.Dial)) {
		done := make(chan error, 1)
		go func() {
			conn, err := frame.Dial(t.Context(), p.server.ClientURL("job")+"?token="+secret, fakeagent.Transport(),
				http.Header{"Authorization": {"Bearer " + secret}, "Cookie": {secret}}, frame.Options{})
			if err == nil {
				err = conn.Close()
			}
			done <- err
		}()
		d, err := a.Dialled()
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, d.Token)
		answer(d)
		<-done
	}
	visit(func(d *rendezvous.Dial) {
		conn, err := a.DialBack(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, secret) // content is nobody's business
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
	visit(func(d *rendezvous.Dial) {
		wrong := *d
		wrong.Token = secret
		if conn, err := a.DialBack(t.Context(), &wrong); err == nil {
			_ = conn.Close()
			t.Error("a wrong token was let in")
		}
		if err := a.Send(rendezvous.Message{DialFailed: &rendezvous.DialFailed{Client: d.Client, Text: "a line\nand another"}}); err != nil {
			t.Error(err)
		}
	})
	if _, err := fakeagent.Register(t.Context(), p.server, "job", fakeagent.NewKey(), nil); err == nil {
		t.Error("a stranger was given the id")
	}

	// Garbage, which net/http may log.
	for _, text := range []string{"\x16\x03\x01" + secret + "\r\n\r\n", "GET /\x00" + secret + " HTTP/1.1\r\n\r\n", "GET / HTTP/9.9\r\n" + secret + "\r\n\r\n"} {
		c := p.connect()
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
	}
	p.connect().status("/docs/agent?" + secret)
	p.connect().status("/" + secret)

	logged := p.end(syscall.SIGTERM)
	for _, s := range secrets {
		if strings.Contains(logged, s) {
			t.Errorf("the log holds the secret %q:\n%s", s, logged)
		}
	}
	for _, want := range []string{`"msg":"agent registered"`, `"msg":"client connected"`, `"msg":"client refused"`, `"msg":"agent refused"`, `"id":"job"`} {
		if !strings.Contains(logged, want) {
			t.Errorf("the log has no %s:\n%s", want, logged)
		}
	}
}

// slowDownload starts a download that waits for its reader, so that there is a
// request under way.
func slowDownload(t *testing.T) (p *process, download *http.Response, size int64) {
	t.Helper()
	dir := t.TempDir()
	name := filepath.Join(dir, "agent-linux-amd64")
	size = 16 << 20 // more than the sockets take
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, size); err != nil {
		t.Fatal(err)
	}
	p = start(t, "--downloads", dir)
	download = p.connect().get("/docs/agent")
	if download.StatusCode != 200 || download.ContentLength != size {
		t.Fatalf("%s, %d bytes", download.Status, download.ContentLength)
	}
	return p, download, size
}

// TestGracefulEnd: peers are told to come back, newcomers are refused, what is
// under way comes to its end, and so does the server, with exit 0.
func TestGracefulEnd(t *testing.T) {
	p, download, size := slowDownload(t)
	p.serveAgent("job")
	watched := p.register("watched")
	session := p.client("job")
	echoes(t, session)

	p.signal(syscall.SIGTERM)
	p.logged("ending")
	var gone *wsconn.CloseError
	if _, err := watched.Receive(); !errors.As(err, &gone) || gone.Code != wsconn.ServiceRestart {
		t.Errorf("an agent's connection ended with %v, want 1012", err)
	}
	var closed *frame.CloseError
	if _, err := io.Copy(io.Discard, session); !errors.As(err, &closed) || closed.Code != frame.CloseServiceRestart {
		t.Errorf("a session ended with %v, want 1012", err)
	}
	if n, err := io.Copy(io.Discard, download.Body); n != size || err != nil {
		t.Errorf("a download under way: %d bytes, %v", n, err)
	}
	if logged, state := p.wait(); !state.Success() || strings.Contains(logged, "the hard way") {
		t.Errorf("it ended with %v and logged\n%s", state, logged)
	}
	// The port is free again at once.
	again := start(t, "--listen", p.address)
	again.end(syscall.SIGTERM)
}

// TestSecondSignal does not wait for what is under way.
func TestSecondSignal(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p, _, _ := slowDownload(t)
			p.signal(sig)
			p.logged("ending")
			p.signal(sig)
			if logged, state := p.wait(); state.ExitCode() != 128+int(sig) {
				t.Errorf("it ended with %v and logged\n%s", state, logged)
			}
		})
	}
}

// TestDrain: at the first signal newcomers are sent elsewhere and a load
// balancer is told so, who is in stays until the second.
func TestDrain(t *testing.T) {
	p := start(t, "--drain", "1h")
	p.serveAgent("job")
	session := p.client("job")
	echoes(t, session)
	p.signal(syscall.SIGTERM)
	if line := p.logged("ending"); line["drain"] == nil {
		t.Errorf("it logged %v", line)
	}
	for target, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/": 200} {
		if got := p.connect().status(target); got != want {
			t.Errorf("%s while draining: %d, want %d", target, got, want)
		}
	}
	handshake := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	for _, target := range []string{"/agent/job", "/agent/new", "/client/job"} {
		resp := p.connect().get(target, handshake...)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s while draining: %s %v", target, resp.Status, resp.Header)
		}
	}
	echoes(t, session)
	p.signal(syscall.SIGTERM)
	if logged, state := p.wait(); state.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("it ended with %v and logged\n%s", state, logged)
	}
}

// TestDrainEnds with 1012 for all.
func TestDrainEnds(t *testing.T) {
	p := start(t, "--drain", "50ms")
	a := p.register("job")
	p.signal(syscall.SIGTERM)
	var gone *wsconn.CloseError
	if _, err := a.Receive(); !errors.As(err, &gone) || gone.Code != wsconn.ServiceRestart {
		t.Errorf("an agent's connection ended with %v, want 1012", err)
	}
	if logged, state := p.wait(); !state.Success() || strings.Contains(logged, "the hard way") {
		t.Errorf("it ended with %v and logged\n%s", state, logged)
	}
}

// TestStateKey: a server that was killed knows its agents again, one without
// the key does not, and what was vacated is kept as long as it was told to.
func TestStateKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state-key")
	if out, err := exec.Command("server", "--make-state-key", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	register := func(p *process, key ed25519.PrivateKey, shown []byte) (*fakeagent.Agent, error) {
		a, err := fakeagent.Return(t.Context(), p.server, "job", key, shown, nil)
		if err == nil {
			t.Cleanup(func() { _ = a.Conn.Close() })
		}
		return a, err
	}
	key := fakeagent.NewKey()
	p := start(t, "--state-key", file)
	a, err := register(p, key, nil)
	if err != nil || a.Ticket == nil {
		t.Fatalf("%+v, %v", a, err)
	}
	p.signal(syscall.SIGKILL)
	p.wait()
	var refused *rendezvous.Refused
	for _, args := range [][]string{{"--state-key", file}, {}} {
		again := start(t, args...)
		if _, err := register(again, fakeagent.NewKey(), nil); err != nil {
			t.Fatal(err)
		}
		_, err := register(again, key, a.Ticket.Value)
		if knows := len(args) > 0; knows != (err == nil) || !knows && !errors.As(err, &refused) {
			t.Errorf("with the options %q: %v", args, err)
		}
		again.end(syscall.SIGTERM)
	}
	for window, free := range map[string]bool{"1h": false, "0": true} {
		p := start(t, "--resume-window", window)
		p.register("job").Vanish()
		p.logged("agent gone")
		if _, err := register(p, fakeagent.NewKey(), nil); free != (err == nil) {
			t.Errorf("with a window of %s: %v", window, err)
		}
		p.end(syscall.SIGTERM)
	}
}

// TestTLS serves wss and nothing plain, and follows its files.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var pairs [2]certtest.Pair
	both := x509.NewCertPool()
	for i := range pairs {
		var err error
		if pairs[i], err = certtest.New(int64(i)); err != nil {
			t.Fatal(err)
		}
		both.AppendCertsFromPEM(pairs[i].Cert)
	}
	replace := func(pair certtest.Pair) {
		if err := pair.Write(cert, key); err != nil {
			t.Fatal(err)
		}
	}
	replace(pairs[0])
	p := start(t, "--tls-cert", cert, "--tls-key", key)
	p.server.Secure = true
	p.tls = &tls.Config{RootCAs: both}
	p.serveAgent("job")
	session := p.client("job")
	echoes(t, session)
	if got := p.connect().status("/"); got != 400 {
		t.Errorf("plain HTTP is answered with %d", got)
	}
	old := &tls.Config{RootCAs: both, MaxVersion: tls.VersionTLS11}
	if conn, err := tls.Dial("tcp", p.address, old); err == nil {
		_ = conn.Close()
		t.Error("TLS 1.1 is spoken")
	}

	replace(pairs[1])
	for begin := time.Now(); ; { // a handshake makes it look, once a second at most
		conn, err := tls.Dial("tcp", p.address, &tls.Config{RootCAs: pairs[1].Pool()})
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("the new certificate does not come: %v", err)
		}
	}
	newer := p.client("job")
	echoes(t, newer)
	echoes(t, session) // and nobody was cut off
	_, _ = newer.Close(), session.Close()
	p.end(syscall.SIGTERM)
}
