//go:build linux

package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// hostile is a server in the wrong hands, of e2e/internal/hostile.
type hostile struct {
	*process
	addr, control string
}

// buildHostile builds it once, beside the programs.
var buildHostile = sync.OnceValues(func() (string, error) {
	file := filepath.Join(bin, "hostile")
	build := exec.Command("go", "build", "-race", "-o", file, "./internal/hostile")
	out, err := build.CombinedOutput()
	return string(out), err
})

func startHostile(t *testing.T, honest string, flags ...string) *hostile {
	t.Helper()
	if out, err := buildHostile(); err != nil {
		t.Fatalf("cannot build hostile: %v\n%s", err, out)
	}
	p := start(t, nil, tool("hostile"), append([]string{"--server", honest}, flags...)...)
	m := p.out.Await(t, `relay=(\S+) control=(\S+)`, 1)
	return &hostile{process: p, addr: m[1], control: m[2]}
}

// order gives an order and returns the answer.
func (h *hostile) order(t *testing.T, what string, values ...string) string {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(values); i += 2 {
		form.Set(values[i], values[i+1])
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.control+"/"+what+"?"+form.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v: %s %s, %v", what, values, resp.Status, text, err)
	}
	return string(text)
}

// turn has it play a trick from now on.
func (h *hostile) turn(t *testing.T, trick, other string) {
	t.Helper()
	h.order(t, "turn", "trick", trick, "other", other)
}

// booty is what it has seen.
type booty struct {
	Clients                       map[string]int
	Exchanged                     int
	Logins, Commands, Credentials []string
}

