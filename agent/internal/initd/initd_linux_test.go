package initd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// script makes this test binary the first process of a container that wraps the
// shell script that it holds.
const script = "CONVERGE_INITD_TEST"

func TestMain(m *testing.M) {
	line := os.Getenv(script)
	if line == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if code, ran := Run(); ran {
		os.Exit(code)
	}
	// The program that the init runs: it waits for a child of its own, whose
	// status nobody may take away.
	cmd := exec.Command("/bin/sh", "-c", line)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signaled() {
		// Die as it did.
		_ = syscall.Kill(os.Getpid(), status.Signal())
		select {}
	}
	os.Exit(cmd.ProcessState.ExitCode())
}

// patience bounds every wait; it decides no test that is right.
const patience = 2 * time.Minute

// container starts this binary as process 1 of a process namespace.
func container(t *testing.T, line string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	args := []string{"--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "unshare", append(args, os.Args[0])...)
	cmd.Env = append(os.Environ(), script+"="+line)
	return cmd
}

// run returns what a script printed, and the exit code.
func run(t *testing.T, line string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	cmd := container(t, line)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// A thousand double-forked orphans are reaped, and the status of the command is
// not lost among theirs.
func TestOrphans(t *testing.T) {
	count := filepath.Join(t.TempDir(), "count")
	// The subshell in the middle ends at once. Then the processes are looked at
	// until there are three left: the init, the program and this shell.
	out, code := run(t, `
		i=0
		while [ $i -lt 1000 ]; do
			( ( echo x >> `+count+`; exit 3 ) & )
			i=$((i+1))
		done
		left=1
		while [ $left != 0 ]; do
			left=0
			for p in /proc/[0-9]*; do
				case ${p#/proc/} in 1|$$|$PPID) continue ;; esac
				[ -e $p ] && left=$((left+1))
			done
		done
		echo nobody left
		exit 42`)
	if code != 42 || out != "nobody left\n" {
		t.Errorf("exit code %d, %q", code, out)
	}
	lines, err := os.ReadFile(count)
	if err != nil || len(lines) != 2*1000 {
		t.Errorf("%d orphans ran, %v", len(lines)/2, err)
	}
}

func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{"true": 0, "exit 1": 1, "exit 255": 255, "kill -TERM $$": 143, "kill -KILL $$": 137} {
		if out, code := run(t, line); code != want || out != "" {
			t.Errorf("%s: exit code %d, %q, want %d", line, code, out, want)
		}
	}
}

// The init passes signals on, also those that the kernel would keep from process
// 1, and ends with its child.
func TestSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			stdout, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer stdout.Close()
			// The program, which has no handler, dies; its command does with
			// the namespace. unshare passes nothing on, so that process 1 is
			// looked up among its children.
			cmd := container(t, "echo ready; exec sleep 1000")
			cmd.Stdout = w
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
				t.Errorf("%q, %v", line, err)
			}
			pid := cmd.Process.Pid
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
			if err != nil {
				t.Fatal(err)
			}
			first, err := strconv.Atoi(strings.TrimSpace(string(children)))
			if err != nil {
				t.Fatalf("the children of unshare are %q", children)
			}
			if err := syscall.Kill(first, s); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); code != 128+int(s) {
				t.Errorf("exit code %d, want %d", code, 128+int(s))
			}
		})
	}
}

// Anywhere else it is nothing.
func TestNotFirst(t *testing.T) {
	if code, ran := Run(); ran || code != 0 {
		t.Errorf("process %d took itself for the first one", os.Getpid())
	}
}
