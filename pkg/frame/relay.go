package frame

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Limits of a relay.
const (
	// lingerWait is how long the other direction may go on after one end has
	// sent its close frame. wsproxy waits five seconds at the most.
	lingerWait = 10 * time.Second
	// stallWait is how long one write, of 64 KiB at most, may take. A peer
	// that is suspended holds its session this long and no longer.
	stallWait = 5 * time.Minute
	// smallBuffer is what an idle direction waits with, in bytes: enough for
	// a keystroke. One that fills it goes on with a pooled buffer.
	smallBuffer = 1 << 10
)

// Peer is one side of a relay: a connection whose handshake the relaying
// server has answered.
type Peer struct {
	// Conn is owned by Relay from the call on.
	Conn net.Conn
	// Early is what came in the same segments as the handshake.
	Early []byte
}

// Stats count what a relay moved.
type Stats struct {
	// AToB and BToA are payload bytes.
	AToB, BToA int64
	// End says in a few words why the relay ended.
	End string
}

// Relay moves the bytes of two websocket clients to each other until both
// have ended, and closes both connections. Payload is unmasked where it was
// read and written on from there under a new header; message borders are not
// kept. Pings are answered here, hop by hop, and close frames passed on: after
// one end's close frame the other direction has ten seconds more. An end that
// vanished is reported to the other as 1001, an end that broke the protocol is
// told its code and the other 1011. When ctx ends, both get 1012.
//
// Memory is 64 KiB per busy direction and 1 KiB per idle one; a reader is
// never ahead of its writer, so that back-pressure is the kernel's.
func Relay(ctx context.Context, a, b Peer, opts Options) Stats {
	r := &relay{opts: opts}
	r.a.init(a, opts)
	r.b.init(b, opts)

	done := make(chan struct{})
	var controls, pumps sync.WaitGroup
	controls.Go(func() { r.a.send.control(opts.ping(), done) })
	controls.Go(func() { r.b.send.control(opts.ping(), done) })
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		r.shutdown()
	})
	pumps.Go(func() { r.pump(&r.b, &r.a) })
	r.pump(&r.a, &r.b)
	pumps.Wait()
	if !stop() {
		<-stopped
	}
	pumps.Go(r.a.finish)
	r.b.finish()
	pumps.Wait()
	close(done)
	controls.Wait()
	end, _ := r.end.Load().(string)
	return Stats{AToB: r.a.moved, BToA: r.b.moved, End: end}
}

// relay is a running Relay.
type relay struct {
	opts Options
	a, b side
	end  atomic.Value // string: the first reason
}

// side is one end of a relay.
type side struct {
	conn  net.Conn
	early []byte
	send  sender
	parse parser
	moved int64 // payload bytes read from here; its pump's alone
	small [smallBuffer]byte

	mu    sync.Mutex
	limit time.Time // when the side is over for good; zero while it is whole
}

func (s *side) init(p Peer, opts Options) {
	s.conn, s.early = p.Conn, p.Early
	s.send.init(p.Conn, false)
	s.parse = parser{wantMask: true, maxFrame: opts.maxFrame()}
}

// within gives the side d more and no longer, whatever was set before.
func (s *side) within(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = earlier(s.limit, time.Now().Add(d))
	_ = s.conn.SetReadDeadline(s.limit)
	s.send.endBy(s.limit)
}

// over reports whether the side is on borrowed time.
func (s *side) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.limit.IsZero()
}

// read waits for input until the peer has been silent for the given time (0 is
// for ever) or the side is over.
func (s *side) read(buf []byte, silence time.Duration) (int, error) {
	if len(s.early) > 0 {
		n := copy(buf, s.early)
		if s.early = s.early[n:]; len(s.early) == 0 {
			s.early = nil
		}
		return n, nil
	}
	for {
		if silence > 0 {
			s.mu.Lock()
			_ = s.conn.SetReadDeadline(earlier(s.limit, time.Now().Add(silence)))
			s.mu.Unlock()
		}
		n, err := s.conn.Read(buf)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && !s.over() && s.send.busy() {
			// A peer that takes nothing gets no ping to answer: it may be
			// suspended, and stallWait is its limit.
			continue
		}
		return n, err
	}
}

