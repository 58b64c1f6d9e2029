package initd

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"example.com/converge/agent/internal/signals"
)

// cannotStart is the exit code where the program cannot be started once more.
const cannotStart = 126

// Run returns at once, with ran false, unless this is process 1. Otherwise it
// runs this program once more, with the same arguments, environment and streams,
// as its child, until that has ended; code is the child's exit code, or 128 and
// the number of the signal that killed it. Call it first thing in main, before
// any goroutine or child is started, and exit with code.
func Run() (code int, ran bool) {
	if os.Getpid() != 1 {
		return 0, false
	}
	code, err := supervise()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: cannot run as process 1: %v: mount /proc, or start the container with an init of its own\n",
			os.Args[0], err)
		return cannotStart, true
	}
	return code, true
}

// supervise starts the child and serves it. One goroutine both reaps and sends:
// no signal can go to a number that has been given away.
func supervise() (code int, err error) {
	// Both before the start, so that nothing is missed. Many children may end
	// for one SIGCHLD, and all of them are reaped for it.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	caught, stop := signals.Notify()
	defer stop()

	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	child, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", program, err)
	}
	for {
		select {
		case <-ended:
			if code, over := reap(child); over {
				return code, nil
			}
		case s := <-caught:
			if number, ok := s.(syscall.Signal); ok && !signals.Delivered(s) {
				_ = unix.Kill(child, number) // it is not reaped, so it is the child
			}
		}
	}
}

// reap takes the status of everybody who has ended, and returns the child's if
// it is among them.
func reap(child int) (code int, over bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err != nil || pid == 0:
			return code, over // nobody more has ended
		case pid == child:
			code, over = status.ExitStatus(), true
			if status.Signaled() {
				code = 128 + int(status.Signal())
			}
		}
	}
}
