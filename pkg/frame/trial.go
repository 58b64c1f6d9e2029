package frame

import (
	"context"
	"errors"
	"sync"
	"time"
)

// maxHeld is how much a trial remembers of what the client said, in bytes, and
// how long an answer may be. An SSH client's first words are 2 KiB.
const maxHeld = 16 << 10

// Trial is a parked connection that is offered a client. It may have died
// without anybody having noticed; the client must not notice either.
type Trial struct {
	// Port is the parked connection. Its handler is told nothing more, except
	// that it was closed where it was of no use.
	Port *Port
	// Offer is the payload that it gets before what the client says.
	Offer []byte
	// Answer is given all that came from it so far, 16 KiB at most, and returns
	// the length of the answer, or 0 while that is not complete. What follows
	// it is for the client. An error ends the session, with that sentence.
	Answer func(b []byte) (int, error)
	// Wait is how long the answer may take.
	Wait time.Duration
	// Instead gets another connection in place of one that has not answered.
	// It may take as long as ctx lets it. What the client has said by then is
	// said again.
	Instead func(ctx context.Context) (Peer, error)
}

// JoinTrial is Join with a parked connection as b. What is done about b's
// being closed is its handler's, unless b was replaced.
func JoinTrial(a Peer, spare Trial, opts Options, done func(Stats)) *Session {
	r := &Session{done: done, a: newSide(a, opts), port: spare.Port}
	ctx, cancel := context.WithCancel(context.Background())
	t := &trial{Trial: spare, r: r, opts: opts, ctx: ctx, settled: make(chan struct{})}
	r.cancel = cancel
	r.a.sink = &hesitant{t}
	r.left.Store(2)
	t.mu.Lock()
	t.timer = time.AfterFunc(spare.Wait, t.fail)
	claimed := spare.Port.claim((*candidate)(t))
	if claimed {
		r.mu.Lock()
		r.b = &spare.Port.side
		r.mu.Unlock()
	} else { // it ended a moment ago
		t.failed = true
		go t.instead()
	}
	t.mu.Unlock()
	if claimed {
		if err := spare.Port.Send(spare.Offer, spare.Wait); err != nil {
			t.fail()
		}
		spare.Port.side.send.setDeadline(time.Time{})
	}
	r.a.start()
	return r
}

// claim gives a port's connection another sink, unless the port has ended.
func (p *Port) claim(s sink) bool {
	p.side.handling.Lock()
	defer p.side.handling.Unlock()
	if p.over {
		return false
	}
	p.over = true
	p.side.sink, p.side.quiet = s, false
	p.side.cold.Store(false)
	return true
}

// trial is a session whose b has not answered yet.
type trial struct {
	Trial
	r    *Session
	opts Options
	ctx  context.Context // the session's life until it is settled

	mu      sync.Mutex
	timer   *time.Timer
	held    []byte // what a has said
	got     []byte // of the answer
	failed  bool   // the spare is given up
	closed  bool   // settled is closed
	settled chan struct{}
}

// settle ends the trial: r.b is what it is. mu is held.
func (t *trial) settle() {
	t.closed, t.held, t.got = true, nil, nil
	t.timer.Stop()
	t.r.cancel()
	close(t.settled)
}

// fail gives the spare up and looks for another connection.
func (t *trial) fail() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.failed && !t.closed {
		t.failed = true
		t.Port.Abort()
		go t.instead()
	}
}

// instead replaces the spare.
func (t *trial) instead() {
	r := t.r
	peer, err := t.Instead(t.ctx)
	if err != nil {
		t.refuse(err)
		return
	}
	b := newSide(peer, t.opts)
	b.sink = &direction{r, b, r.a}
	t.mu.Lock()
	r.mu.Lock()
	r.b = b
	shut := r.shut
	r.mu.Unlock()
	if len(t.held) > 0 {
		// Its error is met by what comes next.
		_, _ = b.send.data(append(make([]byte, maxHeader), t.held...), maxHeader)
	}
	t.settle()
	t.mu.Unlock()
	if shut {
		b.restart()
	}
	b.keep()
	b.run()
}

// refuse ends a session that has no second end, with a sentence.
func (t *trial) refuse(err error) {
	r := t.r
	r.because(err.Error())
	t.mu.Lock()
	r.mu.Lock()
	r.b = nil
	r.mu.Unlock()
	t.settle()
	t.mu.Unlock()
	r.a.within(closeWait)
	_ = r.a.send.close(CloseTryAgainLater, err.Error())
	r.stopped()
}

// candidate is the sink of the spare.
type candidate trial

func (c *candidate) payload(buf []byte, from int) bool {
	t := (*trial)(c)
	t.mu.Lock()
	if t.failed {
		t.mu.Unlock()
		return false
	}
	t.got = append(t.got, buf[from:]...)
	n, err := t.Answer(t.got[:min(len(t.got), maxHeld)])
	if err == nil && n == 0 && len(t.got) >= maxHeld {
		err = errors.New("the agent's answer makes no sense")
	}
	switch {
	case err != nil:
		t.failed = true
		t.mu.Unlock()
		t.Port.Abort()
		t.refuse(err)
		return false
	case n == 0:
		t.mu.Unlock()
		return true
	}
	rest := len(t.got) - n
	d := &direction{t.r, t.r.b, t.r.a}
	d.src.sink = d
	t.settle()
	t.mu.Unlock()
	return rest == 0 || d.payload(buf, len(buf)-rest)
}

func (c *candidate) ended(error) { (*trial)(c).fail() }

func (c *candidate) stopped() {
	c.Port.side.finish()
	c.Port.h.Closed()
}

// hesitant is the sink of a during the trial.
type hesitant struct{ t *trial }

func (h *hesitant) payload(buf []byte, from int) bool {
	t := h.t
	t.mu.Lock()
	if !t.closed && len(t.held)+len(buf)-from <= maxHeld {
		t.held = append(t.held, buf[from:]...)
		spare, failed := &t.Port.side, t.failed
		t.mu.Unlock()
		t.r.a.moved.Add(int64(len(buf) - from))
		if !failed {
			_, _ = spare.send.data(buf, from)
		}
		return true
	}
	t.mu.Unlock()
	return h.decided().payload(buf, from)
}

// decided waits for the end of the trial and returns a's sink from then on.
func (h *hesitant) decided() sink {
	<-h.t.settled
	r := h.t.r
	r.mu.Lock()
	b := r.b
	r.mu.Unlock()
	if b == nil {
		r.a.sink = &refused{r}
	} else {
		r.a.sink = &direction{r, r.a, b}
	}
	return r.a.sink
}

func (h *hesitant) ended(err error) {
	var frame *closed
	if !errors.As(err, &frame) { // otherwise an answer is still wanted
		h.t.r.cancel()
	}
	h.decided().ended(err)
}

func (h *hesitant) stopped() { h.t.r.stopped() }

// refused is the sink of a client that waits for its end.
type refused struct{ r *Session }

func (*refused) payload([]byte, int) bool { return true }
func (*refused) ended(error)              {}
func (f *refused) stopped()               { f.r.stopped() }
