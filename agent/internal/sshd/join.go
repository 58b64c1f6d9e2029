package sshd

import (
	"net"
	"sync"
	"time"
)

const (
	// libraryBuffer is the size of the SSH library's buffer for writing. A
	// packet that exceeds it comes in two writes, of which the first fills it.
	libraryBuffer = 4 << 10
	// joinedMost is the size of a write that a packet is joined into. Packets
	// have 32 KiB of data at most.
	joinedMost = 36 << 10
	// joinWait is how long a full buffer is held back. The rest of its packet
	// comes at once, unless the packet has exactly the buffer's size.
	joinWait = time.Millisecond
)

// joiner is a transport whose Write sends an SSH packet at once. With AES-GCM
// and AES-CTR the library sends each large packet in two pieces, which would
// be two system calls, and on a websocket two frames to mask, to relay and to
// unmask.
type joiner struct {
	net.Conn

	mu     sync.Mutex
	held   []byte // the first piece of a packet
	timer  *time.Timer
	err    error // of a write that nobody has heard of
	closed bool
	// wg counts the timer, while it runs, and its goroutine.
	wg sync.WaitGroup
}

// Write sends, or holds the first piece of a packet back. An error may concern
// what was held back.
func (j *joiner) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return 0, net.ErrClosed
	case j.err != nil:
		return 0, j.err
	case len(j.held) > 0:
		if j.timer.Stop() {
			j.wg.Done()
		}
		if len(j.held)+len(p) <= joinedMost {
			j.held = append(j.held, p...)
			return len(p), j.flush()
		}
		if err := j.flush(); err != nil {
			return 0, err
		}
	case len(p) == libraryBuffer:
		j.hold(p)
		return len(p), nil
	}
	return j.Conn.Write(p)
}

// hold keeps a piece until the next one comes, or the time is over. The caller
// holds mu.
func (j *joiner) hold(p []byte) {
	if j.held == nil {
		j.held = make([]byte, 0, joinedMost)
	}
	j.held = append(j.held, p...)
	j.wg.Add(1)
	if j.timer == nil {
		j.timer = time.AfterFunc(joinWait, j.expire)
		return
	}
	// It runs still if an expire that came late has sent what it was for.
	if j.timer.Reset(joinWait) {
		j.wg.Done()
	}
}

// expire sends what has waited in vain.
func (j *joiner) expire() {
	defer j.wg.Done()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.closed && len(j.held) > 0 && j.err == nil {
		j.err = j.flush()
	}
}

// flush sends what is held. The caller holds mu.
func (j *joiner) flush() error {
	_, err := j.Conn.Write(j.held)
	j.held = j.held[:0]
	return err
}

// Close closes the transport at once: what is held is the middle of a packet.
func (j *joiner) Close() error {
	err := j.Conn.Close() // ends a write, too
	j.mu.Lock()
	if !j.closed {
		j.closed = true
		if j.timer != nil && j.timer.Stop() {
			j.wg.Done()
		}
	}
	j.mu.Unlock()
	j.wg.Wait()
	return err
}
