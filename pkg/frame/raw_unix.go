//go:build unix

package frame

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// errWouldBlock says that a descriptor is not ready.
var errWouldBlock error = syscall.EAGAIN

// rawConn returns the descriptor of a connection that has one, so that nothing
// lies between it and the kernel: TLS has none.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readFD reads what is there.
func readFD(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Read(int(fd), b)
		if err == nil || errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		if !errors.Is(err, syscall.EINTR) {
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// writeFD writes what fits.
func writeFD(fd uintptr, b []byte) (int, error) {
	for {
		n, err := syscall.Write(int(fd), b)
		if err == nil || errors.Is(err, syscall.EAGAIN) {
			return n, err
		}
		if !errors.Is(err, syscall.EINTR) {
			return 0, os.NewSyscallError("write", err)
		}
	}
}
