package signals

import (
	"os"
	"os/signal"
)

// Notify catches Ctrl-C, so that the parent outlives its child. There is nothing
// to pass on: the console tells everybody.
func Notify() (caught <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	if !signal.Ignored(os.Interrupt) {
		signal.Notify(c, os.Interrupt)
	}
	return c, func() { signal.Stop(c) }
}

// Delivered is always true: the console has told the child.
func Delivered(os.Signal) bool { return true }
