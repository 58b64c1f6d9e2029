package container

import "time"

// SetTunnelGrace changes what a forward server has to end, and returns what changes
// it back.
func SetTunnelGrace(d time.Duration) (restore func()) {
	was := tunnelGrace
	tunnelGrace = d
	return func() { tunnelGrace = was }
}
