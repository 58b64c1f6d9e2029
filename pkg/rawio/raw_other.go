//go:build !unix

package rawio

import (
	"errors"
	"os"
	"syscall"
)

const available = false

// ErrWouldBlock says that a descriptor is not ready.
var ErrWouldBlock = errors.New("the descriptor is not ready")

// Read is not to be had here.
func Read(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Write is not to be had here.
func Write(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

// Widen does nothing: the system knows no sizes of pipes.
func Widen(*os.File, int) {}

func nonblocking(syscall.RawConn) bool { return false }
