package servertest

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"sync"
)

// Output collects what a program prints, for a test to wait on. It is safe for
// concurrent use; the zero value is ready.
type Output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed, and replaced, at each Write; nil if nobody waits
}

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.changed != nil {
		close(o.changed)
		o.changed = nil
	}
	return o.buf.Write(p)
}

// String returns all that has been written so far.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Wait waits until what was written matches the pattern, and returns the match
// and its groups. The error tells what there is when ctx ends before.
func (o *Output) Wait(ctx context.Context, pattern string) ([]string, error) {
	want := regexp.MustCompile(pattern)
	for {
		o.mu.Lock()
		found := want.FindStringSubmatch(o.buf.String())
		if found == nil && o.changed == nil {
			o.changed = make(chan struct{})
		}
		changed := o.changed
		o.mu.Unlock()
		if found != nil {
			return found, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("no %q in %q: %w", pattern, o, context.Cause(ctx))
		}
	}
}
