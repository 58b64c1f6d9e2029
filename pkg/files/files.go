// Package files reads files that somebody else has written, within a limit. It
// knows nothing of what is in them.
package files

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrNotRegular is in the error of ReadRegular for a pipe, a device or a folder.
var ErrNotRegular = errors.New("it is no regular file, which alone can be read again")

// ErrTooLarge is in the error of Read for a file beyond the limit.
var ErrTooLarge = errors.New("the file is too large")

// Read returns a whole file of limit bytes at most; one that is larger is
// refused after limit+1 bytes, so that a device or a pipe without end is, too. A
// pipe is allowed (<(command)), so the size is known only by reading. The errors
// name the file.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return read(f, path, limit)
}

// ReadRegular is Read for a regular file, or a link to one. Anything else is
// refused before it is opened, which for a pipe that nobody writes to would wait
// without end.
func ReadRegular(path string, limit int64) ([]byte, error) {
	if regular, err := Regular(path); err != nil {
		return nil, err
	} else if !regular {
		return nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	return Read(path, limit)
}

// Regular reports whether a path is a regular file, or a link to one.
func Regular(path string) (bool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	return info.Mode().IsRegular(), nil
}

// read reads an open file.
func read(f *os.File, path string, limit int64) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is larger than %d KiB: %w", path, limit>>10, ErrTooLarge)
	}
	return text, nil
}
