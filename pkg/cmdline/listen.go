package cmdline

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// wsaAddrInUse is Windows' EADDRINUSE, which syscall names only there.
const wsaAddrInUse = syscall.Errno(10048)

// ListenError turns an error of net.Listen into a sentence. other says how to
// choose another port, such as "choose another with --listen".
func ListenError(address, other string, err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, wsaAddrInUse):
		return fmt.Errorf("cannot listen on %s: the port is in use: %s", address, other)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: not permitted: ports below 1024 need rights, so %s", address, other)
	case errors.As(err, &op) && op.Err != nil:
		return fmt.Errorf("cannot listen on %s: %w: %s", address, op.Err, other)
	}
	return fmt.Errorf("cannot listen on %s: %w: %s", address, err, other)
}
