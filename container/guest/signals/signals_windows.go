package signals

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/windows"

	"example.com/converge/container/guest/mode"
)

// names has what Windows knows. TERM is what Go makes of the events that close a
// console, end a session or shut the machine down.
var names = map[string]syscall.Signal{
	"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM,
}

// send ends the process for TERM and KILL. INT is the console event ctrl-break, which
// only a process group on the same console gets.
func send(pid int, sig syscall.Signal, group bool) error {
	if group || sig == syscall.SIGINT {
		if sig != syscall.SIGINT {
			return mode.Exit(exitNotSent, errors.New("failed to send signal (on Windows a process group gets INT only)"))
		}
		if err := windows.GenerateConsoleCtrlEvent(windows.CTRL_BREAK_EVENT, uint32(pid)); err != nil {
			return mode.Exit(exitNotSent, fmt.Errorf("failed to send signal (%w)", err))
		}
		return nil
	}
	process, err := windows.OpenProcess(windows.PROCESS_TERMINATE, false, uint32(pid))
	if errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
		return mode.Exit(exitNoProcess, fmt.Errorf("process not found (%d)", pid))
	}
	if err == nil {
		err = windows.TerminateProcess(process, uint32(128+sig))
		_ = windows.CloseHandle(process)
	}
	if err != nil {
		return mode.Exit(exitNotSent, fmt.Errorf("failed to send signal (%w)", err))
	}
	return nil
}

// wait returns when one of the signals has come.
func wait(waited []os.Signal) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, waited...)
	defer signal.Stop(caught)
	<-caught
}
