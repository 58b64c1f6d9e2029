// Package pipe makes the pipes between a program and its parent hold more, so
// that neither has to be woken for every 64 KiB. It knows nothing of what goes
// through them.
package pipe

import "os"

// Size is what a pipe holds after Widen, in bytes: four times as much as by
// itself. Of what fills it the system takes memory only for what is there, and
// more of it would only be a longer queue before a keystroke.
const Size = 256 << 10

// Widen makes f, if it is a pipe that holds less than Size, hold that. It is a
// help and no more: where f is something else, the system knows no sizes, or
// the user's share of them is used up, everything stays as it was.
func Widen(f any) {
	if file, ok := f.(*os.File); ok {
		widen(file)
	}
}
