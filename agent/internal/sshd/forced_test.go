//go:build linux

package sshd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

// Whatever OpenSSH's clients ask for, the forced command runs, and learns what
// they wanted.
func TestForcedCommand(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.ForceCommand = `echo "<${SSH_ORIGINAL_COMMAND-none}>"; cat >&2; exit 7`
		c.Env = append(c.Env, "SSH_ORIGINAL_COMMAND=of the job")
		c.AcceptEnv = []string{"*"}
	})
	const user = testUser + "@127.0.0.1"
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"command":            {[]string{user, "rm -rf '$HOME'; echo \"two  spaces\""}, `<rm -rf '$HOME'; echo "two  spaces">`},
		"shell":              {[]string{"-T", user}, "<none>"},
		"shell with claims":  {[]string{"-T", "-o", "SetEnv=SSH_ORIGINAL_COMMAND=true", user}, "<none>"},
		"command and claims": {[]string{"-o", "SetEnv=SSH_ORIGINAL_COMMAND=true", user, "false"}, "<false>"},
		"sftp":               {[]string{"-s", user, "sftp"}, "<internal-sftp>"},
	} {
		cmd := b.client("ssh", nil, test.args...)
		cmd.Stdin = strings.NewReader("input")
		stdout, stderr, code := run(t, cmd)
		if stdout != test.want+"\n" || stderr != "input" || code != 7 {
			t.Errorf("%s: %q %q %d, want %q", name, stdout, stderr, code, test.want)
		}
	}
	for _, name := range []string{"other", "converge-join", "converge-watch"} {
		if stdout, _, code := run(t, b.client("ssh", nil, "-tt", "-s", user, name)); code != 255 {
			t.Errorf("%s: %q %d", name, stdout, code)
		}
	}
	// On a terminal it is a shell to the rest of the agent.
	cmd := b.client("ssh", nil, "-tt", user)
	cmd.Stdin = strings.NewReader("\x04")
	if stdout, _, code := run(t, cmd); !strings.Contains(stdout, "<none>") || code != 7 {
		t.Errorf("terminal: %q %d", stdout, code)
	}
	for _, kind := range []string{"shell", "exec", "sftp"} {
		n := 0
		for _, line := range b.events.all() {
			if strings.HasPrefix(line, "opened ") && strings.HasSuffix(line, " "+kind) {
				n++
			}
		}
		if want := map[string]int{"shell": 1, "exec": 5}[kind]; n != want {
			t.Errorf("%d times %s, want %d", n, kind, want)
		}
	}
}

// internal-sftp makes an agent for files alone.
func TestForcedSFTP(t *testing.T) {
	b := newBench(t, func(c *Config) { c.ForceCommand = "internal-sftp" })
	if err := os.WriteFile(filepath.Join(b.dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := run(t, b.client("scp", nil, "-s", testUser+"@127.0.0.1:file", "got")); code != 0 {
		t.Errorf("scp: %d %q", code, stderr)
	}
	client := b.dial()
	session := b.session(client)
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("touch here; cat"); err != nil {
		t.Fatal(err)
	}
	files, err := sftp.NewClientPipe(out, in)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	entries, err := files.ReadDir(".")
	if err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("%v %v", entries, err)
	}
	for _, line := range b.events.all() {
		if strings.HasPrefix(line, "opened") && !strings.HasSuffix(line, " sftp") {
			t.Errorf("%q", line)
		}
	}
}

func TestSFTPOff(t *testing.T) {
	b := newBench(t, func(c *Config) { c.NoSFTP = true })
	batch := b.write("batch", []byte("pwd\n"))
	if _, stderr, code := run(t, b.client("sftp", nil, "-b", batch, testUser+"@127.0.0.1")); code == 0 {
		t.Errorf("sftp: %d %q", code, stderr)
	}
	session := b.session(b.dial())
	if err := session.RequestSubsystem("sftp"); err == nil {
		t.Error("the subsystem is served")
	}
	// The rest is as before.
	if out, err := session.Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("%q %v", out, err)
	}
}

func TestForcedContradictions(t *testing.T) {
	signer, _ := newSigner(t)
	for name, cfg := range map[string]Config{
		"internal-sftp without sftp": {ForceCommand: "internal-sftp", NoSFTP: true},
		"NUL":                        {ForceCommand: "a\x00b"},
	} {
		cfg.User, cfg.HostKey, cfg.Password = testUser, ssh.Signer(signer), testPassword
		if _, err := New(cfg); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
