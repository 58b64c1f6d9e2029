//go:build unix

package e2e

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestSwitches: what an agent is started without is refused, and says so.
func TestSwitches(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	greet, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			nc, err := greet.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(nc, "hello")
			nc.Close()
		}
	}()
	defer func() { greet.Close(); <-served }()

	through := func(w way) result {
		w.options = append(w.options, "-oLogLevel=INFO", "-W", greet.Addr().String())
		return w.ssh(t, nil)
	}
	t.Run("all on", func(t *testing.T) {
		w := viaWsproxy(id, startAgent(t, s, id).url)
		if r := through(w).must(t); r.stdout != "hello" {
			t.Errorf("%q", r.stdout)
		}
	})
	t.Run("off", func(t *testing.T) {
		w := viaWsproxy(id, startAgent(t, s, id, "--no-forwarding", "--no-sftp").url)
		if r := through(w); r.code == 0 || r.stdout != "" {
			t.Errorf("forwarding: %d %q", r.code, r.stdout)
		}
		remote := w
		remote.options = append(append([]string{}, w.options...), "-oExitOnForwardFailure=yes", "-R", "0:"+greet.Addr().String())
		if r := remote.ssh(t, nil, "true"); r.code != 255 {
			t.Errorf("remote forwarding: %d", r.code)
		}
		if r := w.sftp(t, "pwd\n"); r.code == 0 {
			t.Error("sftp is served")
		}
		if r := w.ssh(t, nil, "echo here").must(t); r.stdout != "here\n" {
			t.Errorf("%q", r.stdout)
		}
	})
	t.Run("forced", func(t *testing.T) {
		w := viaWsproxy(id, startAgent(t, s, id, "--force-command", `echo "not: $SSH_ORIGINAL_COMMAND"; exit 3`).url)
		if r := w.ssh(t, nil, "rm", "-rf", "x"); r.code != 3 || r.stdout != "not: rm -rf x\n" {
			t.Errorf("%d %q", r.code, r.stdout)
		}
	})
}

// TestLeftBehind: what a session leaves under nohup lives as long as the agent,
// and what has detached itself lives on.
func TestLeftBehind(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url)
	r := w.ssh(t, nil, "nohup sleep 3600 >/dev/null 2>&1 & echo $!; setsid sleep 3600 >/dev/null 2>&1 & echo $!").must(t)
	pids := strings.Fields(r.stdout)
	if len(pids) != 2 {
		t.Fatalf("%q", r.stdout)
	}
	alive := func(i int) (int, bool) {
		pid, err := strconv.Atoi(pids[i])
		if err != nil {
			t.Fatal(err)
		}
		return pid, !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	w.ssh(t, nil, "true").must(t)
	for i, name := range []string{"nohup", "setsid"} {
		if _, ok := alive(i); !ok {
			t.Errorf("%s has not outlived its session", name)
		}
	}
	a.signal(syscall.SIGTERM)
	if code := a.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, a.out)
	}
	if pid, ok := alive(0); ok && !zombie(t, pid) {
		t.Error("nohup has outlived the agent")
	}
	pid, ok := alive(1)
	if !ok {
		t.Error("setsid has not outlived the agent")
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// zombie reports whether a process has ended, and only its new parent has not
// noticed yet.
func zombie(t *testing.T, pid int) bool {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ")
}
