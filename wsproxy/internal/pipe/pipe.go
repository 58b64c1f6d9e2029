// Package pipe prepares the pipes between a program and its parent: it makes
// them hold more, so that neither has to be woken for every 64 KiB, and has
// this end read and written without blocking a thread. It knows nothing of
// what goes through them.
package pipe

import (
	"io"
	"os"

	"example.com/converge/pkg/rawio"
)

// Size is what a pipe holds after Widen, in bytes: four times as much as by
// itself. Of what fills it the system takes memory only for what is there, and
// more of it would only be a longer queue before a keystroke.
const Size = 256 << 10

// Widen makes f, if it is a pipe that holds less than Size, hold that. It is a
// help and no more: where f is something else, the system knows no sizes, or
// the user's share of them is used up, everything stays as it was.
func Widen(f any) {
	if file, ok := f.(*os.File); ok {
		rawio.Widen(file, Size)
	}
}

// In returns r for reading without blocking, if it is a pipe. The second result
// reports whether it is, and that it can be read so; if not, the first is r.
//
// The mode is one of the open file, and others may have the same one, such as
// the shell that started this program. So the pipe is opened once more, for
// the program's life.
func In(r io.Reader) (io.Reader, bool) {
	if file, ok := r.(*os.File); ok {
		if again := reopen(file, os.O_RDONLY); again != nil {
			return again, true
		}
	}
	return r, false
}

// Out is In for writing.
func Out(w io.Writer) (io.Writer, bool) {
	if file, ok := w.(*os.File); ok {
		if again := reopen(file, os.O_WRONLY); again != nil {
			return again, true
		}
	}
	return w, false
}
