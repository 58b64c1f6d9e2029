//go:build unix && !linux

package rawio

import (
	"errors"
	"os"
	"syscall"
)

const available = false

// ErrWouldBlock says that a descriptor is not ready.
var ErrWouldBlock error = syscall.EAGAIN

// Read reads what is there from a descriptor in nonblocking mode; 0 bytes are
// the end.
func Read(fd uintptr, b []byte) (int, error) { return call(syscall.Read, "read", fd, b) }

// Write writes what fits to a descriptor in nonblocking mode.
func Write(fd uintptr, b []byte) (int, error) { return call(syscall.Write, "write", fd, b) }

func call(f func(int, []byte) (int, error), name string, fd uintptr, b []byte) (int, error) {
	for {
		n, err := f(int(fd), b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, syscall.EAGAIN):
			return 0, ErrWouldBlock
		case !errors.Is(err, syscall.EINTR):
			return 0, os.NewSyscallError(name, err)
		}
	}
}

// Widen does nothing: the system knows no sizes of pipes.
func Widen(*os.File, int) {}

func nonblocking(syscall.RawConn) bool { return false }
