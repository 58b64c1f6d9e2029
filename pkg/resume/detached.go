package resume

import (
	"slices"
	"sync"
	"time"
)

// entry is a session in the Hub's table.
type entry struct {
	s       *Stream
	waiting bool
	memory  int
	expiry  *time.Timer // while waiting
	linger  *time.Timer // after Close

	noticeMu sync.Mutex // held while Notice is called
	said     State
}

// changed brings the table up to date with a stream.
func (h *Hub) changed(s *Stream) {
	h.mu.Lock()
	e := h.sessions[s.token]
	if e == nil || e.s != s {
		h.mu.Unlock()
		return
	}
	s.mu.Lock()
	over, closed := s.over, s.closed
	attached, alone := s.link != nil && s.link.confirmed, s.link == nil
	linger := h.cfg.Window
	if !s.keep {
		linger = min(linger, handshakeWait) // a stranger's is not worth a place
	}
	memory := s.core.bound()
	s.mu.Unlock()

	switch {
	case over:
		delete(h.sessions, s.token)
		h.stopWaitingLocked(e)
		if e.linger != nil {
			e.linger.Stop()
		}
	case attached:
		h.stopWaitingLocked(e)
	case !e.waiting:
		e.waiting, e.memory = true, memory
		e.expiry = time.AfterFunc(h.cfg.Window, func() { h.timed(func() { h.expire(e) }) })
		h.waiting = append(h.waiting, e)
		h.memory += memory
	}
	if closed && !over && e.linger == nil {
		e.linger = time.AfterFunc(linger, func() { h.timed(func() { s.fail(ErrUnsent) }) })
	}
	victims := h.victimsLocked()
	ending := h.closed && alone && !over
	h.mu.Unlock()

	if ending {
		s.fail(ErrHubClosed)
		return
	}
	for _, v := range victims {
		v.s.fail(ErrEvicted)
	}
	h.say(e)
}

func (h *Hub) stopWaitingLocked(e *entry) {
	if !e.waiting {
		return
	}
	e.waiting = false
	e.expiry.Stop()
	h.memory -= e.memory
	for i := range h.waiting {
		if h.waiting[i] == e {
			h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
			break
		}
	}
}

// victimsLocked takes out of the waiting sessions what is above the limits.
func (h *Hub) victimsLocked() (victims []*entry) {
	for len(h.waiting) > h.cfg.MaxDetached || h.memory > h.cfg.MaxMemory {
		victim := slices.MinFunc(h.waiting, func(a, b *entry) int { return a.s.worth() - b.s.worth() })
		h.stopWaitingLocked(victim)
		victims = append(victims, victim)
	}
	return victims
}

// timed runs what a timer does, so that Close waits for it.
func (h *Hub) timed(f func()) {
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		return
	}
	h.routines.Add(1)
	h.mu.Unlock()
	defer h.routines.Done()
	f()
}

// worth ranks detached sessions: strangers, who may just have opened a stream
// and left, before clients that have shown that they have the key.
func (s *Stream) worth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.keep:
		return 2
	case s.established:
		return 1
	}
	return 0
}

// expire ends a session that is still detached.
func (h *Hub) expire(e *entry) {
	h.mu.Lock()
	e.s.mu.Lock()
	due := e.waiting && (e.s.link == nil || !e.s.link.confirmed)
	if due {
		e.s.endLocked(expired(h.cfg.Window, e.s.lost))
	}
	e.s.mu.Unlock()
	h.mu.Unlock()
	if due {
		h.changed(e.s)
	}
}

// say tells the user what is new to it.
func (h *Hub) say(e *entry) {
	if h.cfg.Notice == nil {
		return
	}
	e.noticeMu.Lock()
	defer e.noticeMu.Unlock()
	s := e.s
	s.mu.Lock()
	n := Notice{State: Flowing, Err: s.lost, Since: s.lostAt, Window: h.cfg.Window}
	if s.link == nil || !s.link.confirmed {
		n.State = Stalled
	}
	news := n.State != e.said && s.established && !s.over && !s.closed
	s.mu.Unlock()
	if news {
		e.said = n.State
		h.cfg.Notice(s, n)
	}
}
