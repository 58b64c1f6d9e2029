//go:build linux

package sshd

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// noise returns n random bytes, the same for the same seed.
func noise(n int, seed byte) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

// lookup returns the last value of a variable in an environment.
func lookup(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// same compares by checksum, to say little about large data.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if sha256.Sum256(got) != sha256.Sum256(want) {
		t.Errorf("%s: %d bytes, want %d, or other content", what, len(got), len(want))
	}
}

func TestExitStatus(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for status := range 256 {
		session, err := client.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		err = session.Run(fmt.Sprintf("exit %d", status))
		var exit *ssh.ExitError
		switch {
		case status == 0 && err != nil:
			t.Errorf("status 0: %v", err)
		case status != 0 && (!errors.As(err, &exit) || exit.ExitStatus() != status || exit.Signal() != ""):
			t.Errorf("status %d: %v", status, err)
		}
	}
}

func TestExitSignal(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for signal, want := range map[string]string{
		"TERM": "TERM", "KILL": "KILL", "SEGV": "SEGV", "USR1": "USR1",
		"XCPU": "SIG@openssh.com", // not one of RFC 4254's
	} {
		err := b.session(client).Run("ulimit -c 0; kill -" + signal + " $$")
		var exit *ssh.ExitError
		if !errors.As(err, &exit) || exit.Signal() != want || !strings.Contains(exit.Msg(), signal) {
			t.Errorf("%s: %v", signal, err)
		}
	}
	if _, _, code := run(t, b.ssh("kill -TERM $$")); code != 255 {
		t.Errorf("ssh ended with %d", code)
	}
}

// The signals of a client reach the process group, also when they come before
// the command has started.
func TestSignals(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for _, signal := range []ssh.Signal{ssh.SIGTERM, ssh.SIGINT, ssh.SIGHUP, ssh.SIGKILL, ssh.SIGUSR2} {
		session := b.session(client)
		if err := session.Start("sleep 3600; echo never"); err != nil {
			t.Fatal(err)
		}
		if err := session.Signal(signal); err != nil {
			t.Fatal(err)
		}
		var exit *ssh.ExitError
		if err := session.Wait(); !errors.As(err, &exit) || exit.Signal() != string(signal) {
			t.Errorf("%s: %v", signal, err)
		}
	}
	session := b.session(client)
	var out watchtest.Output
	session.Stdout = &out
	if err := session.Start(`trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.01; done`); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	if ok, err := session.SendRequest("signal", true, ssh.Marshal(struct{ S string }{"USR1"})); !ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	var exit *ssh.ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 3 || !strings.Contains(out.String(), "caught") {
		t.Errorf("%v %q", err, out.String())
	}
	if ok, _ := b.session(client).SendRequest("signal", true, ssh.Marshal(struct{ S string }{"USR1"})); ok {
		t.Error("a signal without a command is accepted")
	}
}

func TestStderrApart(t *testing.T) {
	b := newBench(t, nil)
	stdout, stderr, code := run(t, b.ssh("echo out; echo err >&2; exit 5"))
	if stdout != "out\n" || stderr != "err\n" || code != 5 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
	// Both streams at once, more than a window of each.
	session := b.session(b.dial())
	var out, errs bytes.Buffer
	session.Stdout, session.Stderr = &out, &errs
	if err := session.Run("head -c 5000000 /dev/zero & head -c 5000001 /dev/zero >&2; wait"); err != nil {
		t.Error(err)
	}
	if out.Len() != 5000000 || errs.Len() != 5000001 {
		t.Errorf("%d and %d bytes", out.Len(), errs.Len())
	}
}

