//go:build unix

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/wsconn"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/fakeagent"
)

// TestAccess runs a server with tokens, limits, figures and an audit log:
// strangers are refused, guessers held up, a token that goes ends what it let
// in, and all of it is on record, in a file that may be moved away.
func TestAccess(t *testing.T) {
	dir := t.TempDir()
	tokens, trail := filepath.Join(dir, "tokens"), filepath.Join(dir, "audit.log")
	token, line, err := access.MakeToken("ci", []access.Role{access.Agent}, []string{"acme/**"})
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := access.MakeToken("other", []access.Role{access.Agent}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tokens, []byte(line), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "--tokens", tokens, "--audit-log", trail, "--max-failures", "2",
		"--trusted-proxy", "127.0.0.1", "--debug-listen", "127.0.0.1:0", "--allow-origin", "https://pages.example.org")
	if line := p.logged("closed"); line["anonymous_agents"] != false || !strings.HasPrefix(fmt.Sprint(line["rules"]), "1 static tokens") {
		t.Errorf("it says %v", line)
	}
	header := http.Header{"Authorization": {"Bearer " + token}, "X-Forwarded-For": {"192.0.2.1"}, "Origin": {"https://pages.example.org"}}
	agent, err := wsconn.Dial(t.Context(), p.server.AgentURL("acme/1"), p.transport(), header, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	introduce(t, agent, "acme/1")

	// A stranger, twice; then nobody of that address, for a while.
	for _, want := range []int{http.StatusUnauthorized, http.StatusUnauthorized, http.StatusTooManyRequests} {
		stranger := http.Header{"X-Forwarded-For": {"192.0.2.66"}}
		if _, err := frame.Dial(t.Context(), p.server.ClientURL("acme/1"), p.transport(), stranger, frame.Options{}); refusal(err) != want {
			t.Errorf("a stranger: %v, want %d", err, want)
		}
	}
	resp := p.connect().get("/client/acme/1", "X-Forwarded-For: 192.0.2.66", "Connection: Upgrade", "Upgrade: websocket")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
	for _, name := range []string{"Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"} {
		if resp.Header.Get(name) == "" {
			t.Errorf("an answer has no %s", name)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://%v/metrics", p.logged("serving figures")["address"]), nil)
	if err != nil {
		t.Fatal(err)
	}
	figures, err := fakeagent.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(figures.Body)
	_ = figures.Body.Close()
	if err != nil || !strings.Contains(string(body), `converge_present{role="agent"} 1`) {
		t.Errorf("the figures are %s, %v", body, err)
	}

	// The log is moved away, then the token revoked.
	if err := os.Rename(trail, trail+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tokens, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	_ = agent.SetReadDeadline(time.Now().Add(patience))
	if m, err := rendezvous.Receive(agent); err != nil || m.Refused == nil || m.Refused.Code != rendezvous.RefusedAccess {
		t.Errorf("got %+v, %v, want a refusal", m, err)
	}
	p.logged("rules of access reloaded")
	logged := p.end(syscall.SIGTERM)

	var names []string
	var record string
	for _, path := range []string{trail + ".1", trail} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		record += string(text)
		for line := range strings.Lines(string(text)) {
			var e audit.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			names = append(names, e.Event)
			if e.Event == "agent.gone" && (e.Subject != "ci" || e.Remote != "192.0.2.1" || e.ID != "acme/1" || e.Result != "revoked" || e.Seconds == nil) {
				t.Errorf("the end of an agent: %+v", e)
			}
		}
	}
	if got := strings.Join(names, " "); got != "agent.registered client.refused client.refused limited access.reloaded agent.gone" {
		t.Errorf("on record are %s", got)
	}
	if strings.Contains(record+logged, token) {
		t.Error("a log holds the token")
	}
}

// TestDrainKeepsWatch: a server that drains can be seen to, and lets go who is
// revoked meanwhile.
func TestDrainKeepsWatch(t *testing.T) {
	dir := t.TempDir()
	tokens, trail := filepath.Join(dir, "tokens"), filepath.Join(dir, "audit.log")
	token, line := made(t, "ci", access.Agent)
	write(t, tokens, line)
	p := start(t, "--tokens", tokens, "--audit-log", trail, "--debug-listen", "127.0.0.1:0", "--drain", "1h")
	agent, err := wsconn.Dial(t.Context(), p.server.AgentURL("acme/1"), p.transport(), http.Header{"Authorization": {"Bearer " + token}}, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	introduce(t, agent, "acme/1")
	figures := fmt.Sprintf("http://%v/metrics", p.logged("serving figures")["address"])
	if text := fetch(t, figures, ""); !strings.Contains(text, "\nconverge_ready 1\n") {
		t.Error("the figures do not say that it is ready")
	}

	p.signal(syscall.SIGTERM)
	p.logged("ending")
	if err := os.Rename(trail, trail+".1"); err != nil {
		t.Fatal(err)
	}
	_, other := made(t, "other", access.Agent)
	write(t, tokens, other)
	p.signal(syscall.SIGHUP)
	_ = agent.SetReadDeadline(time.Now().Add(patience))
	if m, err := rendezvous.Receive(agent); err != nil || m.Refused == nil || m.Refused.Code != rendezvous.RefusedAccess {
		t.Errorf("got %+v, %v, want a refusal", m, err)
	}
	p.logged("rules of access reloaded")
	if text := fetch(t, figures, ""); !strings.Contains(text, "\nconverge_ready 0\n") {
		t.Error("the figures do not say that it drains")
	}
	if _, err := os.Stat(trail); err != nil {
		t.Errorf("the audit log was not opened anew: %v", err)
	}
	p.signal(syscall.SIGTERM)
	if logged, state := p.wait(); state.ExitCode() != 128+int(syscall.SIGTERM) {
		t.Errorf("it ended with %v and logged\n%s", state, logged)
	}
}

// TestEndsUnread: an audit log on a standard output that nobody reads holds up
// no end.
func TestEndsUnread(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	defer writer.Close()
	// It is full before the server begins.
	raw, err := writer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{4096, 1} {
		if writeErr := raw.Write(func(fd uintptr) bool {
			for err = nil; err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, n))
			}
			return true
		}); writeErr != nil || !errors.Is(err, syscall.EAGAIN) {
			t.Fatalf("cannot fill a pipe: %v, %v", writeErr, err)
		}
	}
	p := startOn(t, writer, []string{"server"}, "--audit-log", "-")
	p.register("job")
	p.logged("agent registered")
	logged := p.end(syscall.SIGTERM)
	if !strings.Contains(logged, `"msg":"the audit log lacks events: it takes no more","lost":`) {
		t.Errorf("it logged\n%s", logged)
	}
}

// introduce goes through a registration on a control connection.
func introduce(t *testing.T, conn *wsconn.Conn, id string) {
	t.Helper()
	key := fakeagent.NewKey()
	if err := rendezvous.Send(conn, fakeagent.Hello(key)); err != nil {
		t.Fatal(err)
	}
	m, err := rendezvous.Receive(conn)
	if err != nil || m.Challenge == nil {
		t.Fatalf("got %+v, %v", m, err)
	}
	if err := rendezvous.Send(conn, rendezvous.Message{Proof: rendezvous.Prove(key, m.Challenge.Nonce, id)}); err != nil {
		t.Fatal(err)
	}
	if m, err = rendezvous.Receive(conn); err != nil || m.Registered == nil {
		t.Fatalf("got %+v, %v", m, err)
	}
}

// TestOpenByDefault: without any option it is as open as ever, and says so.
func TestOpenByDefault(t *testing.T) {
	p := start(t)
	p.logged("open: whoever reaches this server may register agents and connect to ids")
	p.serveAgent("job")
	session := p.client("job")
	echoes(t, session)
	_ = session.Close()
	p.end(syscall.SIGTERM)
}
