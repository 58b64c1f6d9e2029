package frame

import (
	"bytes"
	crand "crypto/rand"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"
)

// errCloseSent is returned for data after our close frame (section 5.5.1).
var errCloseSent = errors.New("websocket: write after close")

// sender serialises the frames of one connection. Pings and pongs are written
// by control alone, in a goroutine of its own, so that whoever reads never
// waits for the network to take something: two peers that read only after
// they have written everything would otherwise stop for good.
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

	dmu      sync.Mutex
	deadline time.Time // bounds data and close
	limit    time.Time // bounds everything, in place of deadline, once it is set
	waiting  int       // calls of data and close under way

	pmu     sync.Mutex
	pong    []byte // the newest ping's payload
	pongDue bool
	wake    chan struct{} // tells control of pongDue
}

func (s *sender) init(nc net.Conn, masked bool) {
	s.nc, s.masked, s.wake = nc, masked, make(chan struct{}, 1)
}

// setDeadline bounds data and close; the zero time is for ever.
func (s *sender) setDeadline(t time.Time) {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.deadline = t
	if s.waiting > 0 {
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
	if t.IsZero() && s.waiting > 0 {
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
	s.waiting++
	if !s.deadline.IsZero() {
		s.arm()
	}
	return nil
}

// end closes what begin opened.
func (s *sender) end() {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	s.waiting--
	if !s.deadline.IsZero() {
		s.arm()
	}
}

// busy reports whether data or a close frame waits for the network.
func (s *sender) busy() bool {
	s.dmu.Lock()
	defer s.dmu.Unlock()
	return s.waiting > 0
}

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
	return s.frame(opBinary, buf, start)
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
	n, err := s.nc.Write(buf[start:])
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
		n, err := s.nc.Write(s.tail)
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

// answer queues a pong; only the newest ping needs one (section 5.5.3).
func (s *sender) answer(payload []byte) {
	s.pmu.Lock()
	s.pong = append(s.pong[:0], payload...)
	s.pongDue = true
	s.pmu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// control writes the pongs that are due, and a ping about every interval (0 is
// never), until done is closed. A write that is stuck then is ended by endBy.
func (s *sender) control(every time.Duration, done <-chan struct{}) {
	timer := time.NewTimer(jitter(every))
	defer timer.Stop()
	if every == 0 {
		timer.Stop()
	}
	for {
		ping := false
		select {
		case <-done:
			return
		case <-s.wake:
		case <-timer.C:
			ping = true
		}
		s.controls(ping)
		if ping {
			timer.Reset(jitter(every))
		}
	}
}

// jitter spreads d by a quarter either way.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}

// controls writes a pong, if one is due, and if asked to an empty ping
// (section 5.5.2). Its errors are met by the next data frame; a peer that
// cannot be written to is found out by the reader's silence limit.
func (s *sender) controls(ping bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeSent {
		return
	}
	var buf [maxHeader + maxControl]byte
	s.pmu.Lock()
	due := s.pongDue
	s.pongDue = false
	n := copy(buf[maxHeader:], s.pong)
	s.pmu.Unlock()
	if due {
		_, _ = s.frame(opPong, buf[:maxHeader+n], maxHeader)
	}
	if ping {
		_, _ = s.frame(opPing, buf[:maxHeader], maxHeader)
	}
}
