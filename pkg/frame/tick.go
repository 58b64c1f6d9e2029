package frame

import "time"

// coolWait is how long a side is without payload until it is parked. A reader
// that waits by itself is some microseconds faster than one that the poller
// has to start, which is for who types to have.
const coolWait = 2 * time.Second

// keep starts the pings of a side and the watch over its silence. Between two
// of them it is a timer of the runtime's and no goroutine.
func (s *side) keep() {
	if s.every == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextP, s.coolAt = jitter(s.every), coolWait
	s.timer = time.AfterFunc(min(s.nextP, s.coolAt), s.tick)
}

// heated is called when payload has come to a side that was cold.
func (s *side) heated() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil && !s.over {
		now := s.now()
		s.coolAt = now + coolWait
		s.timer.Reset(min(s.nextP, s.coolAt) - now)
	}
}

// tick pings the peer, ends a silent one, and parks a side that is idle.
func (s *side) tick() {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.ticks.Add(1)
	defer s.ticks.Done()
	now := s.now()
	silentAt := s.judgeLocked(now)
	ping := now >= s.nextP
	if ping {
		s.nextP = now + jitter(s.every)
	}
	s.timer.Reset(min(s.nextP, silentAt, s.coolLocked(now)) - now)
	s.mu.Unlock()
	if ping {
		s.send.ping()
	}
}

// coolLocked has a side parked that was without payload for long enough, and
// returns when to look again.
func (s *side) coolLocked(now time.Duration) time.Duration {
	if s.poller == nil || s.stay || s.cold.Load() {
		return s.nextP
	}
	if now < s.coolAt {
		return s.coolAt
	}
	s.coolAt = now + coolWait
	if !s.busy.Swap(false) {
		s.cold.Store(true)
		// Wakes the reader, which parks the side if there is nothing.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	}
	return s.coolAt
}

// judgeLocked ends the side if its peer has been silent for too long, and
// returns when that will be. Only the time counts that its reader waited, and
// a peer that takes nothing gets no ping to answer: it may be suspended, and
// stallWait is its limit.
func (s *side) judgeLocked(now time.Duration) time.Duration {
	since := s.since.Load()
	if since == 0 {
		return now + s.silence
	}
	if s.send.busy() {
		s.since.CompareAndSwap(since, 1+int64(now))
		return now + s.silence
	}
	at := time.Duration(since-1) + s.silence
	if now < at {
		return at
	}
	s.silent = true
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	s.wakeLocked()
	return now + s.silence
}

// stopTicks ends the pings and the watch.
func (s *side) stopTicks() {
	s.mu.Lock()
	s.over = true
	if s.timer != nil {
		s.timer.Stop()
	}
	s.mu.Unlock()
	s.send.endBy(time.Now().Add(closeWait)) // a ping may be stuck
	s.ticks.Wait()
}
