//go:build unix

package frame

import (
	"net"
	"syscall"
)

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