func TestExecStreams(t *testing.T) {
	b := newBench(t, nil)
	big := noise(16<<20, 1)

	cmd := b.ssh("cat")
	cmd.Stdin = strings.NewReader("x\n")
	if stdout, stderr, code := run(t, cmd); stdout != "x\n" || stderr != "" || code != 0 {
		t.Errorf("echo x | ssh cat: %q %q %d", stdout, stderr, code)
	}
	cmd = b.ssh("cat")
	cmd.Stdin = bytes.NewReader(big)
	stdout, stderr, code := run(t, cmd)
	if code != 0 || stderr != "" {
		t.Errorf("ssh cat: %d %q", code, stderr)
	}
	same(t, "through ssh cat", []byte(stdout), big)

	cmd = b.ssh("cat > f")
	cmd.Stdin = bytes.NewReader(big)
	if _, stderr, code := run(t, cmd); code != 0 || stderr != "" {
		t.Errorf("ssh 'cat > f': %d %q", code, stderr)
	}
	got, err := os.ReadFile(filepath.Join(b.dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "into a file", got, big)
}

// The command's end is not held up by input that it does not take, and does
// not lose output.
func TestInputNotTaken(t *testing.T) {
	b := newBench(t, nil)
	cmd := b.ssh("exec 0<&-; echo closed; seq 100000 | tail -1; exit 3")
	cmd.Stdin = bytes.NewReader(make([]byte, 8<<20))
	stdout, stderr, code := run(t, cmd)
	if stdout != "closed\n100000\n" || stderr != "" || code != 3 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
}

// Output, end of output, status and close come in this order, all of them.
func TestOrderOfEnd(t *testing.T) {
	b := newBench(t, nil)
	for range 20 {
		ch, requests, err := b.dial().OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ S string }{"head -c 300000 /dev/zero; exit 9"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		out, err := io.ReadAll(ch)
		if err != nil || len(out) != 300000 {
			t.Errorf("%d bytes, %v", len(out), err)
		}
		var names []string
		for req := range requests {
			names = append(names, fmt.Sprintf("%s %x %v", req.Type, req.Payload, req.WantReply))
		}
		if got := strings.Join(names, ", "); got != "exit-status 00000009 false" {
			t.Error(got)
		}
	}
}

// A child that leaves its output to others ends the session when they end.
func TestGrandchildHoldsOutput(t *testing.T) {
	b := newBench(t, nil)
	session := b.session(b.dial())
	var stdout watchtest.Output
	session.Stdout = &stdout
	if err := session.Start("mkfifo go; (read line < go; echo $line) & echo ready"); err != nil {
		t.Fatal(err)
	}
	stdout.Expect(t, "ready")
	if err := os.WriteFile(filepath.Join(b.dir, "go"), []byte("late\n"), 0); err != nil {
		t.Fatal(err)
	}
	if err := session.Wait(); err != nil || stdout.String() != "ready\nlate\n" {
		t.Errorf("%q %v", stdout.String(), err)
	}
}

func TestEnvironment(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Env = append(c.Env, "FROM_JOB=yes", "LANG=from-job")
		c.AcceptEnv = []string{"MY_*"}
	})
	t.Setenv("ONLY_OF_THE_AGENT", "secret")
	session := b.session(b.dial())
	for name, want := range map[string]bool{
		"LANG": true, "LC_ALL": true, "COLORTERM": true, "TZ": true, "MY_VARIABLE": true,
		"LD_PRELOAD": false, "PATH": false, "BASH_ENV": false, "MYVARIABLE": false, "A=B": false, "": false,
	} {
		if err := session.Setenv(name, "set-"+name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err := session.Output("pwd; env")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if lines[0] != b.dir {
		t.Errorf("working folder %s", lines[0])
	}
	env := lines[1:]
	for name, want := range map[string]string{
		"FROM_JOB": "yes", "LANG": "set-LANG", "LC_ALL": "set-LC_ALL", "MY_VARIABLE": "set-MY_VARIABLE",
		"SHELL": "/bin/bash", "PWD": b.dir, "PATH": "/usr/bin:/bin",
		"ONLY_OF_THE_AGENT": "", "LD_PRELOAD": "", "SSH_TTY": "",
	} {
		if got := lookup(env, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for kind, want := range map[string]string{
		"direct-tcpip":                   "malformed request",
		"direct-streamlocal@openssh.com": "malformed request",
		"tun@openssh.com":                "no tunnels",
		"x11":                            "no channels of this type",
	} {
		_, _, err := client.OpenChannel(kind, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for request, want := range map[string]bool{
		"keepalive@openssh.com": true, "tcpip-forward": false,
		"streamlocal-forward@openssh.com": false, "what@example.com": false,
	} {
		if ok, _, err := client.SendRequest(request, true, nil); ok != want || err != nil {
			t.Errorf("%s: %v %v", request, ok, err)
		}
	}
	session := b.session(client)
	for _, request := range []string{"x11-req", "break", "what@example.com"} {
		if ok, err := session.SendRequest(request, true, nil); ok || err != nil {
			t.Errorf("%s: %v %v", request, ok, err)
		}
	}
	if err := session.RequestSubsystem("converge-what"); err == nil {
		t.Error("an unknown subsystem is served")
	}
	// What was refused does not take the session's one command away.
	if out, err := session.Output("echo ok"); err != nil || string(out) != "ok\n" {
		t.Errorf("%q %v", out, err)
	}
	ch, _, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ch.Close()
	for i, payload := range [][]byte{nil, {0, 0, 0, 9, 'x'}, ssh.Marshal(struct{ S string }{"sleep 3600"}), ssh.Marshal(struct{ S string }{"echo second"})} {
		if ok, err := ch.SendRequest("exec", true, payload); ok != (i == 2) || err != nil {
			t.Errorf("exec %d: %v %v", i, ok, err)
		}
	}
}

func TestCannotStart(t *testing.T) {
	b := newBench(t, func(c *Config) { c.Dir = filepath.Join(c.Dir, "nowhere") })
	stdout, stderr, code := run(t, b.ssh("true"))
	if stdout != "" || !strings.Contains(stderr, "cannot start") || !strings.Contains(stderr, "nowhere") || code != cannotStart {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
	b.events.wait(t, "closed 1 exec", 1)
}

// A shell without terminal reads its commands from the client.
func TestShellWithoutTerminal(t *testing.T) {
	b := newBench(t, nil)
	cmd := b.client("ssh", nil, "-T", testUser+"@127.0.0.1")
	cmd.Stdin = strings.NewReader("echo $0; shopt login_shell\nexit 4\n")
	stdout, _, code := run(t, cmd)
	if stdout != "-bash\nlogin_shell    \ton\n" || code != 4 {
		t.Errorf("%q %d", stdout, code)
	}
	b.events.wait(t, "closed 1 exec", 1)
}

func TestManySessions(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	// All of them have to be there before one ends.
	var all sync.WaitGroup
	started := make(chan struct{}, 20)
	release := make(chan struct{})
	for i := range 20 {
		all.Go(func() {
			session, err := client.NewSession()
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close()
			stdin, _ := session.StdinPipe()
			stdout, _ := session.StdoutPipe()
			if err := session.Start(fmt.Sprintf("echo %d; cat; exit %d", i, i)); err != nil {
				t.Error(err)
				return
			}
			line := make([]byte, len(fmt.Sprintln(i)))
			if _, err := io.ReadFull(stdout, line); err != nil || string(line) != fmt.Sprintln(i) {
				t.Errorf("%q %v", line, err)
			}
			started <- struct{}{}
			<-release
			fmt.Fprint(stdin, "end")
			stdin.Close()
			rest, _ := io.ReadAll(stdout)
			var exit *ssh.ExitError
			if err := session.Wait(); string(rest) != "end" || i != 0 && (!errors.As(err, &exit) || exit.ExitStatus() != i) {
				t.Errorf("%d: %q %v", i, rest, err)
			}
		})
	}
	for range 20 {
		<-started
	}
	close(release)
	all.Wait()
}

func TestSessionBound(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for range maxSessions {
		b.session(client)
	}
	if _, err := client.NewSession(); err == nil || !strings.Contains(err.Error(), "too many sessions") {
		t.Errorf("%v", err)
	}
	if err := b.session(b.dial()).Run("true"); err != nil {
		t.Errorf("on another connection: %v", err)
	}
}
