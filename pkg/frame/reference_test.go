package frame

import (
	"bufio"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"unicode/utf8"
)

// This file is RFC 6455 a second time, written to be obviously right and not
// to be fast or incremental, and without anything of the package it judges:
// an encoder that can also send what is forbidden, a decoder of a whole
// recording, and a reader of what the package sends.

// refFrame is a frame, also one that no peer may send.
type refFrame struct {
	fin     bool
	rsv     byte // RSV1 is 4, RSV2 2, RSV3 1
	op      byte
	payload []byte
}

// refEncode encodes a frame, masked with the key unless that is nil.
func refEncode(f refFrame, key []byte) []byte {
	b := append(make([]byte, 0, len(f.payload)+14), f.rsv<<4|f.op, 0)
	if f.fin {
		b[0] |= 0x80
	}
	switch n := len(f.payload); {
	case n <= 125:
		b[1] = byte(n)
	case n <= 0xffff:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	if key == nil {
		return append(b, f.payload...)
	}
	b[1] |= 0x80
	b = append(b, key...)
	return append(b, refMask(f.payload, key)...)
}

// refMask is section 5.3: octet i is combined with octet i modulo 4 of the key.
func refMask(b, key []byte) []byte {
	stream := slices.Repeat(key, 1<<10)
	out := make([]byte, len(b))
	for at := 0; at < len(b); at += len(stream) {
		subtle.XORBytes(out[at:], b[at:], stream)
	}
	return out
}

// refKey draws a masking key, or none for a server.
func refKey(rnd *rand.Rand, masked bool) []byte {
	if !masked {
		return nil
	}
	return binary.BigEndian.AppendUint32(nil, rnd.Uint32())
}

// The ends of a recording.
const (
	refOpen   = "open"   // nothing wrong yet, and not at an end
	refClosed = "closed" // a close frame
	refFailed = "failed" // the connection has to be failed
)

// refDecoded is what a recording of one direction means.
type refDecoded struct {
	payload []byte   // of the data messages, as far as it arrived
	pings   []string // their payloads
	pongs   []string
	end     string
	code    int // the close frame's, or the one to fail with
	reason  string
	frames  int // whole frames
}

// refDecode reads a recording of what a peer sent, by sections 5.2, 5.4, 5.5
// and 7.4, in the order of the octets.
func refDecode(wire []byte, masked bool, maxFrame uint64) (d refDecoded) {
	d.end = refOpen
	fail := func(code int) refDecoded {
		d.end, d.code = refFailed, code
		return d
	}
	inMessage := false
	for len(wire) >= 2 {
		fin, op := wire[0]>>7 == 1, wire[0]&15
		control := op >= 8
		length := uint64(wire[1] & 0x7f)
		isMasked := wire[1]>>7 == 1
		switch {
		case wire[0]>>4&7 != 0: // no extension gives them a meaning
			return fail(1002)
		case op > 10, op > 2 && op < 8: // reserved
			return fail(1002)
		case control && (!fin || length > 125):
			return fail(1002)
		}
		wire = wire[2:]
		switch length {
		case 126:
			if len(wire) < 2 {
				return d
			}
			length = uint64(wire[0])<<8 | uint64(wire[1])
			wire = wire[2:]
			if length < 126 { // not the shortest form
				return fail(1002)
			}
		case 127:
			if len(wire) < 8 {
				return d
			}
			length = binary.BigEndian.Uint64(wire)
			wire = wire[8:]
			if length < 1<<16 || length >= 1<<63 {
				return fail(1002)
			}
		}
		var key []byte
		if isMasked {
			if len(wire) < 4 {
				return d
			}
			key, wire = wire[:4], wire[4:]
		}
		switch {
		case isMasked != masked:
			return fail(1002)
		case op == 1: // this package takes no text
			return fail(1003)
		case op == 0 && !inMessage, op == 2 && inMessage:
			return fail(1002)
		case !control && length > maxFrame:
			return fail(1009)
		}
		whole := uint64(len(wire)) >= length
		part := wire[:min(length, uint64(len(wire)))]
		wire = wire[len(part):]
		if isMasked {
			part = refMask(part, key)
		}
		if !control {
			d.payload = join(d.payload, part)
			inMessage = !fin
		}
		if !whole {
			return d
		}
		d.frames++
		switch op {
		case 8:
			return d.closed(part)
		case 9:
			d.pings = append(d.pings, string(part))
		case 10:
			d.pongs = append(d.pongs, string(part))
		}
	}
	return d
}

// closed judges the payload of a close frame (sections 5.5.1 and 7.4).
func (d refDecoded) closed(b []byte) refDecoded {
	d.end, d.code = refClosed, 1005
	if len(b) == 0 {
		return d
	}
	if len(b) > 1 {
		d.code, d.reason = int(b[0])<<8|int(b[1]), string(b[2:])
	}
	defined := slices.Contains([]int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}, d.code)
	switch {
	case len(b) == 1, !defined && (d.code < 3000 || d.code > 4999):
		d.end, d.code, d.reason = refFailed, 1002, ""
	case !utf8.ValidString(d.reason):
		d.end, d.code, d.reason = refFailed, 1007, ""
	}
	return d
}

// refRead reads one frame of an end that keeps to the RFC, and says what is
// wrong with any other: what the package sends is judged here.
func refRead(r *bufio.Reader, masked bool) (refFrame, error) {
	b := make([]byte, 2, 14)
	if _, err := io.ReadFull(r, b); err != nil {
		return refFrame{}, err
	}
	f := refFrame{fin: b[0]>>7 == 1, rsv: b[0] >> 4 & 7, op: b[0] & 15}
	length := uint64(b[1] & 0x7f)
	switch length {
	case 126:
		b = b[:4]
	case 127:
		b = b[:10]
	}
	if _, err := io.ReadFull(r, b[2:]); err != nil {
		return f, fmt.Errorf("inside a header: %w", err)
	}
	switch {
	case length == 126:
		length = uint64(binary.BigEndian.Uint16(b[2:]))
	case length == 127:
		length = binary.BigEndian.Uint64(b[2:])
	}
	shortest := length <= 125 && len(b) == 2 || length > 125 && length <= 0xffff && len(b) == 4 || length > 0xffff && len(b) == 10
	switch {
	case b[1]>>7 == 1 != masked:
		return f, fmt.Errorf("masked %v, want %v", !masked, masked)
	case f.rsv != 0, !slices.Contains([]byte{0, 2, 8, 9, 10}, f.op):
		return f, fmt.Errorf("reserved bits %d or opcode %X", f.rsv, f.op)
	case !shortest || length > DefaultMaxFrame:
		return f, fmt.Errorf("length %d in %d octets", length, len(b))
	case f.op >= 8 && (!f.fin || length > 125):
		return f, fmt.Errorf("control frame with fin %v and %d octets", f.fin, length)
	}
	var key [4]byte
	if masked {
		if _, err := io.ReadFull(r, key[:]); err != nil {
			return f, fmt.Errorf("inside a header: %w", err)
		}
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return f, fmt.Errorf("inside a payload: %w", err)
	}
	if masked {
		f.payload = refMask(f.payload, key[:])
	}
	return f, nil
}
