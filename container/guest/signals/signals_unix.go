//go:build unix

package signals

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/converge/container/guest/mode"
)

var names = map[string]syscall.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE, "HUP": unix.SIGHUP,
	"ILL": unix.SIGILL, "INT": unix.SIGINT, "KILL": unix.SIGKILL, "PIPE": unix.SIGPIPE,
	"QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1,
	"USR2": unix.SIGUSR2,
}

// send calls kill itself: package os goes by a handle of the process, and hides by
// which error it failed.
func send(pid int, sig syscall.Signal, group bool) error {
	to, what := pid, "process"
	if group {
		to, what = -pid, "process group"
	}
	err := unix.Kill(to, sig)
	switch {
	case errors.Is(err, unix.ESRCH):
		return mode.Exit(exitNoProcess, fmt.Errorf("%s not found (%d)", what, pid))
	case err != nil:
		return mode.Exit(exitNotSent, fmt.Errorf("failed to send signal (%w)", err))
	}
	return nil
}

// wait returns when one of the signals has come.
func wait(waited []os.Signal) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, waited...)
	defer signal.Stop(caught)
	if os.Getpid() == 1 {
		// The kernel spares process 1 the signals that it does not handle, but Go
		// handles them all, and would end.
		for _, sig := range names {
			if sig != unix.SIGKILL && !slices.Contains(waited, os.Signal(sig)) {
				signal.Ignore(sig)
			}
		}
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGCHLD)
	defer signal.Stop(ended)
	for {
		reap() // also those who have ended before
		select {
		case <-caught:
			return
		case <-ended:
		}
	}
}

// reap takes the status of every child that has ended.
func reap() {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if err != unix.EINTR && (err != nil || pid == 0) {
			return
		}
	}
}
