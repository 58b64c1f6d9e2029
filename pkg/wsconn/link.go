package wsconn

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a link's buffer, in bytes.
const (
	// highWater is how much may be unsent when Write adds a message.
	highWater = MaxFrame
	// hardLimit is where nhooyr itself is made to wait. Only a peer gets
	// there that asks for answers (pings) and does not read them; nhooyr
	// gives it five seconds.
	hardLimit = 4 * MaxFrame
)

// closeTime bounds everything that happens at the end of a connection: the
// wait for the peer's close frame and the sending of what is left.
const closeTime = time.Second

// link is the connection as nhooyr sees it. Writes go to a buffer that one
// goroutine empties, started when there is something to send and ended when
// all is sent, so that nhooyr never waits for the network. Reads are counted.
type link struct {
	conn io.ReadWriteCloser // the hijacked connection or the response's body
	raw  net.Conn           // the lowest layer of it, for abort

	received atomic.Uint64 // grows with every sign of life

	mu      sync.Mutex
	room    sync.Cond // for writers at the hard limit
	sent    chan struct{}
	taken   uint64 // bytes, by Write
	written uint64 // of them, by send
	pending *buffer
	sending bool
	closing bool
	readErr error
	sendErr error
	timer   *time.Timer   // ends the wait of Close
	done    chan struct{} // closed when conn is
}

func newLink(conn io.ReadWriteCloser, raw net.Conn) *link {
	l := &link{conn: conn, raw: lowest(raw), sent: make(chan struct{}, 1), done: make(chan struct{})}
	l.room.L = &l.mu
	return l
}

// lowest finds the connection beneath TLS: closing that one never waits.
func lowest(conn net.Conn) net.Conn {
	for {
		wrapped, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = wrapped.NetConn()
	}
}

// Read reads for nhooyr.
func (l *link) Read(p []byte) (int, error) {
	n, err := l.conn.Read(p)
	if n > 0 {
		l.received.Add(uint64(n))
	}
	if err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.readErr == nil {
			l.readErr = err
		}
	}
	return n, err
}

// readError returns the first error of Read: the network's, never nhooyr's.
func (l *link) readError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readErr
}

// Write takes p into the buffer. It reports no failure to send: an answer that
// cannot be sent must not keep nhooyr from reading what has already arrived.
// Conn.Write learns of it from wait.
func (l *link) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.unsentLocked() >= hardLimit && !l.closing && l.sendErr == nil {
		l.room.Wait()
	}
	if l.closing {
		return 0, net.ErrClosed
	}
	if l.sendErr != nil {
		return len(p), nil
	}
	if l.pending == nil {
		l.pending = newBuffer()
	}
	l.pending.bytes = append(l.pending.bytes, p...)
	l.taken += uint64(len(p))
	if !l.sending {
		l.sending = true
		go l.send()
	}
	return len(p), nil
}

// send empties the buffer, and closes the connection if that is due then.
func (l *link) send() {
	l.mu.Lock()
	for l.pending != nil && l.sendErr == nil {
		out := l.pending
		l.pending = nil
		l.mu.Unlock()
		_, err := l.conn.Write(out.bytes)
		size := len(out.bytes)
		out.free()
		l.mu.Lock()
		if err != nil {
			l.sendErr = err
		} else {
			l.written += uint64(size)
		}
		l.changedLocked()
	}
	l.sending = false
	closing := l.closing
	l.mu.Unlock()
	if closing {
		l.finish()
	}
}

// unsentLocked is how much is in pending and on its way.
func (l *link) unsentLocked() int { return int(l.taken - l.written) }

// changedLocked wakes those who wait for the buffer.
func (l *link) changedLocked() {
	l.room.Broadcast()
	select {
	case l.sent <- struct{}{}:
	default:
	}
}

// wait returns when no more than limit bytes are unsent. It fails when sending
// has, at the deadline and when stop is closed. One caller at a time, of this
// and flush.
func (l *link) wait(limit int, expired, stop <-chan struct{}) error {
	return l.until(func() (bool, error) {
		switch {
		case l.sendErr != nil:
			return false, l.sendErr
		case l.closing && l.taken > l.written:
			return false, net.ErrClosed
		}
		return l.unsentLocked() <= limit, nil
	}, expired, stop)
}

// flush returns when all that has been taken by now is sent; see wait. A peer
// that takes the last of it and closes at once does not make it fail: what comes
// after, our answer to its close frame, is not waited for.
func (l *link) flush(expired, stop <-chan struct{}) error {
	l.mu.Lock()
	all := l.taken
	l.mu.Unlock()
	return l.flushTo(all, expired, stop)
}

// flushTo is flush up to the byte that was taken as the one with that number.
func (l *link) flushTo(all uint64, expired, stop <-chan struct{}) error {
	return l.until(func() (bool, error) {
		if l.written >= all {
			return true, nil
		}
		return false, l.sendErr
	}, expired, stop)
}

// until waits for what ready, which is called with mu held, says.
func (l *link) until(ready func() (bool, error), expired, stop <-chan struct{}) error {
	for {
		l.mu.Lock()
		ok, err := ready()
		l.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-l.sent:
		case <-expired:
			return os.ErrDeadlineExceeded
		case <-stop:
			return net.ErrClosed
		}
	}
}

// Close is called by nhooyr, perhaps more than once. What is in the buffer is
// still sent, for at most closeTime, and then the connection is closed; done
// tells when.
func (l *link) Close() error {
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.closing = true
	l.timer = time.AfterFunc(closeTime, l.abort)
	sending := l.sending
	l.changedLocked()
	l.mu.Unlock()
	if !sending {
		l.finish()
	}
	return nil
}

// finish closes the connection. Closing TLS sends an alert, and may wait for
// that; the timer ends it.
func (l *link) finish() {
	_ = l.conn.Close()
	l.timer.Stop()
	close(l.done)
}

// abort closes the connection at once: what is not sent is lost, and whoever
// reads or writes is woken.
func (l *link) abort() {
	_ = l.raw.Close()
}

// buffer is MaxFrame bytes or more of a pool.
type buffer struct{ bytes []byte }

// bufferSize leaves room for a message with its header, and a pong or two.
const bufferSize = MaxFrame + 1<<10

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, bufferSize)} }}

// newBuffer returns an empty buffer with room for MaxFrame bytes.
func newBuffer() *buffer {
	b := buffers.Get().(*buffer)
	b.bytes = b.bytes[:0]
	return b
}

// free gives b back; it must not be used any more.
func (b *buffer) free() {
	// One that had to grow may be far larger than what is usual.
	if cap(b.bytes) <= 2*bufferSize {
		buffers.Put(b)
	}
}
