package resume

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// silentTicks is after how many ping intervals in a row without an answer a
// connection is dead.
const silentTicks = 2

// suspended is by how much the clock must have run ahead of the process for
// its connections to be given up: they rarely live through a suspended machine
// and a new one costs less than finding out.
const suspended = 10 * time.Second

var (
	errSilent     = errors.New("the far end does not answer")
	errSuspended  = errors.New("this machine was suspended")
	errSuperseded = errors.New("the client has made a new connection")
	errUsed       = errors.New("an attempt that was made already")
	errStuck      = errors.New("a connection takes long to close")
	errOver       = errors.New("the stream has ended")
)

// headroom is what a carrier may use of a buffer in front of what it writes.
const headroom = 16

// carrier is a connection that wraps what it carries, as a websocket does. It
// can do so without copying.
type carrier interface {
	net.Conn
	// WriteOver is Write of buf[start:], and leaves nothing of buf as it was.
	WriteOver(buf []byte, start int) (int, error)
	// WriteTo is io.WriterTo's, with as few and long Writes as it can.
	WriteTo(w io.Writer) (int64, error)
}

// past wakes whatever waits for the network.
var past = time.Unix(1, 0)

// clock is one moment on the wall and in the process's own time, which stands
// still while the machine is suspended.
type clock struct{ wall, process time.Time }

func readClock() clock {
	now := time.Now()
	return clock{now.Round(0), now}
}

// ahead is by how much more the wall clock has moved since then.
func (c clock) ahead(then clock) time.Duration {
	return c.wall.Sub(then.wall) - c.process.Sub(then.process)
}

// link is a stream's use of one connection: a goroutine that reads, one that
// writes, and a timer that asks whether the far end still lives.
type link struct {
	s         *Stream
	conn      net.Conn
	out, in   *guard
	wake      chan struct{} // one element: there is something to write
	stop      chan struct{} // closed when the link is lost
	confirmBy time.Time     // when an unconfirmed link is lost

	// Guarded by s.mu.
	writing   bool // somebody fills and writes
	confirmed bool // the far end has the keys of this connection
	missed    int  // ticks without a sign of life
	ticker    *time.Timer
	tickClock clock // at the last tick
}

// attachLocked makes conn the stream's connection. The stream has none, and received
// is what the far end says that it has. confirmBy is zero for a connection
// whose far end has shown that it has the key.
func (s *Stream) attachLocked(conn net.Conn, out, in *guard, received uint64, confirmBy time.Time) error {
	if err := s.core.resume(received); err != nil {
		return err
	}
	l := &link{
		s: s, conn: conn, out: out, in: in,
		wake: make(chan struct{}, 1), stop: make(chan struct{}),
		confirmBy: confirmBy, confirmed: confirmBy.IsZero(), tickClock: readClock(),
	}
	if l.confirmed {
		s.established = true
	} else {
		_ = conn.SetReadDeadline(confirmBy)
	}
	s.link, s.progress = l, false
	s.local, s.remote = conn.LocalAddr(), conn.RemoteAddr()
	s.core.alive = true // nothing was asked yet
	l.ticker = time.AfterFunc(jitter(s.ping), l.tick)
	s.owner.spawn(l.run)
	signal(s.writable) // it may grow now
	return nil
}

// jitter spreads d by a quarter either way.
func jitter(d time.Duration) time.Duration {
	return d - d/4 + rand.N(d/2+1)
}

func (l *link) wakeLocked() {
	if !l.writing {
		signal(l.wake)
	}
}

// run reads until the link is lost and then closes the connection.
func (l *link) run() {
	var writer sync.WaitGroup
	writer.Go(l.write)
	l.s.lose(l, l.read())
	writer.Wait()
	_ = l.conn.Close() // it may take seconds; nobody waits for it
}

// lose parks the link: from here on nothing that it reads is taken.
func (s *Stream) lose(l *link, err error) {
	s.mu.Lock()
	was := s.link == l
	if was {
		s.loseLocked(err)
	}
	s.mu.Unlock()
	if was {
		s.owner.changed(s)
	}
}

func (s *Stream) loseLocked(err error) {
	l := s.link
	s.link, s.lost, s.lostAt = nil, err, time.Now()
	close(l.stop)
	l.ticker.Stop()
	_ = l.conn.SetDeadline(past)
	s.core.trim()
	switch {
	case s.over:
	case s.core.peerClosed: // all that could be lost is our answer
		s.endLocked(nil)
	}
}

// fail ends the session. A nil error is that of a stream that was closed.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	s.endLocked(err)
	s.mu.Unlock()
	s.owner.changed(s)
}

func (s *Stream) endLocked(err error) {
	if s.over {
		return
	}
	s.over, s.err = true, err
	if s.link != nil {
		s.loseLocked(errOver)
	}
	s.ackTimer.Stop()
	s.readDeadline.stop()
	s.writeDeadline.stop()
	if s.closed {
		s.core.release()
	}
	s.core.out.discard(s.core.out.end)
	s.core.trim()
	close(s.done)
	signal(s.readable)
	signal(s.writable)
}

