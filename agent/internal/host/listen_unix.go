//go:build linux || darwin

package host

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// hasAgents says whether programs find a key agent at a socket.
const hasAgents = true

// listenSocket makes a socket that only this account can connect to. It is
// removed when the listener is closed. As OpenSSH by default
// (StreamLocalBindUnlink no), it replaces nothing that is there.
func listenSocket(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// On Linux the file gets its mode from the descriptor, so that it is
		// never open to others. Where this is refused, chmod closes it.
		return raw.Control(func(fd uintptr) { _ = unix.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l.(*net.UnixListener), nil
}
