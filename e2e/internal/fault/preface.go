package fault

import (
	"bytes"
	"encoding/binary"
)

// message is the type of the first message of a resumable stream.
type message byte

const (
	none    message = 0
	welcome message = 2
	resumed message = 4
	refused message = 5
)

// maxPreface is more than a response, a few frame headers and a message.
const maxPreface = 32 << 10

// preface finds the agent's first message in what a server sends: a response
// of HTTP, then frames of a websocket, which are not masked.
type preface struct {
	seen []byte
	over bool
}

// see takes more bytes and returns the type of the message when it has become
// complete, and none before and after that.
func (p *preface) see(b []byte) message {
	if p.over {
		return none
	}
	p.seen = append(p.seen, b...)
	kind, over := first(p.seen)
	if over || len(p.seen) > maxPreface {
		p.over, p.seen = true, nil
	}
	return kind
}

// first parses. over is that more bytes would not change the answer.
func first(b []byte) (kind message, over bool) {
	const head = 7 // magic, type, length
	_, frames, found := bytes.Cut(b, []byte("\r\n\r\n"))
	if !found {
		return none, false
	}
	var payload []byte
	for len(frames) >= 2 {
		size, at := uint64(frames[1]&0x7f), 2
		switch size {
		case 126:
			at += 2
			if len(frames) < at {
				return none, false
			}
			size = uint64(binary.BigEndian.Uint16(frames[2:]))
		case 127:
			at += 8
			if len(frames) < at {
				return none, false
			}
			size = binary.BigEndian.Uint64(frames[2:])
		}
		data := frames[at:]
		whole := size <= uint64(len(data))
		if whole {
			data = data[:size]
		}
		if frames[0]&0x0f <= 2 { // not a control frame
			payload = append(payload, data...)
		}
		if len(payload) >= head {
			if string(payload[:4]) != "CvR\x00" {
				return none, true
			}
			if len(payload) >= head+int(binary.BigEndian.Uint16(payload[5:])) {
				return message(payload[4]), true
			}
		}
		if !whole {
			break
		}
		frames = frames[at+int(size):]
	}
	return none, false
}
