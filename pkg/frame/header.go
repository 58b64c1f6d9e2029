package frame

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Opcodes of RFC 6455, section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Close codes of RFC 6455, section 7.4.1, and of the IANA registry that
// continues it.
const (
	CloseNormal         = 1000
	CloseGoingAway      = 1001
	CloseProtocolError  = 1002
	CloseUnsupported    = 1003
	CloseNoStatus       = 1005
	CloseAbnormal       = 1006
	CloseInvalidPayload = 1007
	ClosePolicy         = 1008
	CloseTooBig         = 1009
	CloseInternalError  = 1011
	CloseServiceRestart = 1012
	CloseTryAgainLater  = 1013
)

const (
	// maxHeader is the longest frame header in bytes: two, a 64-bit length
	// and a masking key.
	maxHeader = 14
	// maxControl is the longest payload of a control frame in bytes
	// (RFC 6455, section 5.5).
	maxControl = 125
	// maxReason is the longest close reason in bytes.
	maxReason = maxControl - 2
)

// header is a decoded frame header (RFC 6455, section 5.2).
type header struct {
	fin    bool
	op     byte
	masked bool
	key    [4]byte
	length int64
}

// control reports whether the frame is a control frame (section 5.5).
func (h header) control() bool { return h.op&0x8 != 0 }

// ProtocolError is a frame that the connection had to be failed for.
type ProtocolError struct {
	// Code is the close code sent to the peer (section 7.4.1).
	Code int
	// Text says what was wrong.
	Text string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("websocket: %s (close code %d)", e.Text, e.Code)
}

func violation(code int, text string) error { return &ProtocolError{Code: code, Text: text} }

// errShort says that a header is not complete yet.
var errShort = errors.New("incomplete frame header")

// parseHeader decodes the header at the start of b and returns its length. It
// returns errShort while b ends inside it and a *ProtocolError for what no
// peer may send.
func parseHeader(b []byte) (header, int, error) {
	if len(b) < 2 {
		return header{}, 0, errShort
	}
	h := header{fin: b[0]&0x80 != 0, op: b[0] & 0x0f, masked: b[1]&0x80 != 0}
	if b[0]&0x70 != 0 {
		return h, 0, violation(CloseProtocolError, "reserved bits set without an extension")
	}
	short := int64(b[1] & 0x7f)
	switch h.op {
	case opContinuation, opText, opBinary:
	case opClose, opPing, opPong:
		if !h.fin {
			return h, 0, violation(CloseProtocolError, "fragmented control frame")
		}
		if short > maxControl {
			return h, 0, violation(CloseProtocolError, "control frame longer than 125 bytes")
		}
	default:
		return h, 0, violation(CloseProtocolError, fmt.Sprintf("reserved opcode 0x%X", h.op))
	}
	n := 2
	switch short {
	case 126:
		if len(b) < n+2 {
			return h, 0, errShort
		}
		h.length = int64(binary.BigEndian.Uint16(b[n:]))
		n += 2
		if h.length < 126 {
			return h, 0, violation(CloseProtocolError, "length not in its shortest form")
		}
	case 127:
		if len(b) < n+8 {
			return h, 0, errShort
		}
		length := binary.BigEndian.Uint64(b[n:])
		n += 8
		if length > math.MaxInt64 {
			return h, 0, violation(CloseProtocolError, "length with the highest bit set")
		}
		h.length = int64(length)
		if h.length <= math.MaxUint16 {
			return h, 0, violation(CloseProtocolError, "length not in its shortest form")
		}
	default:
		h.length = short
	}
	if h.masked {
		if len(b) < n+4 {
			return h, 0, errShort
		}
		copy(h.key[:], b[n:])
		n += 4
	}
	return h, n, nil
}

// appendHeader appends the header to dst, its length in the shortest form.
func appendHeader(dst []byte, h header) []byte {
	first := h.op
	if h.fin {
		first |= 0x80
	}
	var second byte
	if h.masked {
		second = 0x80
	}
	switch {
	case h.length < 126:
		dst = append(dst, first, second|byte(h.length))
	case h.length <= math.MaxUint16:
		dst = append(dst, first, second|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(h.length))
	default:
		dst = append(dst, first, second|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(h.length))
	}
	if h.masked {
		dst = append(dst, h.key[:]...)
	}
	return dst
}

// mask applies the key to b, whose first byte is at offset in the payload
// (section 5.3). It is its own inverse.
func mask(b []byte, key [4]byte, offset int) { ws.Cipher(b, key, offset) }

// appendClose appends the payload of a close frame. Codes that must not be
// sent (section 7.4.1) give an empty payload; a long reason is cut at a rune.
func appendClose(dst []byte, code int, reason string) []byte {
	if !sendable(code) {
		return dst
	}
	if len(reason) > maxReason {
		reason = reason[:maxReason]
		for len(reason) > 0 && !utf8.ValidString(reason) {
			reason = reason[:len(reason)-1]
		}
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// parseClose decodes the payload of a close frame; an empty one is
// CloseNoStatus.
func parseClose(b []byte) (code int, reason string, err error) {
	switch len(b) {
	case 0:
		return CloseNoStatus, "", nil
	case 1:
		return 0, "", violation(CloseProtocolError, "close frame with half a code")
	}
	code = int(binary.BigEndian.Uint16(b))
	if !sendable(code) {
		return 0, "", violation(CloseProtocolError, fmt.Sprintf("close code %d may not be sent", code))
	}
	if !utf8.Valid(b[2:]) {
		return 0, "", violation(CloseInvalidPayload, "close reason is not UTF-8")
	}
	return code, string(b[2:]), nil
}

// sendable reports whether a code may stand in a close frame.
func sendable(code int) bool {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
		return true
	}
	return false
}
