// Package filelock keeps processes out of each other's way by a lock on a file,
// which ends with the process that holds it, however that ends. It knows nothing
// of what the lock is for.
package filelock

import (
	"errors"
	"os"
)

// ErrLocked says that another process, or another Lock of this one, has it.
var ErrLocked = errors.New("another process has it locked")

// Lock waits until nobody else has the file locked. The file is made, with mode
// 0600, where it is missing; it stays, since removing it would let two in. Closing
// what is returned unlocks it, and so does the end of the process and of all
// children that inherited it.
func Lock(path string) (*os.File, error) { return open(path, true) }

// Try is Lock without waiting: the error is ErrLocked if somebody else has it.
func Try(path string) (*os.File, error) { return open(path, false) }

func open(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(f, wait); err != nil {
		_ = f.Close()
		return nil, &os.PathError{Op: "lock", Path: path, Err: err}
	}
	return f, nil
}
