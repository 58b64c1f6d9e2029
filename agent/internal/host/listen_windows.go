package host

import "net"

// hasAgents says whether programs find a key agent at a socket: the programs of this
// platform look for theirs at a named pipe.
const hasAgents = false

// listenSocket makes a socket, with the access rights of its folder. It is
// removed when the listener is closed.
func listenSocket(path string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
