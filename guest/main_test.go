package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// program is the built guest, as it is released; agent is the same under the name
// that the original's documents have.
var program, agent string

// TestMain builds guest: console replaces the process, the sizes are those of a
// release, and as process 1 there is nothing around it.
func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "guest")
	if err == nil {
		err = os.Chmod(folder, 0o755) // one test is another user
	}
	program, agent = filepath.Join(folder, "guest"), filepath.Join(folder, "agent")
	if err == nil {
		err = build(context.Background(), program)
	}
	if err == nil {
		err = os.Link(program, agent)
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	_ = os.RemoveAll(folder)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// build builds guest as scripts/release does, with more in the environment.
func build(ctx context.Context, to string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, ".")
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build guest %s: %w\n%s", env, err, out)
	}
	return nil
}

// command is guest with a time limit.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return limited(t, program, args...)
}

// limited is a program that is killed at the end of the test, or of our patience.
func limited(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = patience
	return cmd
}

// namespaced is guest, or a script for which it is $0, in a namespace of processes
// of its own, as process 1.
func namespaced(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	options := []string{"--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Geteuid() != 0 {
		options = append([]string{"--user", "--map-root-user"}, options...)
	}
	return limited(t, "unshare", append(append(options, "--"), args...)...)
}

func itoa(n int) string { return strconv.Itoa(n) }

// ended is how a command ended.
type ended struct {
	stdout, stderr string
	code           int
}

// run runs a command that reads stdin.
func run(t *testing.T, cmd *exec.Cmd, stdin string) ended {
	t.Helper()
	var out, diag bytes.Buffer
	if cmd.Stdin == nil {
		cmd.Stdin = strings.NewReader(stdin)
	}
	if cmd.Stdout == nil {
		cmd.Stdout = &out
	}
	cmd.Stderr = &diag
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ended{out.String(), diag.String(), cmd.ProcessState.ExitCode()}
}

// want checks how a command ended: what it printed, its exit code, and something
// that it said.
func (e ended) want(t *testing.T, stdout string, code int, said string) {
	t.Helper()
	if e.stdout != stdout || e.code != code || !strings.Contains(e.stderr, said) || said == "" && e.stderr != "" {
		t.Errorf("it printed %q, said %q and exited with %d,\nwant %q, %q and %d", e.stdout, e.stderr, e.code, stdout, said, code)
	}
}
