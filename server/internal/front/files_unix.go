//go:build unix

package front

import "golang.org/x/sys/unix"

// FileLimit raises the soft limit of open files to the hard one, as far as the
// system lets it, and returns what holds then. (The Go runtime does the same
// at start; whoever has lowered it since is overruled.)
func FileLimit() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	if limit.Cur < limit.Max {
		raised := unix.Rlimit{Cur: limit.Max, Max: limit.Max}
		if unix.Setrlimit(unix.RLIMIT_NOFILE, &raised) == nil {
			limit = raised
		}
	}
	return uint64(limit.Cur)
}
