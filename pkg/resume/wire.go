package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of a frame in bytes; spec.md, "Frames".
const (
	headerSize = 12
	tagSize    = 16
	overhead   = headerSize + tagSize
	// maxData is the most data that one frame carries.
	maxData = 32 << 10
	// maxFrame is the longest frame.
	maxFrame = maxData + overhead
)

// frameType says what a frame is.
type frameType byte

const (
	// typeData carries bytes of the stream.
	typeData frameType = iota + 1
	// typeAck carries nothing but the offset that every frame carries.
	typeAck
	// typePing asks for a pong.
	typePing
	typePong
	// typeEnd says that no more data follows. It occupies one offset.
	typeEnd
	// typeClose says that its sender neither writes nor reads any more. It
	// occupies one offset.
	typeClose
	// typeClosed says that everything up to the peer's close was received.
	typeClosed
	typeLimit
)

// Flags of a frame.
const (
	// flagAsk asks for an acknowledgement as soon as everything up to the end
	// of this frame is consumed. Data only.
	flagAsk = 1 << iota
	// flagDry says that the sender of the frame has consumed all that it has
	// received: more in flight would have been of use.
	flagDry
	knownFlags = flagAsk | flagDry
)

// header is the clear, authenticated beginning of a frame.
type header struct {
	kind   frameType
	flags  byte
	length int    // of the data
	acked  uint64 // the offset up to which its sender's user has consumed
}

var errFrame = errors.New("malformed frame")

// parseHeader reads the first headerSize bytes of b. Whatever it accepts is
// short enough to be waited for.
func parseHeader(b []byte) (header, error) {
	h := header{
		kind:   frameType(b[0]),
		flags:  b[1],
		length: int(binary.BigEndian.Uint16(b[2:])),
		acked:  binary.BigEndian.Uint64(b[4:]),
	}
	switch {
	case h.kind == 0 || h.kind >= typeLimit:
		return header{}, fmt.Errorf("%w: unknown type %d", errFrame, h.kind)
	case h.flags&^knownFlags != 0:
		return header{}, fmt.Errorf("%w: unknown flags %#x", errFrame, h.flags)
	case h.kind == typeData && (h.length == 0 || h.length > maxData):
		return header{}, fmt.Errorf("%w: %d bytes of data", errFrame, h.length)
	case h.kind != typeData && (h.length != 0 || h.flags&flagAsk != 0):
		return header{}, fmt.Errorf("%w: type %d with data", errFrame, h.kind)
	}
	return h, nil
}

// append encodes a valid header.
func (h header) append(b []byte) []byte {
	b = append(b, byte(h.kind), h.flags)
	b = binary.BigEndian.AppendUint16(b, uint16(h.length))
	return binary.BigEndian.AppendUint64(b, h.acked)
}

// size is the length of the whole frame.
func (h header) size() int { return h.length + overhead }
