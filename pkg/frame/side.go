package frame

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"example.com/converge/pkg/rawio"
)

// smallBuffer is what an idle connection without a descriptor waits with, in
// bytes: enough for a keystroke. One that fills it goes on with a pooled one.
const smallBuffer = 1 << 10

// sink takes what a side reads. Its calls never overlap.
type sink interface {
	// payload takes buf[from:], in front of which maxHeader bytes are free.
	// No more is read after it returned false.
	payload(buf []byte, from int) bool
	// ended tells how the peer has ended, once.
	ended(err error)
	// stopped is the last call: nothing is read any more.
	stopped()
}

// side is the server's end of one connection. What comes is read by run, in a
// goroutine that holds a buffer only while there is something to read. A side
// that is parked has no goroutine either: its poller starts one.
type side struct {
	conn  net.Conn
	early []byte
	send  sender
	parse parser
	sink  sink
	moved atomic.Int64 // payload bytes read from here

	// The reader's alone.
	raw    syscall.RawConn // nil: conn is read from
	readFn func(fd uintptr) bool
	buf    *[]byte // pooled; nil while there is nothing to read
	swift  bool    // the last read was a large one, and its writing did not wait
	small  []byte  // for a conn without raw
	got    int     // what tryRead read
	gotErr error
	resign bool    // tryRead found nothing, and the side is to be parked
	poller *Poller // nil: never parked

	silence time.Duration // see Options
	every   time.Duration // between pings
	born    time.Time
	since   atomic.Int64 // when it began to wait for input, see waits; 0 while it does not
	busy    atomic.Bool  // payload came since that was asked last
	cold    atomic.Bool  // to be parked at the next opportunity
	quiet   bool         // cold all the time

	handling sync.Mutex // held around the calls of sink

	mu     sync.Mutex
	limit  time.Time // when the side is over for good; zero while it is whole
	silent bool      // the peer is gone
	parked bool
	stay   bool // not to be parked any more
	armed  bool // known to the poller
	fd     int32
	over   bool // no more ticks
	timer  *time.Timer
	nextP  time.Duration // when the next ping is due, since born
	coolAt time.Duration // when to look whether it is to be parked
	ticks  sync.WaitGroup
}

func (s *side) init(p Peer, opts Options) {
	s.conn, s.early, s.born = p.Conn, p.Early, time.Now()
	s.send.init(p.Conn, false)
	s.parse = parser{wantMask: true, maxFrame: opts.maxFrame()}
	s.every, s.silence = opts.ping(), opts.silence()
	if s.raw = rawConn(p.Conn); s.raw != nil {
		s.readFn, s.poller = s.tryRead, opts.Poller
		s.send.useRaw(s.raw, stallWait)
	}
}

func newSide(p Peer, opts Options) *side {
	s := new(side)
	s.init(p, opts)
	return s
}

// start begins the reading and the pings. The sink is there by then.
func (s *side) start() {
	s.keep()
	go s.run()
}

// now is the time since the side was made.
func (s *side) now() time.Duration { return time.Since(s.born) }

// waits notes that from now on the side waits for input.
func (s *side) waits() { s.since.Store(1 + int64(s.now())) }

// errParked ends a reader whose side waits without a goroutine.
var errParked = errors.New("parked")

// run reads until the side is over or parked.
func (s *side) run() {
	for {
		buf, n, err := s.read()
		if err == errParked { // not ours any more: another reader may be at work
			return
		}
		s.handling.Lock()
		from, to, end := s.unwrap(buf, maxHeader+n)
		going := true
		if from < to {
			s.busy.Store(true)
			if !s.quiet && s.cold.Swap(false) {
				s.heated()
			}
			going = s.sink.payload(buf[:to], from)
		}
		if end == nil {
			end = err
		}
		if going && end != nil {
			s.sink.ended(end)
		}
		s.handling.Unlock()
		if !going || end != nil {
			s.release()
			s.sink.stopped()
			return
		}
		s.settle(n)
	}
}

// read reads once, to buf[maxHeader:]. It waits for input until the peer has
// been silent for too long or the side is over.
func (s *side) read() (buf []byte, n int, err error) {
	if len(s.early) > 0 {
		if s.buf == nil {
			s.buf = getPumpBuffer(s.swift)
		}
		n := copy((*s.buf)[maxHeader:], s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return *s.buf, n, nil
	}
	for {
		if s.raw == nil {
			buf, n, err = s.readConn()
		} else {
			buf, n, err = s.readRaw()
		}
		s.since.Store(0)
		switch {
		case s.resign:
			if s.park() {
				return nil, 0, errParked
			}
		case n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !s.whole():
			return buf, n, err
		}
	}
}

// whole is asked after a deadline, which may have been meant to make the
// reader look up only, and reports whether it is to go on.
func (s *side) whole() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent || (!s.limit.IsZero() && !time.Now().Before(s.limit)) {
		return false
	}
	_ = s.conn.SetReadDeadline(s.limit)
	return true
}

