//go:build !linux

package initd

// Run reports that this process is not the first one of a container, which only
// Linux has.
func Run() (code int, ran bool) { return 0, false }
