package box

import (
	"io"
	"sync"
)

// streamMost is how much a stream holds: enough for what an engine says before a
// program begins, which is when nobody reads yet.
const streamMost = 256 << 10

// stream is a pipe with a buffer. Writes wait while it is full.
type stream struct {
	mu      sync.Mutex
	changed sync.Cond
	buf     []byte
	start   int // of what is to be read
	ended   bool
	gone    bool // nobody reads any more
}

func newStream() *stream {
	s := &stream{}
	s.changed.L = &s.mu
	return s
}

// Write fails when nobody reads any more, or the stream has ended.
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := 0
	for written < len(p) {
		for len(s.buf)-s.start == streamMost && !s.gone && !s.ended {
			s.changed.Wait()
		}
		if s.gone || s.ended {
			return written, io.ErrClosedPipe
		}
		room := streamMost - (len(s.buf) - s.start)
		n := min(room, len(p)-written)
		if s.start > 0 && len(s.buf)+n > cap(s.buf) {
			s.buf = s.buf[:copy(s.buf, s.buf[s.start:])]
			s.start = 0
		}
		s.buf = append(s.buf, p[written:written+n]...)
		written += n
		s.changed.Broadcast()
	}
	return written, nil
}

// Read returns io.EOF when what was written before the end is read.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.buf) == s.start && !s.ended && !s.gone {
		s.changed.Wait()
	}
	switch {
	case s.gone:
		return 0, io.ErrClosedPipe
	case len(s.buf) == s.start:
		return 0, io.EOF
	}
	n := copy(p, s.buf[s.start:])
	if s.start += n; s.start == len(s.buf) {
		s.buf, s.start = s.buf[:0], 0
	}
	s.changed.Broadcast()
	return n, nil
}

// end says that nothing more is written.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.changed.Broadcast()
}

// drop says that nothing more is read.
func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.buf, s.start = true, nil, 0
	s.changed.Broadcast()
}
