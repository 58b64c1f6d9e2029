package sshd

import "example.com/converge/agent/internal/share"

// queue queues news of who comes and goes, for the terminal. It does not wait.
// At Shutdown everybody goes, and the reason alone is news.
func (s *session) queue(text string) {
	if s.server.isEnding() {
		return
	}
	select {
	case s.wall <- wallText(text):
	default: // a client that takes no output misses it
	}
}

// place writes a message where it does least harm: over a full-screen program
// on its last lines, else on lines of its own, and not in the middle of what a
// program draws.
func (s *session) place(text string, stop <-chan struct{}) {
	room := s.room.Load()
	if room == nil {
		_, _ = s.writeOut([]byte(text))
		return
	}
	room.Calm(stop)
	s.out.Lock()
	defer s.out.Unlock()
	message, over := room.Place(text)
	if over && s.server.isEnding() {
		s.covering += text
	}
	_, _ = s.ch.Write(message)
}

// lastMessage repeats what was said at Shutdown over a full-screen program,
// which has wiped it out at its own end. It is called after the last output;
// restore is what the terminal needs before.
func (s *session) lastMessage(restore string) {
	if s.covering != "" {
		_, _ = s.writeOut([]byte(restore + s.covering))
	}
}

// lastReason tells the user of a command that Shutdown has ended why, after its
// last output: on its terminal, whose screen is nil where there is none, or else
// on stderr. Messages before that are not for commands: programs read what they
// print.
func (s *session) lastReason(screen *share.Room) {
	s.server.mu.Lock()
	reason := s.server.reason
	s.server.mu.Unlock()
	switch {
	case reason == "" || !s.isStopping():
	case screen != nil:
		_, _ = s.writeOut([]byte(screen.Restore() + wallText(reason)))
	default:
		s.writeError("converge: " + printable(reason) + "\n")
	}
}

// isEnding reports whether Shutdown has begun.
func (s *Server) isEnding() bool {
	select {
	case <-s.hurry:
		return true
	default:
		return false
	}
}

// isStopping reports whether this side ends the session.
func (s *session) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// onStop says what ends a session that has no process of its own.
func (s *session) onStop(end func()) {
	s.mu.Lock()
	s.ending = end
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		end()
	}
}
