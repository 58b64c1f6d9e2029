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
	// bulkMost is that of a write that several packets are joined into: 128
	// KiB of data and what is around it.
	bulkMost = 128<<10 + 512
	// joinWait is how long something is held back. The rest of a packet comes
	// at once, unless the packet has exactly the buffer's size, and so does the
	// next packet, unless the client's window is used up.
	joinWait = time.Millisecond
)

// joiner is a transport whose Write sends an SSH packet at once, and between
// cork and uncork several. With AES-GCM and AES-CTR the library sends each
// large packet in two pieces, which would be two system calls, and on a
// websocket two frames to mask, to relay and to unmask; and every one of them
// wakes the relay, which wakes the client.
type joiner struct {
	net.Conn

	mu     sync.Mutex
	corks  int
	loose  bool    // something was held back in vain since the last cork
	held   []byte  // what is to be sent with what comes next
	memory *[]byte // pooled, that of held while it is for several packets
	timer  *time.Timer
	err    error // of a write that nobody has heard of
	closed bool
	// wg counts the timer, while it runs, and its goroutine.
	wg sync.WaitGroup
}

// bulks are shared by all connections: those that move little hold none.
var bulks = sync.Pool{New: func() any {
	b := make([]byte, 0, bulkMost)
	return &b
}}

// cork has packets gathered, until uncork is called as often, or one has waited
// in vain: whoever has the cork may wait for the client, and others' packets,
// such as the echo of a key, must not wait with it.
func (j *joiner) cork() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.corks++
	j.loose = false
}

// uncork sends what has been gathered. Its error is that of the next Write.
func (j *joiner) uncork() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.corks--; j.corks == 0 && len(j.held) > 0 && !j.closed && j.err == nil {
		j.err = j.flush()
	}
}

// Write sends, or holds back. An error may concern what was held back.
func (j *joiner) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return 0, net.ErrClosed
	case j.err != nil:
		return 0, j.err
	}
	gather, most := j.corks > 0 && !j.loose, joinedMost
	if gather {
		most = bulkMost
	}
	if len(j.held) > 0 {
		if len(j.held)+len(p) <= most {
			j.held = append(j.held, p...)
			if gather {
				return len(p), nil
			}
			return len(p), j.flush()
		}
		if err := j.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) == libraryBuffer || gather && len(p) <= most {
		j.hold(p, gather)
		return len(p), nil
	}
	return j.Conn.Write(p)
}

// hold keeps something until more comes, or the time is over. The caller holds
// mu.
func (j *joiner) hold(p []byte, gather bool) {
	switch {
	case gather:
		j.memory = bulks.Get().(*[]byte)
		j.held = *j.memory
	case j.held == nil:
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
		j.loose = true
		j.err = j.flush()
	}
}

// flush sends what is held. The caller holds mu.
func (j *joiner) flush() error {
	if j.timer.Stop() {
		j.wg.Done()
	}
	_, err := j.Conn.Write(j.held)
	j.held = j.held[:0]
	if j.memory != nil {
		bulks.Put(j.memory)
		j.memory, j.held = nil, nil
	}
	return err
}

// Close closes the transport at once: what is held is the middle of a packet,
// or of output that its writer has not finished.
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
