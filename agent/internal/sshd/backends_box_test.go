//go:build linux

package sshd

import (
	"context"
	"strings"
	"testing"

	"example.com/converge/container"
	"example.com/converge/pkg/watchtest"
)

// boxTests are of what only containers have.
var boxTests = []struct {
	name string
	run  func(*testing.T, *world)
}{
	{"Missing", testMissing},
	{"Empty", testEmpty},
	{"SessionMode", testSessionMode},
	{"Existing", testExisting},
	{"Subsystem", testSubsystem},
	{"LateShutdown", testLateShutdown},
}

// What will never succeed fails at once, in the engine's own words.
func testMissing(t *testing.T, w *world) {
	b := w.boxBench(t, w.config(t, "no-such-image:latest"), nil)
	option := b.master()
	for _, args := range [][]string{{"true"}, {"-tt"}} {
		args = append([]string{testUser + "@127.0.0.1"}, args...)
		stdout, stderr, code := run(t, b.client("ssh", []string{option}, args...))
		if code != 127 || !strings.Contains(stderr+stdout, "converge: "+container.UserMessage) ||
			!strings.Contains(strings.ToLower(stderr+stdout), "no such image") {
			t.Errorf("%q: %d %q %q", args, code, stdout, stderr)
		}
	}
	_, stderr, code := run(t, b.client("sftp", []string{option}, "-b", b.write("batch", []byte("ls\n")), testUser+"@127.0.0.1"))
	if code == 0 || !strings.Contains(strings.ToLower(stderr), "no such image") {
		t.Errorf("sftp: %d %q", code, stderr)
	}
	if _, err := b.dial().Dial("tcp", "127.0.0.1:1"); err == nil || !strings.Contains(strings.ToLower(err.Error()), "no such image") {
		t.Errorf("dial: %v", err)
	}
}

// An image with nothing has forwards and files, and says that it has no shell.
func testEmpty(t *testing.T, w *world) {
	b := w.boxBench(t, w.config(t, w.empty), nil)
	stdout, stderr, code := run(t, b.client("ssh", nil, "-T", testUser+"@127.0.0.1"))
	if code != 127 || stdout != "" || !strings.Contains(stderr, "the image has no shell") {
		t.Errorf("shell: %d %q %q", code, stdout, stderr)
	}
	if w.real {
		if stdout, stderr, code := run(t, b.ssh("true")); code != 127 || stdout != "" || !strings.Contains(stderr, "/bin/sh") {
			t.Errorf("exec: %d %q %q", code, stdout, stderr)
		}
	}
	client := b.dial()
	path := "/dev/shm/converge-test-" + strings.ToLower(strings.ReplaceAll(b.port, "/", "-"))
	l, err := client.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, mirror)
	nc, err := client.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	askMirror(t, nc, noise(w.bulk/30, 43))
}

// Each session has a container of its own, which goes with it; a forward has none.
func testSessionMode(t *testing.T, w *world) {
	cfg := w.config(t, w.shell)
	cfg.Execution.Mode = container.ModeSession
	b := w.boxBench(t, cfg, nil)
	option := b.master()
	stdout, stderr, code := run(t, b.client("ssh", []string{option}, testUser+"@127.0.0.1", "cat; echo err >&2; exit 42"))
	if stdout != "" || stderr != "err\n" || code != 42 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
	watchtest.Eventually(t, "no container", func() bool { return len(w.left()) == 0 })
	client := b.dial()
	one := b.terminal(client, nil, "")
	two := b.terminal(client, nil, "")
	for _, s := range []*terminalSession{one, two} {
		s.typeIn(t, "stty size; echo rea''dy\n")
		s.out.Expect(t, "ready\r\n")
		s.out.Expect(t, "25 81\r\n")
	}
	if n := len(w.left()); n != 2 {
		t.Errorf("%d containers", n)
	}
	one.typeIn(t, "exit 3\n")
	if err := one.Wait(); status(err) != 3 {
		t.Errorf("%v", err)
	}
	watchtest.Eventually(t, "one container", func() bool { return len(w.left()) == 1 })
	if _, err := client.Dial("tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "not supported") {
		t.Errorf("dial: %v", err)
	}
	// A client whose agent cannot be lent is served all the same.
	session := b.session(client)
	if ok, err := session.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil {
		t.Errorf("agent: %v %v", ok, err)
	}
	if err := session.Run(`test -z "$SSH_AUTH_SOCK"`); err != nil {
		t.Error(err)
	}
}

// A container that runs is not started, and not removed.
func testExisting(t *testing.T, w *world) {
	first := w.bench(t, nil)
	holder := first.terminal(first.dial(), nil, "")
	holder.typeIn(t, "export MARK=1; echo rea''dy\n")
	holder.out.Expect(t, "ready\r\n")
	left := w.left()
	if len(left) != 1 {
		t.Fatalf("%q", left)
	}
	cfg := w.config(t, "")
	cfg.Execution.Existing, cfg.Execution.Host = left[0], container.Config{}.Execution.Host
	b := w.boxBench(t, cfg, nil)
	if stdout, stderr, code := run(t, b.ssh("echo in; exit 42")); stdout != "in\n" || code != 42 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
	// What is left there ends, although its container does not.
	client := b.dial()
	session := b.session(client)
	var out watchtest.Output
	session.Stdout = &out
	if err := session.Start("echo $$; trap '' HUP; while :; do sleep 0.1; done"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "\n")
	pid := strings.TrimSpace(out.String())
	client.Close()
	watchtest.Eventually(t, "its end", func() bool {
		_, _, code := run(t, b.ssh("kill -0 "+pid+" 2>/dev/null"))
		return code != 0
	})
	holder.typeIn(t, "exit 5\n")
	if err := holder.Wait(); status(err) != 5 {
		t.Errorf("the container has not lived on: %v", err)
	}
}

// A subsystem of the configuration is a program like others.
func testSubsystem(t *testing.T, w *world) {
	cfg := w.config(t, w.shell)
	cfg.Execution.Subsystems = map[string]string{"greet": "echo hello there"}
	b := w.boxBench(t, cfg, nil)
	stdout, stderr, code := run(t, b.client("ssh", nil, "-s", testUser+"@127.0.0.1", "greet"))
	if stdout != "hello there\n" || code != 0 {
		t.Errorf("%q %q %d", stdout, stderr, code)
	}
	if _, _, code := run(t, b.client("ssh", nil, "-s", testUser+"@127.0.0.1", "other")); code == 0 {
		t.Error("another subsystem was taken")
	}
}

// A program that will not end does not hold up the end of the agent for long:
// nothing is waited for after the patience, and its container goes all the same.
func testLateShutdown(t *testing.T, w *world) {
	b := w.bench(t, nil)
	session := b.session(b.dial())
	var out watchtest.Output
	session.Stdout = &out
	if err := session.Start("trap '' HUP TERM; echo ready; while :; do sleep 1; done"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.shutdown(t, ctx)
	if left := w.left(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
