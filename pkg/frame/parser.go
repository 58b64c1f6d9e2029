package frame

import "errors"

// event is what one step of the parser found: payload of a data message, or
// a whole control frame, or nothing yet.
type event struct {
	// op is opBinary for payload, a control opcode, or 0 when all input was
	// consumed without completing anything.
	op byte
	// payload is unmasked. For data it aliases the input, for control frames
	// the parser, and is valid until the next call.
	payload []byte
}

// parser takes a connection's bytes in whatever pieces they arrive and gives
// back the payload of binary messages and the control frames between them. It
// holds at most one header and one control payload, so that a peer cannot
// make it grow. It is not safe for concurrent use.
type parser struct {
	// wantMask is whether the peer must mask (section 5.1): true at a server.
	wantMask bool
	// maxFrame is the longest accepted data frame in bytes.
	maxFrame int64

	carry  [maxHeader]byte // an incomplete header
	ncarry int

	cur       header // the frame whose payload is being read
	inPayload bool
	read      int64 // payload bytes of cur already consumed
	inMessage bool  // a fragmented message is not finished

	ctrl  [maxControl]byte
	nctrl int
}

// next consumes a prefix of b and returns its length with what it found. The
// caller goes on with the rest until all of b is consumed. A frame with an
// empty payload is skipped: to a byte stream it is nothing.
func (p *parser) next(b []byte) (n int, ev event, err error) {
	for {
		if !p.inPayload {
			used, err := p.takeHeader(b[n:])
			n += used
			if errors.Is(err, errShort) {
				return n, event{}, nil
			}
			if err != nil {
				return n, event{}, err
			}
			p.inPayload, p.read, p.nctrl = true, 0, 0
		}
		left := p.cur.length - p.read
		avail := b[n:]
		if int64(len(avail)) > left {
			avail = avail[:left]
		}
		if len(avail) == 0 && left > 0 {
			return n, event{}, nil
		}
		if p.cur.masked {
			mask(avail, p.cur.key, int(p.read&3))
		}
		n += len(avail)
		p.read += int64(len(avail))
		done := p.read == p.cur.length
		if done {
			p.inPayload = false
		}
		if p.cur.control() {
			p.nctrl += copy(p.ctrl[p.nctrl:], avail)
			if !done {
				return n, event{}, nil
			}
			return n, event{op: p.cur.op, payload: p.ctrl[:p.nctrl]}, nil
		}
		if done {
			p.inMessage = !p.cur.fin
		}
		if len(avail) > 0 {
			return n, event{op: opBinary, payload: avail}, nil
		}
	}
}

// takeHeader reads a header, of which a part may have come with earlier
// input, into p.cur and returns how much of b it took.
func (p *parser) takeHeader(b []byte) (int, error) {
	if p.ncarry == 0 {
		h, n, err := parseHeader(b)
		switch {
		case errors.Is(err, errShort):
			p.ncarry = copy(p.carry[:], b)
			return len(b), err
		case err != nil:
			return 0, err
		}
		return n, p.accept(h)
	}
	before := p.ncarry
	held := before + copy(p.carry[before:], b)
	h, n, err := parseHeader(p.carry[:held])
	switch {
	case errors.Is(err, errShort):
		p.ncarry = held
		return held - before, err
	case err != nil:
		return 0, err
	}
	p.ncarry = 0
	return n - before, p.accept(h)
}

// accept checks a header against the state of the connection.
func (p *parser) accept(h header) error {
	if h.masked != p.wantMask {
		if p.wantMask {
			return violation(CloseProtocolError, "frame from a client is not masked")
		}
		return violation(CloseProtocolError, "frame from a server is masked")
	}
	switch h.op {
	case opText:
		return violation(CloseUnsupported, "text frame: only binary frames are taken")
	case opBinary:
		if p.inMessage {
			return violation(CloseProtocolError, "new message inside a fragmented one")
		}
	case opContinuation:
		if !p.inMessage {
			return violation(CloseProtocolError, "continuation without a message")
		}
	}
	if h.length > p.maxFrame && !h.control() {
		return violation(CloseTooBig, "frame longer than the limit")
	}
	p.cur = h
	return nil
}
