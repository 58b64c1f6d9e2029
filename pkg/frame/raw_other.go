//go:build !unix

package frame

import (
	"net"
	"syscall"
)

// rawConn returns nil: readiness is not to be had here.
func rawConn(net.Conn) syscall.RawConn { return nil }
