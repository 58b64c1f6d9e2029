package clitest

import (
	"bytes"
	"sync"
)

// Output keeps what a process prints, and wakes who waits for more. Make it by
// NewOutput. Its methods may be called concurrently.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

// NewOutput returns one that is empty.
func NewOutput() *Output { return &Output{more: make(chan struct{})} }

// Write implements io.Writer; it does not fail.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(p)
	close(o.more)
	o.more = make(chan struct{})
	return len(p), nil
}

// Now is all that was printed, and is closed when there is more.
func (o *Output) Now() (text string, more <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.more
}