// read takes frames until the link is lost.
func (l *link) read() error {
	if c, ok := l.conn.(carrier); ok {
		in := &intake{link: l}
		defer in.release()
		_, err := c.WriteTo(in)
		return broken(err)
	}
	small := make([]byte, smallRead)
	var big *[]byte
	buf, start, end := small, 0, 0
	defer func() {
		if big != nil {
			reads.Put(big)
		}
	}()
	for {
		taken, need, err := l.take(buf[start:end])
		if err != nil {
			return err
		}
		start += taken
		switch {
		case start == end && big != nil && end < smallRead: // it calms down
			reads.Put(big)
			big, buf = nil, small
			start, end = 0, 0
		case need > len(buf) || start == end && end == len(buf) && big == nil:
			big = reads.Get().(*[]byte)
			start, end = 0, copy(*big, buf[start:end])
			buf = *big
		case start+need > len(buf) || start == end:
			start, end = 0, copy(buf, buf[start:end])
		}
		n, err := l.conn.Read(buf[end:])
		if n == 0 && err != nil {
			return broken(err)
		}
		end += n
	}
}

// broken is the error of a connection that has ended, in whatever way.
func broken(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// take takes the whole frames that b begins with. need is how many bytes it
// takes to know more of the next one.
func (l *link) take(b []byte) (taken, need int, err error) {
	for {
		need = headerSize
		if len(b)-taken < need {
			return taken, need, nil
		}
		h, err := parseHeader(b[taken:])
		if err != nil {
			return taken, 0, err
		}
		if need = h.size(); len(b)-taken < need {
			return taken, need, nil
		}
		frame := b[taken : taken+need]
		if err := l.in.verify(frame); err != nil {
			return taken, 0, err
		}
		if err := l.s.receive(l, h, frame[headerSize:need-tagSize]); err != nil {
			return taken, 0, err
		}
		taken += need
	}
}

// receive takes an authenticated frame, unless the link was parked meanwhile.
func (s *Stream) receive(l *link, h header, data []byte) error {
	s.mu.Lock()
	if s.link != l {
		s.mu.Unlock()
		return errSuperseded
	}
	first := !l.confirmed
	if first {
		l.confirmed, s.established = true, true
		_ = l.conn.SetReadDeadline(time.Time{})
	}
	s.progress = true
	err := s.core.receive(h, data)
	switch {
	case err != nil:
		s.endLocked(err)
	case s.core.closedSeen:
		s.endLocked(nil)
	default:
		if s.core.pending() {
			l.wakeLocked()
		}
		s.acknowledgeLocked() // what is discarded is consumed
		if len(data) > 0 || s.core.peerEnded {
			signal(s.readable)
		}
		signal(s.writable)
	}
	over := s.over
	s.mu.Unlock()
	if first || over {
		s.owner.changed(s)
	}
	return err
}

// write writes what is pending, as much at once as there is, until the link is
// lost.
func (l *link) write() {
	for {
		l.drain()
		select {
		case <-l.wake:
		case <-l.stop:
			return
		}
	}
}

// drain writes until nothing is pending, or somebody else writes.
func (l *link) drain() {
	s := l.s
	var buf *[]byte
	s.mu.Lock()
	for s.link == l && !l.writing && s.core.pending() {
		if buf == nil {
			buf = batches.Get().(*[]byte)
		}
		l.writing = true
		frames := s.core.fill((*buf)[headroom:headroom])
		s.mu.Unlock()
		l.send((*buf)[:headroom+len(frames)])
		s.mu.Lock()
	}
	s.mu.Unlock()
	if buf != nil {
		batches.Put(buf)
	}
}

// writeDirect is drain for the goroutine of a Write, which has set l.writing:
// once, of what it wrote.
func (l *link) writeDirect(n int) {
	s := l.s
	pool := directs
	if n > directMax {
		pool = batches
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	s.mu.Lock()
	if s.link != l {
		s.mu.Unlock()
		return
	}
	frames := s.core.fill((*buf)[headroom:headroom])
	s.mu.Unlock()
	l.send((*buf)[:headroom+len(frames)])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.link == l && s.core.pending() {
		l.wakeLocked()
	}
}

// send writes the frames that buf has behind its headroom. The caller has set
// l.writing, which is cleared.
func (l *link) send(buf []byte) {
	s := l.s
	if frames := buf[headroom:]; len(frames) > 0 {
		l.out.seal(frames)
		var err error
		if c, ok := l.conn.(carrier); ok {
			_, err = c.WriteOver(buf, headroom)
		} else {
			_, err = l.conn.Write(frames)
		}
		if err != nil {
			s.lose(l, err)
			return
		}
	}
	s.mu.Lock()
	l.writing = false
	over := s.core.closedSent && s.link == l
	if over {
		s.endLocked(nil)
	}
	s.mu.Unlock()
	signal(s.writable) // everything is sent: it may grow
	if over {
		s.owner.changed(s)
	}
}

// tick sends a ping and finds out whether the last ones were answered.
func (l *link) tick() {
	s := l.s
	s.mu.Lock()
	if s.link != l {
		s.mu.Unlock()
		return
	}
	l.missed++
	if s.core.alive {
		l.missed = 0
	}
	s.core.alive = false
	s.core.trim()
	now := readClock()
	slept := now.ahead(l.tickClock) > suspended
	l.tickClock = now
	var err error
	switch {
	case slept:
		err = errSuspended
	case l.missed >= silentTicks:
		err = errSilent
	default:
		s.core.pingDue = true
		l.wakeLocked()
		l.ticker.Reset(jitter(s.ping))
	}
	s.mu.Unlock()
	if err != nil {
		s.lose(l, err)
	}
}
