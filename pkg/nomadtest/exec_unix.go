//go:build unix

package nomadtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Exec runs a script as the raw_exec driver would.
type Exec struct {
	// Command is the program and its arguments.
	Command []string
	// Env is the environment beside Nomad's own.
	Env []string
	// Dir holds the allocations' folders.
	Dir string
	// Payload is the payload's file in local/; payload where it is "".
	Payload string
}

// Run is for Nomad.RunScripts. At the end of ctx the script and all that it
// started gets SIGINT, and ten seconds later SIGKILL.
func (e Exec) Run(ctx context.Context, t Task) int {
	task := filepath.Join(e.Dir, t.AllocID, "executor")
	local, secrets, alloc, tmp := filepath.Join(task, "local"), filepath.Join(task, "secrets"), filepath.Join(e.Dir, t.AllocID, "alloc"), filepath.Join(task, "tmp")
	for _, dir := range []string{local, secrets, alloc, tmp} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			fmt.Fprintln(t.Stderr, err)
			return 1
		}
	}
	name := e.Payload
	if name == "" {
		name = "payload"
	}
	if len(t.Payload) > 0 { // without one Nomad makes no file
		if err := os.WriteFile(filepath.Join(local, name), t.Payload, 0o600); err != nil {
			fmt.Fprintln(t.Stderr, err)
			return 1
		}
	}
	cmd := exec.CommandContext(ctx, e.Command[0], e.Command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = task, t.Stdout, t.Stderr
	cmd.Env = append(append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + task}, t.Environment()...),
		"NOMAD_TASK_DIR="+local, "NOMAD_SECRETS_DIR="+secrets, "NOMAD_ALLOC_DIR="+alloc, "TMPDIR="+tmp)
	cmd.Env = append(cmd.Env, e.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // nothing outlives its task
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	fmt.Fprintln(t.Stderr, err)
	return 127
}