// because notes the first reason for the end.
func (r *relay) because(why string) { r.end.CompareAndSwap(nil, why) }

// shutdown ends both sides because the server does.
func (r *relay) shutdown() {
	r.because("server shutdown")
	r.a.within(closeWait)
	r.b.within(closeWait)
	_ = r.a.send.close(CloseServiceRestart, "the server is restarting")
	_ = r.b.send.close(CloseServiceRestart, "the server is restarting")
}

// pump moves what src sends to dst until src has ended.
func (r *relay) pump(dst, src *side) {
	var big *[]byte // nil while src sends little
	defer func() {
		if big != nil {
			putBuffer(big)
		}
	}()
	for {
		buf := src.small[:]
		if big != nil {
			buf = *big
		}
		n, err := src.read(buf[maxHeader:], r.opts.silence())
		from, to, end := src.unwrap(buf, maxHeader+n)
		if from < to && !r.forward(dst, src, buf[:to], from) {
			return
		}
		if end == nil {
			end = err
		}
		if end != nil {
			r.ended(dst, src, end)
			return
		}
		switch {
		case big == nil && n == len(buf)-maxHeader:
			big = getBuffer()
		case big != nil && n < smallBuffer-maxHeader:
			putBuffer(big)
			big = nil
		}
	}
}

// unwrap parses what was read, buf[maxHeader:end], answers the pings in it and
// moves the payload together, to buf[from:to], where from is at least
// maxHeader. Its error ends the pump once the payload is written.
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

// forward writes the payload buf[start:] on and reports whether dst takes
// more.
func (r *relay) forward(dst, src *side, buf []byte, start int) bool {
	payload := int64(len(buf) - start)
	dst.send.setDeadline(time.Now().Add(stallWait))
	_, err := dst.send.data(buf, start)
	switch {
	case err == nil:
		src.moved += payload
		return true
	case errors.Is(err, errCloseSent):
		// What comes after the end that dst was told is not to be delivered
		// (section 5.5.1), but src's own close frame is still to be read.
		return true
	}
	// dst may have sent its last words before it went: its own pump reads
	// them, and then tells src.
	if errors.Is(err, os.ErrDeadlineExceeded) && !dst.over() {
		r.because("stalled")
	} else {
		r.because("connection broken")
	}
	dst.within(closeWait)
	return false
}

// closed is a close frame as the end of a pump.
type closed struct {
	code   int
	reason string
}

func (*closed) Error() string { return "close frame" }

// ended tells both sides how src has ended.
func (r *relay) ended(dst, src *side, end error) {
	var frame *closed
	var protocol *ProtocolError
	switch {
	case errors.As(end, &frame):
		r.because("close frame")
		dst.within(lingerWait) // to finish what it has to say
		_ = dst.send.close(frame.code, frame.reason)
		return
	case errors.As(end, &protocol):
		r.because(protocol.Text)
		src.within(closeWait)
		dst.within(closeWait)
		_ = src.send.close(protocol.Code, protocol.Text)
		_ = dst.send.close(CloseInternalError, "the other end broke the websocket protocol")
		return
	}
	why, reason := "connection broken", "the other end is gone"
	switch {
	case errors.Is(end, os.ErrDeadlineExceeded):
		why, reason = "silent", "the other end does not answer any more"
	case errors.Is(end, io.EOF):
		why = "connection ended"
	}
	r.because(why)
	src.within(closeWait)
	dst.within(closeWait)
	_ = dst.send.close(CloseGoingAway, reason)
}

// finish closes the connection so that what was written last arrives: a
// socket with unread input would answer with a reset.
func (s *side) finish() {
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
	_ = s.conn.Close()
}
