package rawio

import (
	"os"
	"syscall"
	"unsafe"
)

// available says whether there are calls that the scheduler is not told of.
const available = true

// ErrWouldBlock says that a descriptor is not ready.
var ErrWouldBlock error = syscall.EAGAIN

// Read reads what is there from a descriptor in nonblocking mode; 0 bytes are
// the end.
func Read(fd uintptr, b []byte) (int, error) { return call(syscall.SYS_READ, "read", fd, b) }

// Write writes what fits to a descriptor in nonblocking mode.
func Write(fd uintptr, b []byte) (int, error) { return call(syscall.SYS_WRITE, "write", fd, b) }

func call(trap uintptr, name string, fd uintptr, b []byte) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EAGAIN:
			return 0, ErrWouldBlock
		case syscall.EINTR:
		default:
			return 0, os.NewSyscallError(name, errno)
		}
	}
}

// Of fcntl(2), for pipes.
const (
	setPipeSize = 1031
	getPipeSize = 1032
)

// Widen makes f, if it is a pipe that holds less than size bytes, hold that. It
// is a help and no more: where f is something else, the system knows no sizes,
// or the user's share of them is used up, everything stays as it was.
func Widen(f *os.File, size int) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if now, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, getPipeSize, 0); errno == 0 && now < uintptr(size) {
			_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, fd, setPipeSize, uintptr(size))
		}
	})
}

// nonblocking reports whether a descriptor is in nonblocking mode.
func nonblocking(raw syscall.RawConn) bool {
	var flags uintptr
	err := raw.Control(func(fd uintptr) {
		var errno syscall.Errno
		if flags, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_GETFL, 0); errno != 0 {
			flags = 0
		}
	})
	return err == nil && flags&syscall.O_NONBLOCK != 0
}
