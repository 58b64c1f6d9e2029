//go:build !linux

package container

import (
	"errors"
	"os"
	"runtime"
	"strconv"
	"syscall"
)

// self describes this process. When it started is not told here: where another
// process has got the number of one that was killed, its containers are not swept.
func self() owner {
	host, _ := os.Hostname()
	return owner{machine: host, space: runtime.GOOS, pid: strconv.Itoa(os.Getpid())}
}

// processStart tells whether a process exists; when in doubt, it does.
func processStart(pid string) (start string, exists bool) {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return "", true
	}
	p, err := os.FindProcess(n)
	if err != nil {
		return "", !isNoProcess(err)
	}
	defer func() { _ = p.Release() }()
	if runtime.GOOS == "windows" {
		return "", true
	}
	err = p.Signal(syscall.Signal(0))
	return "", !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH)
}

// isNoProcess reports whether Windows means that no process has the number, which it
// says by ERROR_INVALID_PARAMETER. One that may not be looked at is there.
func isNoProcess(err error) bool { return errors.Is(err, syscall.Errno(87)) }
