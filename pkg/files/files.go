// Package files reads files that somebody else has written, within a limit. It
// knows nothing of what is in them.
package files

import (
	"errors"
	"fmt"
	"io"
	"os"
)

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
	text, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) > limit {
		return nil, fmt.Errorf("%s is larger than %d KiB: %w", path, limit>>10, ErrTooLarge)
	}
	return text, nil
}
