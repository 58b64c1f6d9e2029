//go:build unix

package front

import "golang.org/x/sys/unix"

// FileLimit returns how many files the process may have open. The Go runtime
// has raised the soft limit to the hard one at start.
func FileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur)
}
