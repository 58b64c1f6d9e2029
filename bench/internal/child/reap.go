//go:build linux

package child

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a command used.
type Usage struct {
	// Wall is the time from its start to its own end.
	Wall time.Duration
	// CPU is the time of it and of all its descendants, also of those that
	// lost their parent: getrusage(2) of the children.
	CPU time.Duration
	// Code is its exit status, or 128 and the signal.
	Code int
}

// reap runs a command and accounts for everything that it started. ssh does
// not wait for its ProxyCommand, whose time would count for nobody: so orphans
// come here, and the wrapper ends when the last of them has.
func reap(args []string) int {
	usage, err := reapCommand(args)
	if err == nil {
		err = json.NewEncoder(os.NewFile(3, "usage")).Encode(usage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func reapCommand(args []string) (Usage, error) {
	if len(args) == 0 {
		return Usage{}, errors.New("reap needs a command")
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return Usage{}, fmt.Errorf("cannot become the reaper of orphans: %w", err)
	}
	name, err := exec.LookPath(args[0])
	if err != nil {
		return Usage{}, err
	}
	syscall.CloseOnExec(3) // it is not the command's
	var usage Usage
	start := time.Now()
	process, err := os.StartProcess(name, args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return Usage{}, err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD):
			var all unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &all); err != nil {
				return Usage{}, err
			}
			usage.CPU = time.Duration(all.Utime.Nano() + all.Stime.Nano())
			return usage, nil
		case err != nil:
			return Usage{}, fmt.Errorf("cannot wait for the command: %w", err)
		case pid == process.Pid:
			usage.Wall = time.Since(start)
			usage.Code = status.ExitStatus()
			if status.Signaled() {
				usage.Code = 128 + int(status.Signal())
			}
		}
	}
}
