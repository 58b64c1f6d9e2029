//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/fakeagent"
)

// made makes a token with its line.
func made(t *testing.T, name string, roles ...access.Role) (token, line string) {
	t.Helper()
	token, line, err := access.MakeToken(name, roles, nil)
	if err != nil {
		t.Fatal(err)
	}
	return token, line + "\n"
}

func write(t *testing.T, path string, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// loggedOf is logged for a line about an option.
func (p *process) loggedOf(text, option string) map[string]any {
	p.t.Helper()
	return p.loggedWith(text, "option", func(value string) bool { return value == option })
}

// loggedWith is logged for a line with a value that is right.
func (p *process) loggedWith(text, name string, right func(value string) bool) map[string]any {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for seen := 0; ; p.changed.Wait() {
		for ; seen < len(p.lines); seen++ {
			if msg, _ := p.lines[seen]["msg"].(string); strings.Contains(msg, text) && right(fmt.Sprint(p.lines[seen][name])) {
				return p.lines[seen]
			}
		}
		if p.over {
			p.t.Fatalf("it never logged %q with the right %s, but\n%s", text, name, p.text.String())
		}
	}
}

// TestReload changes the file under a running server: what can be taken in is,
// what cannot is named, and a mistake changes nothing.
func TestReload(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	old, oldLine := made(t, "old", access.Agent, access.Client)
	next, nextLine := made(t, "next", access.Agent, access.Client)
	write(t, at("old"), oldLine)
	write(t, at("next"), nextLine)
	pairs := map[string]*certtest.Pair{}
	for i, name := range []string{"a", "b"} {
		pair, err := certtest.New(int64(i + 1))
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.Write(at(name+".pem"), at(name+".key")); err != nil {
			t.Fatal(err)
		}
		pairs[name] = &pair
	}
	file := func(tokens, pair, rest string) {
		write(t, at("server.yaml"), fmt.Sprintf("tokens: %s\ntls-cert: %s\ntls-key: %s\ntrusted-proxy: [127.0.0.1]\naudit-log: %s\n%s", at(tokens), at(pair+".pem"), at(pair+".key"), at("audit.log"), rest))
	}
	file("old", "a", "max-failures: 1\ndebug-listen: 127.0.0.1:0\n")
	p := startBy(t, []string{"server"}, "--config", at("server.yaml"))
	p.tls = &tls.Config{RootCAs: pairs["a"].Pool()}
	dial := func(token, from string) error {
		header := http.Header{"X-Forwarded-For": {from}}
		if token != "" {
			header.Set("Authorization", "Bearer "+token)
		}
		server := p.server
		server.Secure = true
		conn, err := frame.Dial(t.Context(), server.ClientURL("nobody"), p.transport(), header, frame.Options{})
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if got := refusal(dial(old, "192.0.2.1")); got != http.StatusNotFound {
		t.Errorf("the old token: %d", got)
	}
	if got := refusal(dial(old, "192.0.2.1")); got != http.StatusTooManyRequests {
		t.Errorf("beyond the limit: %d", got)
	}

	// A mistake: nothing has changed, and the figures say so.
	file("next", "b", "max-failures: many\n")
	p.signal(syscall.SIGHUP)
	if line := p.logged("the configuration cannot be used: nothing has changed"); !strings.Contains(fmt.Sprint(line["err"]), `"many" of max-failures in line 6`) {
		t.Errorf("it says %v", line)
	}
	figures := fmt.Sprintf("http://%v", p.logged("serving figures")["address"])
	if text := fetch(t, figures+"/metrics", ""); !strings.Contains(text, "converge_config_last_reload_successful 0") {
		t.Error("the figures do not say that the file cannot be used")
	}
	if got := refusal(dial(old, "192.0.2.2")); got != http.StatusNotFound {
		t.Errorf("the old token after a mistake: %d", got)
	}

	file("next", "b", "max-failures: 50\nlog-level: warn\ndebug-listen: 127.0.0.1:1\n")
	p.signal(syscall.SIGHUP)
	if line := p.loggedOf("an option has changed that needs a restart", "debug-listen"); line["from"] != "127.0.0.1:0" || line["to"] != "127.0.0.1:1" {
		t.Errorf("it says %v", line)
	}
	p.tls = &tls.Config{RootCAs: pairs["b"].Pool()} // only the new certificate will do
	for _, test := range []struct {
		token string
		want  int
	}{{old, http.StatusUnauthorized}, {next, http.StatusNotFound}, {next, http.StatusNotFound}} {
		if got := refusal(dial(test.token, "192.0.2.3")); got != test.want {
			t.Errorf("after the reload: %d, want %d", got, test.want)
		}
	}
	if text := fetch(t, figures+"/metrics", ""); !strings.Contains(text, "converge_config_last_reload_successful 1") {
		t.Error("the figures do not say that the file is good again")
	}
	// Emptied, as by who is about to write it.
	write(t, at("server.yaml"), "")
	p.signal(syscall.SIGHUP)
	p.loggedWith("the configuration cannot be used: nothing has changed", "err", func(err string) bool {
		return strings.Contains(err, "it has no option any more")
	})
	// Without its tokens it would be open: that waits for a restart.
	file("next", "b", "max-failures: 50\nlog-level: warn\n")
	text, err := os.ReadFile(at("server.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, at("server.yaml"), strings.Replace(string(text), "tokens:", "#", 1))
	p.signal(syscall.SIGHUP)
	if line := p.loggedOf("an option has changed that needs a restart", "tokens"); !strings.Contains(fmt.Sprint(line["err"]), "until it is started again") {
		t.Errorf("it says %v", line)
	}
	if got := refusal(dial("", "192.0.2.4")); got != http.StatusUnauthorized {
		t.Errorf("without a token: %d", got)
	}
	logged := p.end(syscall.SIGTERM)
	for _, option := range []string{"tokens", "tls-cert", "tls-key", "max-failures", "log-level"} {
		if !strings.Contains(logged, `"msg":"an option has changed","option":"`+option+`"`) {
			t.Errorf("the log does not say that %s has changed", option)
		}
	}
	trail, err := os.ReadFile(at("audit.log"))
	if err != nil || strings.Count(string(trail), "config.reloaded") != 2 || strings.Count(string(trail), "config.not-reloaded") != 2 {
		t.Errorf("on record are %s, %v", trail, err)
	}
	if strings.Contains(logged+string(trail), old) || strings.Contains(logged+string(trail), next) {
		t.Error("a token is in a log")
	}
}

// fetch asks over plain HTTP.
func fetch(t *testing.T, target, authorization string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := fakeagent.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestStatusAndSessions asks a running server who is there, by both ways.
func TestStatusAndSessions(t *testing.T) {
	dir := t.TempDir()
	ci, ciLine := made(t, "ci", access.Agent, access.Client)
	boss, bossLine := made(t, "boss", access.Viewer)
	write(t, filepath.Join(dir, "tokens"), ciLine+bossLine)
	p := start(t, "--tokens", filepath.Join(dir, "tokens"), "--sessions", "--debug-listen", "127.0.0.1:0")
	agent, err := wsconn.Dial(t.Context(), p.server.AgentURL("acme/1"), p.transport(), http.Header{"Authorization": {"Bearer " + ci}}, wsconn.Options{MaxMessage: rendezvous.MaxMessage + 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	introduce(t, agent, "acme/1")

	address := fmt.Sprint(p.logged("serving figures")["address"])
	ctl := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), "server", append([]string{"status"}, args...)...).Output()
		return string(out), err
	}
	out, err := ctl("--debug-listen", address)
	if err != nil || !strings.Contains(out, "ready, up ") || !strings.Contains(out, "acme/1") || !strings.Contains(out, "2 static tokens") || !strings.Contains(out, "fake agent") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = ctl("--debug-listen", address, "--json")
	var status debug.Status
	if err != nil || json.Unmarshal([]byte(out), &status) != nil || !status.Ready || len(status.Agents) != 1 || status.Agents[0].ID != "acme/1" || status.Limit == 0 || status.Address != p.address {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := ctl("--debug-listen", p.address); err == nil {
		t.Error("another listener's answer is taken for a status")
	}

	page := "http://" + p.address + "/sessions"
	if text := fetch(t, page, "Bearer "+boss); !strings.Contains(text, `"id": "acme/1"`) {
		t.Errorf("the sessions are %s", text)
	}
	for _, stranger := range []string{"Bearer " + ci, "Bearer " + boss + "x", "Bearer cvg_x"} {
		if text := fetch(t, page, stranger); strings.Contains(text, "acme") {
			t.Errorf("a stranger sees %s", text)
		}
	}
	// A browser signs in, and is out as soon as its token is.
	client := &http.Client{Transport: fakeagent.Transport(), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.PostForm(page, url.Values{"token": {boss}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther || len(resp.Cookies()) != 1 {
		t.Fatalf("signing in: %s", resp.Status)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.AddCookie(resp.Cookies()[0])
	live, err := fakeagent.Transport().RoundTrip(req)
	if err != nil || live.StatusCode != http.StatusOK {
		t.Fatalf("the live page: %v, %v", live, err)
	}
	defer live.Body.Close()
	if text := fetch(t, "http://"+address+"/metrics", ""); !strings.Contains(text, "converge_viewers 1\n") {
		t.Error("the figures know no viewer")
	}
	write(t, filepath.Join(dir, "tokens"), ciLine)
	p.signal(syscall.SIGHUP)
	ended := make(chan string, 1)
	go func() { text, _ := io.ReadAll(live.Body); ended <- string(text) }()
	select {
	case text := <-ended:
		if !strings.Contains(text, "acme/1") || !strings.Contains(text, "event: gone") {
			t.Errorf("the live page said %s", text)
		}
	case <-time.After(patience):
		t.Fatal("a revoked token's page goes on")
	}
	logged := p.end(syscall.SIGTERM)
	for _, secret := range []string{ci, boss, resp.Cookies()[0].Value} {
		if strings.Contains(logged, secret) {
			t.Error("the log holds a secret")
		}
	}
	if !strings.Contains(logged, "viewer signed in") || !strings.Contains(logged, `"subject":"boss"`) {
		t.Error("the log does not tell who has signed in")
	}

	// Without the option there is no such page.
	p = start(t, "--tokens", filepath.Join(dir, "tokens"))
	if got := p.connect().status("/sessions"); got != http.StatusNotFound {
		t.Errorf("without --sessions: %d", got)
	}
	p.end(syscall.SIGTERM)
}
