package mux

import (
	"io"
	"sync"
	"time"

	"example.com/converge/container/guest/wire"
)

// phase is how far a connection has come.
type phase int

const (
	pending phase = iota // not answered yet
	open
	over // the peer knows it no more
)

// Stream is one connection of a session. Its methods may be called concurrently.
type Stream struct {
	session *Session
	id      uint64
	what    wire.New
	done    chan struct{}

	// All that follows is under the session's mu, and changed is of that mutex.
	changed   *sync.Cond
	phase     phase
	inbound   bool // the peer opened it
	queue     [][]byte
	queued    int       // bytes in the queue
	moved     time.Time // when the queue began, or was read from
	eof       bool      // the peer sends no more
	credit    uint64    // bytes that may be sent, with extensions
	read      uint64    // bytes that were read and not yet told the peer
	eofSent   bool
	closeSent bool
	abandoned bool  // by Close: nothing is read any more
	deaf      bool  // by CloseRead: the same
	err       error // why it is over
}

// What is what the connection was opened with.
func (st *Stream) What() wire.New { return st.what }

// Done is closed when the connection is over in both directions, and the peer
// knows that. What was received before can still be read.
func (st *Stream) Done() <-chan struct{} { return st.done }

// Accept lets the peer's connection begin.
func (st *Stream) Accept() error {
	s := st.session
	s.mu.Lock()
	if st.phase != pending || !st.inbound {
		s.mu.Unlock()
		return ErrEnded
	}
	st.phase = open
	s.mu.Unlock()
	return s.out.control(wire.Packet{Type: wire.TypeSuccess, ConnectionID: st.id})
}

// Reject refuses the peer's connection. The peer is told why if it can read that.
func (st *Stream) Reject(why string) error {
	s := st.session
	s.mu.Lock()
	if st.phase != pending || !st.inbound {
		s.mu.Unlock()
		return ErrEnded
	}
	s.overLocked(st, ErrEnded)
	s.mu.Unlock()
	return s.out.control(s.failure(st.id, why))
}

// Opened waits for the peer's answer to Session.Open, or for Close. The error is a
// *RefusedError, or ErrEnded.
func (st *Stream) Opened() error {
	st.session.mu.Lock()
	defer st.session.mu.Unlock()
	for st.phase == pending && !st.abandoned {
		st.changed.Wait()
	}
	if st.phase == open && !st.abandoned {
		return nil
	}
	return st.reasonLocked()
}

// Read reads what the peer sends; io.EOF says that there is no more.
func (st *Stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s := st.session
	s.mu.Lock()
	for st.queued == 0 && !st.eof && st.phase != over && !st.abandoned && !st.deaf {
		st.changed.Wait()
	}
	if st.queued == 0 || st.abandoned || st.deaf {
		defer s.mu.Unlock()
		if _, refused := st.err.(*RefusedError); refused || st.abandoned || st.deaf {
			return 0, st.reasonLocked()
		}
		return 0, io.EOF
	}
	n := copy(p, st.queue[0])
	if st.queue[0] = st.queue[0][n:]; len(st.queue[0]) == 0 {
		st.queue[0] = nil
		st.queue = st.queue[1:]
	}
	st.queued -= n
	s.queued -= n
	st.moved = time.Now()
	if st.queued == 0 {
		delete(s.waiting, st)
	}
	s.room.Broadcast()
	tell := st.takenLocked(n)
	s.mu.Unlock()
	// Its failure is that of the session, of which the next read tells.
	_ = st.grant(tell)
	return n, nil
}

// takenLocked counts bytes for which there is room again, and returns of how many
// the peer has to be told.
func (st *Stream) takenLocked(n int) (tell uint64) {
	if st.read += uint64(n); st.session.extensions && st.read >= Window/2 && st.phase == open && !st.eof {
		tell, st.read = st.read, 0
	}
	return tell
}

// grant lets the peer send n bytes more.
func (st *Stream) grant(n uint64) error {
	if n == 0 {
		return nil
	}
	return st.session.out.control(wire.Packet{Type: wire.TypeWindow, ConnectionID: st.id, Payload: wire.WindowPayload(n)})
}

func (st *Stream) reasonLocked() error {
	if st.err != nil {
		return st.err
	}
	return ErrEnded
}

// Write sends p. It waits for the peer to accept the connection, and while there
// is no room for more.
func (st *Stream) Write(p []byte) (int, error) {
	s, written := st.session, 0
	for written < len(p) {
		n, err := st.reserve(len(p) - written)
		if err != nil {
			return written, err
		}
		data := wire.Packet{Type: wire.TypeData, ConnectionID: st.id, Payload: p[written : written+n]}
		if err := s.out.data(data); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// reserve waits until some of n bytes may be sent, and returns how many.
func (st *Stream) reserve(n int) (int, error) {
	s := st.session
	s.mu.Lock()
	defer s.mu.Unlock()
	for !st.closeSent && !st.eofSent && (st.phase == pending || st.phase == open && s.extensions && st.credit == 0) {
		st.changed.Wait()
	}
	if st.phase != open || st.closeSent || st.eofSent {
		return 0, st.reasonLocked()
	}
	n = min(n, chunk)
	if s.extensions {
		n = min(n, int(st.credit))
		st.credit -= uint64(n)
	}
	return n, nil
}

// CloseWrite says that no more data follow; what the peer sends can still be read.
// A peer without extensions can only be told that the connection ends: from then on
// only what it has sent already is received.
func (st *Stream) CloseWrite() error {
	s := st.session
	s.mu.Lock()
	if st.phase == over || st.closeSent || st.eofSent {
		s.mu.Unlock()
		return nil
	}
	p := wire.Packet{Type: wire.TypeEOF, ConnectionID: st.id}
	if st.eofSent = true; !s.extensions {
		p.Type, st.closeSent = wire.TypeClose, true
	}
	st.changed.Broadcast()
	s.mu.Unlock()
	return s.out.control(p)
}

// CloseRead ends reading: a Read that waits fails, and those to come, and what the
// peer sends is thrown away. What is written still reaches the peer.
func (st *Stream) CloseRead() error {
	s := st.session
	s.mu.Lock()
	st.deaf = true
	tell := st.takenLocked(st.queued)
	st.discardLocked()
	st.changed.Broadcast()
	s.mu.Unlock()
	return st.grant(tell)
}

// Close ends the connection in both directions and throws away what was received.
// It does not wait for the peer, as a receive from Done does.
func (st *Stream) Close() error {
	s := st.session
	s.mu.Lock()
	st.abandoned = true
	st.discardLocked()
	tell := st.phase != over && !st.closeSent
	st.closeSent = true
	st.changed.Broadcast()
	s.mu.Unlock()
	if !tell {
		return nil
	}
	return s.out.control(wire.Packet{Type: wire.TypeClose, ConnectionID: st.id})
}

// discardLocked empties the queue.
func (st *Stream) discardLocked() {
	s := st.session
	s.queued -= st.queued
	st.queue, st.queued = nil, 0
	delete(s.waiting, st)
	s.room.Broadcast()
}
