//go:build unix

package child

import (
	"os"
	"os/exec"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// run starts the command and waits for its end. It does not use cmd.Wait, which
// hears nothing of stops.
func run(cmd *exec.Cmd) (int, error) {
	// What the terminal sends to both stops or interrupts the command alone, and
	// this process as it did the command: so a shell sees the one as it would
	// see the other. They are caught, not ignored, for the command would inherit
	// that.
	caught := make(chan os.Signal, 8)
	for _, s := range []os.Signal{
		unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU,
	} {
		if !signal.Ignored(s) { // nohup's is to stay so for the command
			signal.Notify(caught, s)
		}
	}
	defer signal.Stop(caught)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid := cmd.Process.Pid
	defer func() { _ = cmd.Process.Release() }()
	over := make(chan struct{})
	var passing sync.WaitGroup
	defer passing.Wait()
	defer close(over)
	passing.Go(func() {
		for {
			select {
			case s := <-caught:
				switch s {
				case unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
				default:
					_ = cmd.Process.Signal(s)
				}
			case <-over:
				return
			}
		}
	})
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, os.NewSyscallError("wait", err)
		case status.Exited():
			return status.ExitStatus(), nil
		case status.Signaled():
			return 128 + int(status.Signal()), nil
		case status.Stopped():
			_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
			_ = unix.Kill(pid, unix.SIGCONT)
		}
	}
}
