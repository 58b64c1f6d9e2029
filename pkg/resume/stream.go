package resume

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// ackDelay is how long what was read may go unacknowledged where nothing is
// sent that could say so.
const ackDelay = 200 * time.Millisecond

var (
	errEnded      = fmt.Errorf("write after CloseWrite: %w", io.ErrClosedPipe)
	errPeerClosed = fmt.Errorf("the far end has closed the stream: %w", io.ErrClosedPipe)
)

// Stream is one end of a resumable stream. It differs from a TCP connection in
// this:
//
//   - A Write returns when the stream has taken the bytes, which may be up to
//     Config.Buffer ahead of the far end's reader. While the connection is
//     away, and when that buffer is full, it waits.
//   - CloseWrite ends this direction alone: the far end reads io.EOF.
//   - Close ends both. What was written before still arrives. Writes of the
//     far end then fail with io.ErrClosedPipe.
//   - A stream that cannot go on fails Reads and Writes with the reason, such
//     as ErrExpired or ErrGone, after what has arrived was read.
//   - LocalAddr and RemoteAddr are those of the newest connection.
//   - A deadline does not bound the single write to the network that a Write
//     of few bytes, or a ReadFrom, makes itself. It waits only for a network that has taken
//     nothing for long, and at most until that connection counts as dead.
//
// All methods may be called concurrently; Reads wait for each other, and so do
// Writes.
type Stream struct {
	owner  owner
	ping   time.Duration
	secret *secrets
	token  [tokenSize]byte
	client bool

	reading, writing chan struct{} // locks of Read and Write: one element
	readable         chan struct{} // one element: look again
	writable         chan struct{}
	done             chan struct{} // closed when the session is over

	mu            sync.Mutex
	core          core
	link          *link // nil while detached
	established   bool  // the far end has ever shown that it has the key
	progress      bool  // something arrived since the last connection was lost
	attempt       uint64
	over          bool
	err           error // why it is over; nil after a close
	lost          error // why the last connection was lost
	lostAt        time.Time
	closed        bool // Close was called
	keep          bool
	ackTimer      *time.Timer
	ackArmed      bool
	readDeadline  deadline
	writeDeadline deadline
	local, remote net.Addr
}

var _ net.Conn = (*Stream)(nil)

// owner is who keeps a stream connected: a client or a hub.
type owner interface {
	// changed is called, without locks, after a connection was lost or
	// confirmed, after Close, and when the session is over.
	changed(*Stream)
	// spawn runs f in a goroutine that the owner waits for.
	spawn(f func())
	// closing is called once by Close, and waits as long as Close shall.
	closing(*Stream)
}

func newStream(o owner, ping time.Duration, secret *secrets, token [tokenSize]byte, c core, client bool) *Stream {
	s := &Stream{
		owner: o, ping: ping, secret: secret, token: token, client: client, core: c,
		reading: make(chan struct{}, 1), writing: make(chan struct{}, 1),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	s.ackTimer = time.AfterFunc(time.Hour, s.ackNow)
	s.ackTimer.Stop()
	s.readDeadline.init(s.readable)
	s.writeDeadline.init(s.writable)
	return s
}

// signal tells whoever waits at c to look again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read reads what has arrived. At the far end's CloseWrite or Close it returns
// io.EOF, after this end's Close net.ErrClosed.
func (s *Stream) Read(p []byte) (int, error) {
	s.reading <- struct{}{}
	defer func() { <-s.reading }()
	for {
		n, err := s.tryRead(p)
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
		<-s.readable
	}
}

func (s *Stream) tryRead(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, net.ErrClosed
	case s.readDeadline.passed():
		return 0, os.ErrDeadlineExceeded
	case s.core.in.len() > 0:
		n := s.core.read(p)
		s.acknowledgeLocked()
		return n, nil
	case s.core.peerEnded:
		return 0, io.EOF
	case s.over:
		return 0, s.err
	}
	return 0, nil
}

// acknowledgeLocked sees to it that the far end learns what was consumed: now,
// if it wants to know, else soon.
func (s *Stream) acknowledgeLocked() {
	switch {
	case s.link == nil:
	case s.core.ackDue:
		s.link.wakeLocked()
	case s.core.untold() && !s.ackArmed:
		s.ackArmed = true
		s.ackTimer.Reset(ackDelay)
	}
}

// ackNow is what ackTimer runs.
func (s *Stream) ackNow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ackArmed = false
	if s.link != nil && s.core.untold() {
		s.core.ackDue = true
		s.link.wakeLocked()
	}
}