func (s *side) readConn() ([]byte, int, error) {
	buf := s.small
	switch {
	case s.buf != nil:
		buf = *s.buf
	case buf == nil:
		s.small = make([]byte, smallBuffer)
		buf = s.small
	}
	s.waits()
	n, err := s.conn.Read(buf[maxHeader:])
	return buf, n, err
}

func (s *side) readRaw() ([]byte, int, error) {
	s.got, s.gotErr, s.resign = 0, nil, false
	err := s.raw.Read(s.readFn)
	if s.gotErr != nil {
		err = s.gotErr
	}
	if s.buf == nil {
		return nil, 0, err
	}
	return *s.buf, s.got, err
}

// tryRead is called with raw's descriptor until it returns true, each time
// when that is ready.
func (s *side) tryRead(fd uintptr) bool {
	if s.buf == nil {
		s.buf = getPumpBuffer(s.swift)
	}
	n, err := rawio.Read(fd, (*s.buf)[maxHeader:])
	switch {
	case n > 0:
		s.got = n
	case errors.Is(err, rawio.ErrWouldBlock):
		s.release()
		if s.cold.Load() && s.poller != nil && !s.stay {
			s.resign = true
			return true
		}
		s.waits()
		return false
	case err == nil:
		s.gotErr = io.EOF
	default:
		s.gotErr = err
	}
	return true
}

// release gives the buffer back.
func (s *side) release() {
	if s.buf != nil {
		putPumpBuffer(s.buf)
		s.buf = nil
	}
}

// settle chooses the buffer for the next read, after one of n bytes: a larger
// one where both ends keep up. A conn without raw has to hold it while it
// waits, so it has a small one where little comes.
func (s *side) settle(n int) {
	if s.buf != nil {
		s.swift = s.swift && n >= pumpSize-maxHeader
		if s.swift != (len(*s.buf) == swiftSize) {
			s.release()
		}
	}
	if s.raw != nil || len(s.early) > 0 {
		return
	}
	switch room := smallBuffer - maxHeader; {
	case s.buf == nil && n == room:
		s.buf = getPumpBuffer(s.swift)
	case s.buf != nil && n < room:
		s.release()
	}
}

// park leaves the waiting to the poller and reports whether it could.
func (s *side) park() bool {
	s.resign = false
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent || !s.limit.IsZero() {
		s.stay = true // from now on there is a deadline to be met
		return false
	}
	s.waits()
	s.parked = true
	if err := s.poller.arm(s); err != nil {
		s.parked, s.stay = false, true
		s.since.Store(0)
		return false
	}
	return true
}

// wake gives a parked side a reader again.
func (s *side) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wakeLocked()
}

func (s *side) wakeLocked() {
	if s.parked {
		s.parked = false
		s.since.Store(0)
		go s.run()
	}
}

// within gives the side d more and no longer, whatever was set before.
func (s *side) within(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = earlier(s.limit, time.Now().Add(d))
	_ = s.conn.SetReadDeadline(s.limit)
	s.send.endBy(s.limit)
	s.wakeLocked()
}

// ending reports whether the side is on borrowed time.
func (s *side) ending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.limit.IsZero()
}

// unwrap parses what was read, buf[maxHeader:end], answers the pings in it and
// moves the payload together, to buf[from:to], where from is at least
// maxHeader. Its error ends the reading once the payload is taken.
func (s *side) unwrap(buf []byte, end int) (from, to int, err error) {
	for pos := maxHeader; pos < end; {
		n, ev, err := s.parse.next(buf[pos:end])
		pos += n
		if err != nil {
			return from, to, err
		}
		switch ev.op {
		case opBinary: // it ends where the parser stopped
			if to == 0 {
				from, to = pos-len(ev.payload), pos
			} else {
				to += copy(buf[to:], ev.payload)
			}
		case opPing:
			s.send.answer(ev.payload)
		case opClose:
			code, reason, err := parseClose(ev.payload)
			if err == nil {
				err = &closed{code: code, reason: reason}
			}
			return from, to, err
		}
	}
	return from, to, nil
}

// closed is a close frame as the end of a side.
type closed struct {
	code   int
	reason string
}

func (*closed) Error() string { return "close frame" }

// finish closes the connection so that what was written last arrives: a
// socket with unread input would answer with a reset. Nothing is read any
// more by then.
func (s *side) finish() {
	s.stopTicks()
	s.within(closeWait)
	_ = s.send.close(CloseNormal, "")
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		// Whatever limit the side had, the reading of the rest has its own.
		_ = s.conn.SetReadDeadline(time.Now().Add(closeWait))
		buf := getBuffer()
		for {
			if _, err := s.conn.Read(*buf); err != nil {
				break
			}
		}
		putBuffer(buf)
	}
	s.leave()
	_ = s.conn.Close()
	s.send.stop()
}

// leave makes the poller forget the side.
func (s *side) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed {
		s.poller.forget(s)
	}
}
