//go:build linux

package sshd

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Sessions of one connection share a socket; one that did not ask has none;
// the job's own is no substitute.
func TestAgentForwarding(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	b := newBench(t, func(c *Config) { c.Env = append(c.Env, "SSH_AUTH_SOCK=/the/job's/own") })
	client := b.dial()
	keyring := agent.NewKeyring()
	_, private := newSigner(t)
	if err := keyring.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	if err := agent.ForwardToAgent(client, keyring); err != nil {
		t.Fatal(err)
	}
	output := func(asks bool, command string) string {
		t.Helper()
		session := b.session(client)
		if asks {
			if err := agent.RequestAgentForwarding(session); err != nil {
				t.Fatal(err)
			}
		}
		out, err := session.Output(command)
		if err != nil {
			t.Error(err)
		}
		return strings.TrimSpace(string(out))
	}
	first := output(true, "echo $SSH_AUTH_SOCK")
	if !strings.HasPrefix(first, tmp+"/") {
		t.Errorf("%q", first)
	}
	// It is there as long as the connection, for tmux and the like.
	if _, err := os.Stat(first); err != nil {
		t.Error(err)
	}
	if second := output(true, "echo $SSH_AUTH_SOCK"); second != first {
		t.Errorf("%q, then %q", first, second)
	}
	if none := output(false, "echo $SSH_AUTH_SOCK"); none != "/the/job's/own" {
		t.Errorf("%q", none)
	}
	if keys := output(true, "ssh-add -l | wc -l; ssh-add -l | grep -c ED25519"); keys != "1\n1" {
		t.Errorf("%q", keys)
	}
	client.Close()
	b.events.wait(t, "logout 1", 1)
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
}

func TestAgentForwardingRefusals(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	session := b.session(client)
	if ok, err := session.SendRequest("auth-agent-req@openssh.com", true, []byte{1}); ok || err != nil {
		t.Errorf("malformed: %v %v", ok, err)
	}
	if err := session.Start("cat"); err != nil {
		t.Fatal(err)
	}
	if ok, err := session.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil {
		t.Errorf("too late: %v %v", ok, err)
	}
	// A client without a key agent may ask, but gets no connection.
	if out, err := withAgent(t, b, client).CombinedOutput("ssh-add -l"); err == nil {
		t.Errorf("%q", out)
	}
}

// withAgent opens a session that has asked for the key agent.
func withAgent(t testing.TB, b *bench, client *ssh.Client) *ssh.Session {
	t.Helper()
	session := b.session(client)
	if err := agent.RequestAgentForwarding(session); err != nil {
		t.Fatal(err)
	}
	return session
}
