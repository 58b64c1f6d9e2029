// Package winproc starts programs on Windows as the agent's sessions need
// them: with pipes or on a pseudo console, in a job object from their first
// instruction on, and called as each shell wants it.
//
// It must know nothing of SSH. What needs no Windows is apart from what does
// (the files *_windows.go), so that the tests of any platform cover it.
package winproc

import (
	"math"
	"os"
	"sync"
)

// The size of a console whose client does not know its own.
const (
	defaultCols = 80
	defaultRows = 25
)

// device is a pseudo console of the system.
type device interface {
	// resize sets the size in cells.
	resize(cols, rows int16) error
	// close ends those who are still on the console, and then its output. It
	// may wait until somebody has read that output, or has closed it.
	close()
}

// Console is a pseudo console. Its methods may be called concurrently, and
// after its end.
type Console struct {
	// Input takes what is typed, Output gives what is shown, both UTF-8 and
	// the control sequences of a terminal. Whoever has the Console closes
	// them.
	Input, Output *os.File

	mu         sync.Mutex
	device     device // nil once it has ended
	cols, rows int16
}

// Resize sets the size in cells; 0 stands for 80 columns or 25 rows, and what
// is larger than a console can be for its largest. After End it does nothing.
func (c *Console) Resize(cols, rows uint16) error {
	w, h := cells(cols, defaultCols), cells(rows, defaultRows)
	c.mu.Lock()
	defer c.mu.Unlock()
	// The same size once more would have the console paint all of it again.
	if c.device == nil || w == c.cols && h == c.rows {
		return nil
	}
	if err := c.device.resize(w, h); err != nil {
		return err
	}
	c.cols, c.rows = w, h
	return nil
}

// End closes the console, once. It is to be called when the program on it has
// ended: the output of a pseudo console does not end with its programs. What
// they have written can still be read from Output, and then comes io.EOF. End
// may not return before somebody has read that far or closed Output.
func (c *Console) End() {
	c.mu.Lock()
	ending := c.device
	c.device = nil
	c.mu.Unlock()
	if ending != nil {
		// Not under the lock: a resize never waits for a reader.
		ending.close()
	}
}

// cells fits a number into what a console takes.
func cells(n uint16, none int16) int16 {
	if n == 0 {
		return none
	}
	return int16(min(n, math.MaxInt16))
}
