package mux

import (
	"time"

	"example.com/converge/container/guest/wire"
)

// handle does what one packet of the peer's says. An error ends the session.
func (s *Session) handle(p wire.Packet) error {
	switch p.Type {
	case wire.TypeData:
		return s.data(p)
	case wire.TypeSuccess:
		s.success(p.ConnectionID)
	case wire.TypeError:
		s.failed(p)
	case wire.TypeNew:
		return s.incoming(p)
	case wire.TypeClose:
		return s.closed(p.ConnectionID)
	case wire.TypeNoMore:
		if s.cfg.NoMore != nil {
			s.cfg.NoMore()
		}
	case wire.TypeWindow:
		return s.window(p)
	case wire.TypeEOF:
		s.eof(p.ConnectionID)
	default: // of a later version, or a second setup
		s.cfg.Logger.Info("ignored a packet", "type", p.Type)
	}
	return nil
}

// find returns the live connection of an id, with the lock held.
func (s *Session) findLocked(id uint64, what string) *Stream {
	st := s.streams[id]
	if st == nil {
		s.cfg.Logger.Debug("a packet for no connection", "packet", what, "connection", id)
	}
	return st
}

func (s *Session) data(p wire.Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.findLocked(p.ConnectionID, "data")
	if st == nil || st.phase != open || st.eof || st.abandoned || len(p.Payload) == 0 {
		return nil
	}
	if st.deaf {
		return st.ignoreLocked(len(p.Payload))
	}
	if s.extensions && st.queued+len(p.Payload) > Window {
		s.cfg.Logger.Warn("the other end sends more than there is room for: closed", "connection", st.id)
		return s.resetLocked(st, ErrEnded)
	}
	if err := s.makeRoomLocked(len(p.Payload)); err != nil {
		return err
	}
	switch { // while the lock was away
	case st.phase == over || st.abandoned:
		return nil
	case st.deaf:
		return st.ignoreLocked(len(p.Payload))
	}
	if st.queued == 0 {
		st.moved = time.Now()
		s.waiting[st] = struct{}{}
	}
	// Small ones are put together: what is counted is bytes, and each has its price.
	if last := len(st.queue) - 1; last >= 0 && len(st.queue[last])+len(p.Payload) <= chunk {
		st.queue[last] = append(st.queue[last], p.Payload...)
	} else {
		st.queue = append(st.queue, p.Payload)
	}
	st.queued += len(p.Payload)
	s.queued += len(p.Payload)
	st.changed.Broadcast()
	return nil
}

// ignoreLocked throws data away, for which the peer gets room again. It lets go of
// the lock while it tells the peer.
func (st *Stream) ignoreLocked(n int) error {
	tell := st.takenLocked(n)
	st.session.mu.Unlock()
	defer st.session.mu.Lock()
	return st.grant(tell)
}

// makeRoomLocked waits until n bytes more may wait, and closes who stands in the
// way of all others.
func (s *Session) makeRoomLocked(n int) error {
	began := time.Now()
	for s.queued+n > s.cfg.Budget && len(s.waiting) > 0 {
		var most *Stream
		for st := range s.waiting {
			if most == nil || st.queued > most.queued {
				most = st
			}
		}
		since := most.moved
		if since.Before(began) { // nobody minded until now
			since = began
		}
		left := time.Until(since.Add(s.cfg.Stall))
		if left <= 0 {
			s.cfg.Logger.Warn("nobody reads a connection, which is closed", "connection", most.id, "waiting", most.queued)
			if err := s.resetLocked(most, ErrStalled); err != nil {
				return err
			}
			continue
		}
		timer := time.AfterFunc(left, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.room.Broadcast()
		})
		s.room.Wait()
		timer.Stop()
	}
	return nil
}

// resetLocked throws away what a connection has received and closes it. It lets go
// of the lock while it tells the peer.
func (s *Session) resetLocked(st *Stream, err error) error {
	tell := st.phase != over && !st.closeSent
	st.err, st.abandoned, st.closeSent = err, true, true
	st.discardLocked()
	st.changed.Broadcast()
	if !tell {
		return nil
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.out.control(wire.Packet{Type: wire.TypeClose, ConnectionID: st.id})
}

func (s *Session) success(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.streams[id]
	switch {
	case st == nil: // the answer to a CLOSE that crossed with the peer's
	case st.closeSent:
		s.overLocked(st, ErrEnded)
	case st.phase == pending && !st.inbound:
		st.phase = open
		st.changed.Broadcast()
	default:
		s.cfg.Logger.Info("a success that nobody waits for", "connection", id)
	}
}

func (s *Session) failed(p wire.Packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[p.ConnectionID]; st != nil {
		if st.phase == pending {
			s.overLocked(st, &RefusedError{reason(p.Payload)})
		} else {
			s.overLocked(st, ErrEnded)
		}
	}
}

// closed answers in any case: who waits for an answer to a close must get one.
func (s *Session) closed(id uint64) error {
	s.mu.Lock()
	st := s.findLocked(id, "close")
	if st != nil {
		s.overLocked(st, ErrEnded)
	}
	s.mu.Unlock()
	if st == nil {
		return s.out.control(s.failure(id, "there is no such connection"))
	}
	return s.out.control(wire.Packet{Type: wire.TypeSuccess, ConnectionID: id})
}

func (s *Session) eof(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.findLocked(id, "end of data"); st != nil && s.extensions {
		st.eof = true
		st.changed.Broadcast()
	}
}

func (s *Session) window(p wire.Packet) error {
	n, err := wire.ParseWindow(p.Payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.findLocked(p.ConnectionID, "window"); st != nil && s.extensions {
		// More than a window is never due, whatever the peer says.
		st.credit = min(st.credit+min(n, Window), Window)
		st.changed.Broadcast()
	}
	return nil
}

func (s *Session) incoming(p wire.Packet) error {
	what, err := wire.ParseNew(p.Payload)
	if err != nil {
		s.cfg.Logger.Warn("cannot read a new connection", "connection", p.ConnectionID, "error", err)
	}
	s.mu.Lock()
	if s.streams[p.ConnectionID] != nil {
		s.mu.Unlock()
		// An answer would be taken for one about the connection that has this id.
		s.cfg.Logger.Warn("the other end uses an id twice", "connection", p.ConnectionID)
		return nil
	}
	refusal := ""
	switch {
	case p.ConnectionID <= s.last:
		refusal = "its id has been used before"
	case err != nil:
		refusal = err.Error()
	case s.cfg.Incoming == nil:
		refusal = "connections are opened from the other side only"
	case len(s.streams) >= maxStreams:
		refusal = "too many connections are open"
	}
	if refusal != "" {
		s.last = max(s.last, p.ConnectionID)
		s.mu.Unlock()
		return s.out.control(s.failure(p.ConnectionID, refusal))
	}
	s.last = p.ConnectionID
	st := s.addLocked(p.ConnectionID, what)
	st.inbound = true
	s.mu.Unlock()
	s.cfg.Incoming(st)
	return nil
}