func (h *hostile) seen(t *testing.T) booty {
	t.Helper()
	var b booty
	if err := json.Unmarshal([]byte(h.order(t, "seen")), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// pasted is what an agent prints to be pasted.
type pasted struct {
	*process
	id, short, stock string
}

// printed starts an agent that stays, and waits for its lines.
func printed(t *testing.T, command ...string) pasted {
	t.Helper()
	return linesOf(t, start(t, nil, command[0], command[1:]...))
}

func linesOf(t *testing.T, p *process) pasted {
	t.Helper()
	return pasted{
		process: p,
		id:      p.out.Await(t, `Its id is (\S+)`, 1)[1],
		short:   p.out.Await(t, `(?m)^ +(\S*wsproxy ssh .*)\n`, 1)[1],
		stock:   p.out.Await(t, `(?m)^ +(ssh .*)\n`, 1)[1],
	}
}

// clientURL is what the lines lead to, without the pin.
func (p pasted) clientURL() string {
	_, rest, _ := strings.Cut(p.short, `"ws`)
	u, _, _ := strings.Cut("ws"+rest, "#")
	return u
}

// refused runs both lines, with variables before them, and wants ssh to end with
// these words.
func (p pasted) refused(t *testing.T, want string, env ...string) {
	t.Helper()
	for _, line := range []string{p.short, p.stock} {
		r := shell(t, nil, strings.Join(append(env, line), " ")+" echo in")
		if r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, want) {
			t.Errorf("%s\nexit code %d, stdout %q, stderr %q, want %q in it", line, r.code, r.stdout, r.stderr, want)
		}
	}
}

// allowed runs both lines, with variables before them, and wants them to lead to
// the agent.
func (p pasted) allowed(t *testing.T, env ...string) {
	t.Helper()
	for _, line := range []string{p.short, p.stock} {
		if r := shell(t, nil, strings.Join(append(env, line), " ")+" echo in").must(t); r.stdout != "in\n" {
			t.Errorf("%q came back", r.stdout)
		}
	}
}

// TestHostileRelay: whatever the server in between does, the printed lines lead
// to the agent or nowhere, and ssh says why; and the server has learnt nothing
// that it did not know.
func TestHostileRelay(t *testing.T) {
	s := startServer(t)
	h := startHostile(t, s.addr)
	id := newIdentity(t)
	whole := func(flags ...string) pasted {
		return printed(t, agentCommand("ws://"+h.addr+"/agent/"+uniqueID(), id, append([]string{"--keep"}, flags...)...)...)
	}
	a, other := whole(), whole()

	t.Run("honest", func(t *testing.T) {
		a.allowed(t)
		// Without the extensions of both ends it works as well, so that what
		// follows fails for the reasons that it says.
		h.turn(t, "plain", "")
		a.allowed(t)
	})

	const pin = "the far end is not the agent that the URL names"
	for _, test := range []struct {
		trick, other string
		// What ssh, or wsproxy below it, says.
		want string
	}{
		{"swap-key", "", "Host key verification failed"},
		{"plain", other.id, "Host key verification failed"},
		{"other-agent", other.id, pin},
		{"weak-host-key", "", "no matching host key type found. Their offer: ssh-dss"},
		{"weak-kex", "", "no matching key exchange method found. Their offer: diffie-hellman-group1-sha1"},
		{"no-cipher", "", "no matching cipher found. Their offer: none"},
		{"downgrade", "", "incorrect signature"},
		{"inject", "", "strict KEX violation: unexpected packet type 2"},
		{"tamper", "", "message authentication code incorrect"},
		{"tamper-input", "", "Connection closed by UNKNOWN port 65535"}, // by the agent, which says nothing to strangers
		{"redirect", s.addr, "the server answered 307 Temporary Redirect instead of opening a websocket"},
	} {
		t.Run(test.trick, func(t *testing.T) {
			h.turn(t, test.trick, test.other)
			before := h.seen(t)
			a.refused(t, test.want)
			after := h.seen(t)
			if n := after.Clients[test.trick] - before.Clients[test.trick]; n != 2 {
				t.Errorf("the trick was played %d times, want 2", n)
			}
			if after.Exchanged != 0 || len(after.Logins) != 0 || len(after.Commands) != 0 {
				t.Errorf("the server has got %+v", after)
			}
		})
	}
	if strings.Contains(other.out.String(), "logged in") {
		t.Errorf("somebody has come to the other agent:\n%s", other.out)
	}

	// The tricks are no tricks without somebody who falls for them: a line that
	// checks no key.
	t.Run("without the check", func(t *testing.T) {
		lax := func() result {
			return runCommand(t, nil, "ssh", append(viaWsproxy(id, a.clientURL()).options, "abc@localhost", "cat secrets")...)
		}
		h.turn(t, "swap-key", "")
		if r := lax().must(t); r.stdout != "this is not your job\n" {
			t.Errorf("%q", r.stdout)
		}
		if got := h.seen(t); got.Exchanged == 0 || !slices.Contains(got.Logins, "publickey abc") || !slices.Equal(got.Commands, []string{"cat secrets"}) {
			t.Errorf("the server has got %+v", got)
		}
		h.turn(t, "plain", other.id)
		lax()
		other.out.Await(t, "logged in", 1)
	})

	h.turn(t, "honest", "")
	a.allowed(t) // no harm was done
}

// TestHostilePassword: where a password lets in, it is not told to whoever shows
// another host key.
func TestHostilePassword(t *testing.T) {
	s := startServer(t)
	h := startHostile(t, s.addr)
	// ssh asks this program for the password.
	ask := filepath.Join(t.TempDir(), "ask")
	a := printed(t, tool("agent"), "--keep", "--shell", "/bin/bash", "--wsproxy", tool("wsproxy"),
		"--ssh-option=-Fnone", "--ssh-option=-oPubkeyAuthentication=no", "ws://"+h.addr+"/agent/"+uniqueID())
	password := a.out.Await(t, `password: (\S+)`, 1)[1]
	if err := os.WriteFile(ask, []byte("#!/bin/sh\necho "+password+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	env := []string{"SSH_ASKPASS=" + ask, "SSH_ASKPASS_REQUIRE=force"}
	a.allowed(t, env...)
	h.turn(t, "swap-key", "")
	a.refused(t, "Host key verification failed", env...)
	if got := h.seen(t); got.Exchanged != 0 || len(got.Logins) != 0 {
		t.Errorf("the server has got %+v", got)
	}
	// Who checks no key tells it.
	shell(t, nil, strings.Join(env, " ")+" ssh -F none -oPubkeyAuthentication=no -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null "+
		"-oProxyCommand='"+tool("wsproxy")+" "+a.clientURL()+"' abc@localhost true").must(t)
	if got := h.seen(t); !slices.Contains(got.Logins, "password abc "+password) {
		t.Errorf("the server has got %+v", got)
	}
}

// TestHostileTLS: a line with wss is not led to somebody without TLS, nor to
// somebody with another certificate, and neither hears of the token.
func TestHostileTLS(t *testing.T) {
	cert, key := selfSigned(t)
	s := startServer(t, "--tls-cert", cert, "--tls-key", key)
	otherCert, otherKey := selfSigned(t)
	bare, dressed := startHostile(t, s.addr), startHostile(t, s.addr, "--tls-cert", otherCert, "--tls-key", otherKey)
	g := openGate(t, s.addr)
	a := printed(t, agentCommand("wss://"+g.Address()+"/agent/"+uniqueID(), newIdentity(t), "--keep", "--ca", cert)...)
	env := []string{"CONVERGE_WSPROXY_CA=" + cert, "CONVERGE_WSPROXY_TOKEN=a-secret"}
	a.allowed(t, env...)
	g.Lead(bare.addr)
	a.refused(t, "does not speak TLS", env...)
	g.Lead(dressed.addr)
	a.refused(t, "certificate", env...)
	for _, h := range []*hostile{bare, dressed} {
		if got := h.seen(t); len(got.Clients) != 0 || len(got.Credentials) != 0 {
			t.Errorf("the server has got %+v", got)
		}
	}
	// Who asks for no certificate tells the token, and is let down by ssh.
	dressed.turn(t, "swap-key", "")
	a.refused(t, "Host key verification failed", append(env, "CONVERGE_WSPROXY_INSECURE=true")...)
	if got := dressed.seen(t); !slices.Contains(got.Credentials, "Bearer a-secret") || got.Exchanged != 0 {
		t.Errorf("the server has got %+v", got)
	}
}
