package resume

import (
	"net"
	"testing"

	"golang.org/x/net/nettest"
)

// TestConn checks the contract of net.Conn, from both ends.
func TestConn(t *testing.T) {
	a := newAgent(t, HubConfig{})
	for name, swap := range map[string]bool{"client": false, "agent": true} {
		t.Run(name, func(t *testing.T) {
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, server := a.open(Config{})
				stop = func() {
					_ = server.Close()
					_ = client.Close()
				}
				if swap {
					return server, client, stop, nil
				}
				return client, server, stop, nil
			})
		})
	}
}
