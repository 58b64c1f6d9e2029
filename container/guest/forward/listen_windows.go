package forward

import "net"

// listenUnix listens on a socket that inherits who may connect from its folder.
func listenUnix(path string) (net.Listener, error) {
	return net.Listen("unix", path)
}
