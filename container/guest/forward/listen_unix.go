//go:build unix

package forward

import (
	"net"

	"golang.org/x/sys/unix"
)

// listenUnix listens on a socket that only its owner can connect to, as OpenSSH's
// are by default (StreamLocalBindMask). The mask is the whole process's, for which
// nothing else runs yet.
func listenUnix(path string) (net.Listener, error) {
	before := unix.Umask(0o177)
	defer unix.Umask(before)
	return net.Listen("unix", path)
}
