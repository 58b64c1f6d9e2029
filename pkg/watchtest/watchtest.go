// Package watchtest is how tests wait for what goes on beside them: for what is
// printed, which wakes them, and for what nobody tells, at which they look now and
// then. It is for tests: no program may contain it.
package watchtest

import (
	"bytes"
	"regexp"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait. It decides no test that is right: what is waited for
// takes milliseconds on an idle machine.
const Patience = 2 * time.Minute

// Output keeps what is written to it. The zero value is empty. Its methods may be
// called concurrently.
type Output struct {
	mu   sync.Mutex
	text bytes.Buffer
	over bool
	more chan struct{} // closed by the next change; nil if nobody waits
}

// Write implements io.Writer; it does not fail.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake()
	return o.text.Write(p)
}

// End says that nothing more is written: who waits has waited in vain.
func (o *Output) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over = true
	o.wake()
}

func (o *Output) wake() {
	if o.more != nil {
		close(o.more)
		o.more = nil
	}
}

// String is all that was written.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Await returns the submatches of the n-th match, from 1, of a regular expression,
// as soon as it is there.
func (o *Output) Await(t testing.TB, pattern string, n int) []string {
	t.Helper()
	form := regexp.MustCompile(pattern)
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for {
		o.mu.Lock()
		matches := form.FindAllStringSubmatch(o.text.String(), n)
		if o.more == nil {
			o.more = make(chan struct{})
		}
		more, over := o.more, o.over
		o.mu.Unlock()
		if len(matches) >= n {
			return matches[n-1]
		}
		if over {
			t.Fatalf("it ended without %d× %q:\n%s", n, pattern, o)
		}
		select {
		case <-more:
		case <-timeout.C:
			t.Fatalf("not within %v: %d× %q in\n%s", Patience, n, pattern, o)
		}
	}
}

// Expect waits for a text, and returns all that was written by then.
func (o *Output) Expect(t testing.TB, text string) string {
	t.Helper()
	o.Await(t, regexp.QuoteMeta(text), 1)
	return o.String()
}

// Eventually waits until something holds of which nobody tells when it does, as the
// kernel or another process does not. What says what that is.
func Eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	timeout := time.NewTimer(Patience)
	defer timeout.Stop()
	for !holds() {
		select {
		case <-look.C:
		case <-timeout.C:
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}
