//go:build !unix

package frame

import (
	"errors"
	"net"
	"syscall"
)

var errWouldBlock = errors.New("the descriptor is not ready")

// rawConn returns nil: readiness is not to be had here.
func rawConn(net.Conn) syscall.RawConn { return nil }

func readFD(uintptr, []byte) (int, error)  { return 0, errors.ErrUnsupported }
func writeFD(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }
