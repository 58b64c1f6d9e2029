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
	// stallWait is how long one write, of 512 KiB at most, may take. A peer
	// that is suspended holds its session this long and no longer.
	stallWait = 5 * time.Minute
)

// Peer is one side of a relay: a connection whose handshake the relaying
// server has answered.
type Peer struct {
	// Conn is owned by the relay. If it is a syscall.Conn, as *net.TCPConn is,
	// the relay reads from and writes to its descriptor and calls neither Read
	// nor Write before the end; on Windows it always calls them.
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

// Relay is a Session that the caller waits for; when ctx ends it is shut down.
func Relay(ctx context.Context, a, b Peer, opts Options) Stats {
	result := make(chan Stats, 1)
	session := Join(a, b, opts, func(s Stats) { result <- s })
	defer context.AfterFunc(ctx, session.Shutdown)()
	return <-result
}

// Session is a running relay between two peers.
//
// It moves the bytes of two websocket clients to each other until both have
// ended, and closes both connections. Payload is unmasked where it was read
// and written on from there under a new header; message borders are not kept.
// Pings are answered here, hop by hop, and close frames passed on: after one
// end's close frame the other direction has ten seconds more. An end that
// vanished is reported to the other as 1001, an end that broke the protocol is
// told its code and the other 1011.
//
// A direction that moves bytes has a goroutine and 128 KiB, or 512 KiB while
// both ends keep up; one that waits has the goroutine alone, and after two to
// four seconds without payload, where Options.Poller is set, not that either.
// A connection without a descriptor, as one with TLS, keeps its goroutine and
// 1 KiB. A reader is never ahead of its writer, so that back-pressure is the
// kernel's.
type Session struct {
	done func(Stats)
	a    *side
	left atomic.Int32 // directions that are not over
	end  atomic.Value // string: the first reason

	mu     sync.Mutex
	b      *side  // changes once where it was on trial; nil if there is none in the end
	port   *Port  // b was on trial; may be nil
	cancel func() // ends the trial; may be nil
	shut   bool
}

// Join starts a relay. done is called once, when both connections are closed
// and nothing of the session is running any more but done itself.
func Join(a, b Peer, opts Options, done func(Stats)) *Session {
	r := &Session{done: done, a: newSide(a, opts), b: newSide(b, opts)}
	r.a.sink, r.b.sink = &direction{r, r.a, r.b}, &direction{r, r.b, r.a}
	r.left.Store(2)
	r.a.start()
	r.b.start()
	return r
}

// Shutdown ends the session because the server does: both ends get 1012 and
// a second to go. It may be called more than once, and after the end.
func (r *Session) Shutdown() {
	r.endAll("server shutdown", CloseServiceRestart, "the server is restarting")
}

// CloseWith ends the session with a close code and a reason, of which both ends
// are told. They have a second to go.
func (r *Session) CloseWith(code int, reason string) { r.endAll(reason, code, reason) }

// Moved is how many payload bytes have been moved so far. It may be called at
// any time.
func (r *Session) Moved() (aToB, bToA int64) {
	r.mu.Lock()
	b := r.b
	r.mu.Unlock()
	if b != nil {
		bToA = b.moved.Load()
	}
	return r.a.moved.Load(), bToA
}

// endAll ends both sides, and the trial if there is one.
func (r *Session) endAll(why string, code int, reason string) {
	r.because(why)
	r.mu.Lock()
	r.shut = true
	sides := []*side{r.a, r.b}
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	for _, s := range sides {
		if s != nil {
			s.within(closeWait)
			_ = s.send.close(code, reason)
		}
	}
}

// restart ends a side because the server does.
func (s *side) restart() {
	s.within(closeWait)
	_ = s.send.close(CloseServiceRestart, "the server is restarting")
}

// because notes the first reason for the end.
func (r *Session) because(why string) { r.end.CompareAndSwap(nil, why) }

// direction moves what src sends to dst.
type direction struct {
	r        *Session
	src, dst *side
}

// payload implements sink.
func (d *direction) payload(buf []byte, from int) bool {
	payload := int64(len(buf) - from)
	if d.dst.raw == nil { // otherwise the sender has the limit
		d.dst.send.setDeadline(time.Now().Add(stallWait))
	}
	_, err := d.dst.send.data(buf, from)
	switch {
	case err == nil:
		d.src.moved.Add(payload)
		d.src.swift = d.dst.raw != nil && !d.dst.send.slow.Load()
		return true
	case errors.Is(err, errCloseSent):
		// What comes after the end that dst was told is not to be delivered
		// (section 5.5.1), but src's own close frame is still to be read.
		return true
	}
	// dst may have sent its last words before it went: its own reader takes
	// them, and then tells src.
	if errors.Is(err, os.ErrDeadlineExceeded) && !d.dst.ending() {
		d.r.because("stalled")
	} else {
		d.r.because("connection broken")
	}
	d.dst.within(closeWait)
	return false
}

// ended implements sink: it tells both sides how src has ended.
func (d *direction) ended(end error) {
	src, dst := d.src, d.dst
	var frame *closed
	var protocol *ProtocolError
	switch {
	case errors.As(end, &frame):
		d.r.because("close frame")
		dst.within(lingerWait) // to finish what it has to say
		_ = dst.send.close(frame.code, frame.reason)
		return
	case errors.As(end, &protocol):
		d.r.because(protocol.Text)
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
	d.r.because(why)
	src.within(closeWait)
	dst.within(closeWait)
	_ = dst.send.close(CloseGoingAway, reason)
}

// stopped implements sink.
func (d *direction) stopped() { d.r.stopped() }

// stopped counts a direction out. The second one closes both sides.
func (r *Session) stopped() {
	if r.left.Add(-1) > 0 {
		return
	}
	r.mu.Lock()
	b := r.b
	r.mu.Unlock()
	var other sync.WaitGroup
	other.Go(r.a.finish)
	stats := Stats{AToB: r.a.moved.Load()}
	if b != nil {
		b.finish()
		stats.BToA = b.moved.Load()
		if r.port != nil && b == &r.port.side {
			r.port.h.Closed()
		}
	}
	other.Wait()
	stats.End, _ = r.end.Load().(string)
	r.done(stats)
}
