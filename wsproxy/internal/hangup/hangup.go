// Package hangup notices that nobody reads a program's output any more, also
// while it has nothing to write. Without that a proxy whose ssh was killed
// would stay for as long as somebody else holds its input open.
package hangup

import (
	"io"
	"os"
)

// Watch returns a channel that is closed when w, if it is a pipe, socket or
// terminal, has lost its reader, and a function that ends the watch and waits
// for it. Where the platform has no means the channel is never closed, and the
// next write tells.
func Watch(w io.Writer) (broken <-chan struct{}, release func()) {
	lost := make(chan struct{})
	f, ok := w.(*os.File)
	if !ok {
		return lost, func() {}
	}
	return lost, watch(f, lost)
}
