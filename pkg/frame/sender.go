package frame

import (
	"bytes"
	crand "crypto/rand"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/converge/pkg/rawio"
)

// errCloseSent is returned for data after our close frame (section 5.5.1).
var errCloseSent = errors.New("websocket: write after close")

// sender serialises the frames of one connection. Its pings and pongs are in
// controls.go.
//
// A deadline is on the connection only while a call that it bounds is under
// way. One that passed long ago must not fail the pings of an idle connection,
// the more so as crypto/tls writes nothing more after a write that timed out.
type sender struct {
	nc     net.Conn
	masked bool // section 5.1: a client masks, a server does not

	mu        sync.Mutex // held while a frame is written
	closeSent bool
	failed    error  // the first write error that was no timeout
	tail      []byte // what a deadline kept from being written of a frame

	// A relay writes to the descriptor itself where it can: the kernel mostly
	// takes all at once, and then no deadline need be set.
	raw     syscall.RawConn // nil: nc is written to
	stall   time.Duration   // bounds a write to raw that has to wait; 0 is for ever
	writeFn func(fd uintptr) bool
	out     []byte // the rest of what is being written to raw; mu is held
	outErr  error
	blocked bool        // a deadline was set for stall
	waited  bool        // the last write had to wait
	slow    atomic.Bool // that of the last data had to

	waiting  atomic.Int32 // calls of data and close under way
	dmu      sync.Mutex
	deadline time.Time // bounds data and close
	limit    time.Time // bounds everything, in place of deadline, once it is set

	control controls
}

func (s *sender) init(nc net.Conn, masked bool) { s.nc, s.masked = nc, masked }

// useRaw makes the sender write to the descriptor. A write that has to wait
// may take as long as stall says.
func (s *sender) useRaw(raw syscall.RawConn, stall time.Duration) {
	s.raw, s.stall, s.writeFn = raw, stall, s.tryWrite
}

// setDeadline bounds data and close; the zero time is for ever.
func (s *sender) setDeadline(t time.Time) {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.deadline = t
	if s.busy() {
		s.arm()
	}
}

// endBy bounds everything that is still written. An earlier limit stays.
func (s *sender) endBy(t time.Time) {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.limit = earlier(s.limit, t)
	s.arm()
}

// arm gives the connection the deadline that holds now. dmu is held.
func (s *sender) arm() {
	t := s.limit
	if t.IsZero() && s.busy() {
		t = s.deadline
	}
	_ = s.nc.SetWriteDeadline(t)
}

// begin opens a call that the deadline bounds, unless it has passed.
func (s *sender) begin() error {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	t := s.limit
	if t.IsZero() {
		t = s.deadline
	}
	if !t.IsZero() && !t.After(time.Now()) {
		return os.ErrDeadlineExceeded
	}
	s.waiting.Add(1)
	if !s.deadline.IsZero() {
		s.arm()
	}
	return nil
}

// end closes what begin opened.
func (s *sender) end() {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.waiting.Add(-1)
	if !s.deadline.IsZero() {
		s.arm()
	}
}

// busy reports whether data or a close frame waits for the network.
func (s *sender) busy() bool { return s.waiting.Load() > 0 }

// data writes buf[start:] as one binary frame, masking it in place where the
// role asks for it. At least maxHeader bytes in front of start are the
// sender's, so that one write is enough. taken reports whether the payload
// was or will be sent: what a deadline cuts off a frame goes out before the
// next one.
func (s *sender) data(buf []byte, start int) (taken bool, err error) {
	if err := s.begin(); err != nil {
		return false, err
	}
	defer s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeSent {
		return false, errCloseSent
	}
	taken, err = s.frame(opBinary, buf, start)
	s.slow.Store(s.waited)
	return taken, err
}

// close sends the close frame, once, and what is left of it when called again.
func (s *sender) close(code int, reason string) error {
	if err := s.begin(); err != nil {
		return err
	}
	defer s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeSent {
		return s.flushTail()
	}
	var buf [maxHeader + maxControl]byte
	taken, err := s.frame(opClose, appendClose(buf[:maxHeader], code, reason), maxHeader)
	s.closeSent = taken
	return err
}

// frame writes one frame; see data. mu is held.
func (s *sender) frame(op byte, buf []byte, start int) (taken bool, err error) {
	if s.failed != nil {
		return false, s.failed
	}
	if err := s.flushTail(); err != nil {
		return false, err
	}
	payload := buf[start:]
	h := header{fin: true, op: op, masked: s.masked, length: int64(len(payload))}
	if h.masked {
		// Unpredictable, as section 5.3 wants it. crypto/rand never returns an
		// error: it ends the process if the system has no random bytes.
		_, _ = crand.Read(h.key[:])
		mask(payload, h.key, 0)
	}
	var encoded [maxHeader]byte
	head := appendHeader(encoded[:0], h)
	start -= len(head)
	copy(buf[start:], head)
	n, err := s.write(buf[start:])
	switch {
	case err == nil:
		return true, nil
	case !errors.Is(err, os.ErrDeadlineExceeded):
		s.failed = err
		return false, err
	case n == 0:
		return false, err
	}
	s.tail = bytes.Clone(buf[start+n:])
	return true, err
}

// flushTail writes what an earlier deadline left of a frame. mu is held.
func (s *sender) flushTail() error {
	for len(s.tail) > 0 {
		n, err := s.write(s.tail)
		s.tail = s.tail[n:]
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				s.failed = err
			}
			return err
		}
	}
	s.tail = nil
	return nil
}

// write writes all of b, or fails. mu is held.
func (s *sender) write(b []byte) (int, error) {
	if s.raw == nil {
		return s.nc.Write(b)
	}
	s.out, s.outErr, s.waited = b, nil, false
	err := s.raw.Write(s.writeFn)
	n := len(b) - len(s.out)
	s.out = nil
	if s.blocked {
		s.blocked = false
		s.dmu.Lock()
		s.arm()
		s.dmu.Unlock()
	}
	if s.outErr != nil {
		err = s.outErr
	}
	return n, err
}

// tryWrite is called with raw's descriptor until it returns true, each time
// when that is ready.
func (s *sender) tryWrite(fd uintptr) bool {
	for len(s.out) > 0 {
		n, err := rawio.Write(fd, s.out)
		switch {
		case errors.Is(err, rawio.ErrWouldBlock):
			s.waited = true
			s.block()
			return false
		case err != nil:
			s.outErr = err
			return true
		}
		s.out = s.out[n:]
	}
	return true
}

// block is called when a write has to wait.
func (s *sender) block() {
	if s.stall == 0 || s.blocked {
		return
	}
	s.dmu.Lock()
	defer s.dmu.Unlock()
	if s.limit.IsZero() && s.deadline.IsZero() {
		s.blocked = true
		_ = s.nc.SetWriteDeadline(time.Now().Add(s.stall))
	}
}
