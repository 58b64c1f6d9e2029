package mux

import (
	"fmt"
	"io"
	"sync"
	"time"

	"example.com/converge/container/guest/wire"
)

const (
	// dataLimit is how much may wait to be written before data have to wait, and
	// controlLimit before everything has to: bytes. What a peer that does not read
	// makes us answer is bounded by that.
	dataLimit    = 64 << 10
	controlLimit = 1 << 20
)

// output writes packets in the order in which they come. Whoever answers a packet
// of the peer's need not wait for the peer to read, or two ends that both write
// would wait for each other.
type output struct {
	done chan struct{} // closed when the writer has ended

	mu      sync.Mutex
	changed *sync.Cond
	buf     []byte
	closed  bool
	err     error
}

func newOutput(w io.Writer) *output {
	o := &output{done: make(chan struct{})}
	o.changed = sync.NewCond(&o.mu)
	go o.run(w)
	return o
}

// run is the writer. It ends after close, as soon as its last write returns.
func (o *output) run(w io.Writer) {
	defer close(o.done)
	var spare []byte
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for len(o.buf) == 0 && !o.closed {
			o.changed.Wait()
		}
		if len(o.buf) == 0 || o.err != nil {
			return
		}
		full := o.buf
		o.buf = spare[:0]
		o.changed.Broadcast()
		o.mu.Unlock()
		_, err := w.Write(full)
		if spare = full; cap(spare) > 2*dataLimit {
			spare = nil // a burst is no reason to keep so much
		}
		o.mu.Lock()
		if err != nil {
			o.err = fmt.Errorf("write to the other end: %w", err)
			o.changed.Broadcast()
		}
	}
}

func (o *output) data(p wire.Packet) error    { return o.add(p, dataLimit) }
func (o *output) control(p wire.Packet) error { return o.add(p, controlLimit) }

// add appends a packet once less than limit waits.
func (o *output) add(p wire.Packet, limit int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.buf) >= limit && o.err == nil && !o.closed {
		o.changed.Wait()
	}
	switch {
	case o.err != nil:
		return o.err
	case o.closed:
		return ErrEnded
	}
	o.buf = p.Append(o.buf)
	o.changed.Broadcast()
	return nil
}

// close refuses more packets and waits a while for those that are yet to be
// written. A write that takes longer is left behind: only closing what it writes
// to would end it.
func (o *output) close() {
	o.mu.Lock()
	o.closed = true
	o.changed.Broadcast()
	o.mu.Unlock()
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	select {
	case <-o.done:
	case <-timer.C:
	}
}
