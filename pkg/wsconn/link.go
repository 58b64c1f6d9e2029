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
	unsent  int // in pending and on its way
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
	for l.unsent >= hardLimit && !l.closing && l.sendErr == nil {
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
	l.unsent += len(p)
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
		l.unsent -= size
		if err != nil {
			l.sendErr = err
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

// changedLocked wakes those who wait for the buffer.
func (l *link) changedLocked() {
	l.room.Broadcast()
	select {
	case l.sent <- struct{}{}:
	default:
	}
}

// wait returns when no more than limit bytes are unsent. It fails when sending
// has, at the deadline and when stop is closed. One caller at a time.
func (l *link) wait(limit int, expired, stop <-chan struct{}) error {
	for {
		l.mu.Lock()
		unsent, closing, err := l.unsent, l.closing, l.sendErr
		l.mu.Unlock()
		switch {
		case err != nil:
			return err
		case closing && unsent > 0:
			return net.ErrClosed
		case unsent <= limit:
			return nil
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
