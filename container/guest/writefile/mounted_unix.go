//go:build unix

package writefile

import (
	"errors"

	"golang.org/x/sys/unix"
)

// isMountPoint tells that a file could not be replaced since it is one.
func isMountPoint(err error) bool { return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) }
