//go:build linux || darwin

package job

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// killedBy returns the signal that ended a process; 0 if none did.
func killedBy(state *os.ProcessState) (number int, name string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, ""
	}
	if name = unix.SignalName(status.Signal()); name == "" {
		name = fmt.Sprintf("signal %d", int(status.Signal()))
	}
	return int(status.Signal()), name
}