// Write writes p. See Stream for when it waits.
func (s *Stream) Write(p []byte) (int, error) { return s.put(p, directMax) }

// put is Write. Where nothing else waits to be sent, what is at most direct
// bytes long goes to the network in this goroutine.
func (s *Stream) put(p []byte, direct int) (int, error) {
	s.writing <- struct{}{}
	defer func() { <-s.writing }()
	written := 0
	for {
		n, direct, err := s.tryWrite(p[written:], direct)
		written += n
		if direct != nil {
			direct.writeDirect(n)
		}
		if err != nil || written == len(p) {
			return written, err
		}
		<-s.writable
	}
}

// tryWrite takes what there is room for. It returns a connection if the caller
// is to write to it what is pending.
func (s *Stream) tryWrite(p []byte, most int) (n int, direct *link, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, nil, net.ErrClosed
	case s.core.peerClosed:
		return 0, nil, errPeerClosed
	case s.over:
		return 0, nil, s.err
	case s.core.ended:
		return 0, nil, errEnded
	case s.writeDeadline.passed():
		return 0, nil, os.ErrDeadlineExceeded
	}
	idle := s.core.sent >= s.core.out.end && (most > directMax || s.core.inFlight()+len(p) <= most)
	n = s.core.write(p)
	l := s.link
	if l == nil {
		return n, nil, nil
	}
	for n < len(p) && !l.writing && s.core.grow() {
		n += s.core.write(p[n:])
	}
	switch {
	case n == 0 || l.writing: // whoever writes looks again when it is done
	case idle && !s.writeDeadline.set:
		// A key that was typed must not wait for another goroutine.
		l.writing = true
		return n, l, nil
	default:
		l.wakeLocked()
	}
	return n, nil, nil
}

// CloseWrite says that no more is written. It does not wait.
func (s *Stream) CloseWrite() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return net.ErrClosed
	case s.core.peerClosed:
		return nil // nobody is there to care
	case s.over:
		return s.err
	}
	s.core.end()
	if s.link != nil {
		s.link.wakeLocked()
	}
	signal(s.writable)
	return nil
}

// Close ends the stream: see Stream. At the client's end it waits until the
// far end has received everything, for Config.Linger at most, and returns
// ErrUnsent if it has not, and then for the connection's own Close. At the
// Hub's end it does not wait: the Hub delivers
// the rest. Only the first call does anything.
func (s *Stream) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	switch {
	case s.over:
		s.core.release()
	default:
		s.core.close()
		if s.link != nil {
			s.link.wakeLocked()
		}
	}
	s.mu.Unlock()
	signal(s.readable)
	signal(s.writable)
	s.owner.changed(s)
	s.owner.closing(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, ErrUnsent) {
		return s.err
	}
	return nil
}

// Keep marks a stream of a Hub as one that is worth keeping while detached,
// such as one whose user has logged in: others have to go first when there are
// too many.
func (s *Stream) Keep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep = true
}

// Attached reports whether the stream has a connection now.
func (s *Stream) Attached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link != nil && s.link.confirmed
}

// Done is closed when the stream is over: its far end has closed it or has
// everything that was written before Close, or it could not go on. Until then
// it may have a connection, or get one.
func (s *Stream) Done() <-chan struct{} { return s.done }

// LocalAddr returns the address of the newest connection.
func (s *Stream) LocalAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// RemoteAddr returns the address of the newest connection.
func (s *Stream) RemoteAddr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.remote
}

// SetDeadline sets both deadlines; see net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline bounds Read. A Read that it ends may be tried again.
func (s *Stream) SetReadDeadline(t time.Time) error { return s.setDeadline(&s.readDeadline, t) }

// SetWriteDeadline bounds Write; see Stream. What a Write that it ends says to
// have written will arrive.
func (s *Stream) SetWriteDeadline(t time.Time) error { return s.setDeadline(&s.writeDeadline, t) }

func (s *Stream) setDeadline(d *deadline, t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	d.move(t)
	return nil
}

// deadline is guarded by the stream's mutex. When it passes, and when it is
// moved, whoever waits is told to look.
type deadline struct {
	at    time.Time
	set   bool
	timer *time.Timer
	wake  chan struct{}
}

func (d *deadline) init(wake chan struct{}) { d.wake = wake }

func (d *deadline) passed() bool { return d.set && !time.Now().Before(d.at) }

func (d *deadline) move(t time.Time) {
	d.at, d.set = t, !t.IsZero()
	d.stop()
	if d.set {
		d.timer = time.AfterFunc(time.Until(t), func() { signal(d.wake) })
	}
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
