package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestLastLogout: the agent ends when its last user has gone, at once after an
// interactive shell and after the grace otherwise, unless it is held or kept.
func TestLastLogout(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	const ended = "The session ended because its last user logged out."

	t.Run("after a shell", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--grace", "1h")
		// -tt gives a pty without a terminal, and so an interactive shell.
		viaTTY := viaWsproxy(id, a.url)
		viaTTY.options = append(viaTTY.options, "-tt")
		viaTTY.ssh(t, strings.NewReader("exit\n"))
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), ended) {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("after a copy", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--grace", "1s")
		file, _ := randomFile(t, 1<<10)
		w := viaWsproxy(id, a.url)
		w.sftp(t, "get "+file+" "+filepath.Join(t.TempDir(), "x")+"\n").must(t)
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), ended) {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("a copy, then a login", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--grace", "1h")
		w := viaWsproxy(id, a.url)
		w.ssh(t, nil, "true").must(t)
		w.ssh(t, nil, "true").must(t)
		w.options = append(w.options, "-tt")
		w.ssh(t, strings.NewReader("exit\n"))
		if code := a.wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("held", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--grace", "0")
		w := viaWsproxy(id, a.url)
		w.options = append(w.options, "-tt")
		// The prompt after touch shows that the shell saw it; the agent sees
		// the file before it can see the logout, or else would have ended.
		r := w.ssh(t, strings.NewReader("touch \"$agentdir/.hold\"; echo dir=$agentdir; exit\n"))
		dir := regexp.MustCompile(`dir=(/\S+)`).FindStringSubmatch(r.stdout)
		if dir == nil {
			t.Fatalf("no agentdir in %q", r.stdout)
		}
		viaWsproxy(id, a.url).ssh(t, nil, "true").must(t)
		if err := os.Remove(filepath.Join(dir[1], ".hold")); err != nil {
			t.Fatal(err)
		}
		if code := a.wait(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Stat(dir[1]); !os.IsNotExist(err) {
			t.Errorf("agentdir is left behind: %v", err)
		}
	})
}

// TestExpiry: a job does not hang: nobody came, or nobody was active.
func TestExpiry(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)

	t.Run("nobody comes", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--expiry", "1s", "--timeout-exit-code", "42")
		if code := a.wait(t); code != 42 || !strings.Contains(a.out.String(), "nobody logged in in time") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("output alone does not extend", func(t *testing.T) {
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--expiry", "3s", "--first-connect-timeout", "1h")
		w := viaWsproxy(id, a.url)
		w.options = append(w.options, "-tt")
		r := w.ssh(t, nil, "while :; do echo tick; read -t 0.2; done")
		if !strings.Contains(r.stdout, "tick") || r.code == 0 {
			t.Errorf("exit code %d, %q", r.code, r.stdout)
		}
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "because it expired") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("hold dated in the future", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "agentdir")
		a := runAgent(t, s.ws("/agent/"+uniqueID()), id, "--expiry", "2s", "--first-connect-timeout", "1h", "--agentdir", dir)
		w := viaWsproxy(id, a.url)
		w.ssh(t, nil, `touch -d "+1 hour" "$agentdir/.hold"`).must(t)
		client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo in; sleep 5; echo still in; cat")...)
		client.out.Await(t, "still in", 1) // longer than the expiry
		if err := os.Remove(filepath.Join(dir, ".hold")); err != nil {
			t.Fatal(err)
		}
		if code := a.wait(t); code != 0 {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
}

// TestSignal: SIGTERM of the CI system is told to the users and ends in time.
func TestSignal(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url)
	client := start(t, nil, "ssh", append(append([]string{}, w.options...), "-tt", "abc@localhost")...)
	client.out.Await(t, "Welcome to this job", 1)
	begin := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := a.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("ended after %v", time.Since(begin))
	client.wait(t)
	client.out.Await(t, "told to stop by a signal", 1)
	s.out.Await(t, `msg="agent gone" id=`+a.id+` .*goodbye`, 1)
}

// TestIgnoredSignals: an agent behind nohup, or the & of a script, was started
// with signals ignored. Its users' commands are not.
func TestIgnoredSignals(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	command := agentCommand(s.ws("/agent/"+uniqueID()), id, "--keep")
	a := awaitAgent(t, start(t, nil, "/bin/sh", append([]string{"-c", `trap "" HUP INT; exec "$@"`, "sh"}, command...)...))
	for _, signal := range []string{"HUP", "INT"} {
		r := shell(t, nil, a.ssh+" 'kill -"+signal+" $$; echo survived'")
		if r.code != 255 || r.stdout != "" {
			t.Errorf("%s: exit code %d and %q", signal, r.code, r.stdout)
		}
	}
}
