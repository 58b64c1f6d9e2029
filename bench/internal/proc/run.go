//go:build linux

package proc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"example.com/converge/bench/internal/child"
)

// Command is a program that is run to its end.
type Command struct {
	// Args are the program and its arguments.
	Args []string
	// Stdin is given to it; nil is nothing.
	Stdin []byte
}

// Run runs a command, whose output goes to the null device, and returns what
// it and all its descendants used. A status other than 0 is an error, and so
// is the end of ctx, at which the command and its group are killed.
func Run(ctx context.Context, c Command) (child.Usage, error) {
	self, err := os.Executable()
	if err != nil {
		return child.Usage{}, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return child.Usage{}, err
	}
	defer read.Close()
	var diag bytes.Buffer
	cmd := exec.CommandContext(ctx, self, append([]string{child.Arg, "reap"}, c.Args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	cmd.Stdin = bytes.NewReader(c.Stdin)
	cmd.Stderr = &diag
	cmd.ExtraFiles = []*os.File{write}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return child.Usage{}, err
	}
	var usage child.Usage
	// The end of the pipe is that of all who hold it: of the whole command.
	decodeErr := json.NewDecoder(read).Decode(&usage)
	err = cmd.Wait()
	name := filepath.Base(c.Args[0])
	switch {
	case ctx.Err() != nil:
		return usage, fmt.Errorf("%s: %w: %s", name, ctx.Err(), lastLines(diag.String()))
	case err != nil:
		return usage, fmt.Errorf("%s: %w: %s", name, err, lastLines(diag.String()))
	case decodeErr != nil:
		return usage, fmt.Errorf("%s: cannot read its usage: %w", name, decodeErr)
	case usage.Code != 0:
		return usage, fmt.Errorf("%s ended with status %d: %s", name, usage.Code, lastLines(diag.String()))
	}
	return usage, nil
}
