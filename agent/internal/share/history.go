package share

import (
	"bytes"
	"strings"
)

const (
	// historyBlock is about how much is forgotten at once, in bytes.
	historyBlock = 8 << 10
	// maxHistory is what is remembered at least, where there was as much; at
	// most it is this, a block and what is added at once.
	maxHistory = 64 << 10
	// maxLastLine is the longest line that is repeated, in bytes.
	maxLastLine = 1 << 10
)

// history is the last output of a shell, for those who come later: in blocks,
// each with the modes that were set at its beginning.
type history struct {
	blocks []block
	size   int
	cut    bool // something has been forgotten
}

type block struct {
	modes modes
	data  []byte
}

// add appends output that begins and ends between sequences; before are the
// modes at its beginning.
func (h *history) add(p []byte, before modes) {
	if n := len(h.blocks); n == 0 || len(h.blocks[n-1].data)+len(p) > historyBlock {
		h.blocks = append(h.blocks, block{modes: before})
	}
	last := &h.blocks[len(h.blocks)-1]
	last.data = append(last.data, p...)
	h.size += len(p)
	for len(h.blocks) > 1 && h.size-len(h.blocks[0].data) >= maxHistory {
		h.size -= len(h.blocks[0].data)
		h.blocks[0] = block{}
		h.blocks = h.blocks[1:]
		h.cut = true
	}
}

// replay returns what gives a cleared terminal the picture. It is exact unless
// it begins in the middle of a full-screen program's work.
func (h *history) replay() (picture []byte, exact bool) {
	if len(h.blocks) == 0 {
		return nil, true
	}
	first := h.blocks[0]
	picture = append(picture, first.modes.enter()...)
	data := first.data
	if h.cut && !first.modes.full() {
		// The end of a line says little.
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	picture = append(picture, data...)
	for _, b := range h.blocks[1:] {
		picture = append(picture, b.data...)
	}
	return picture, !h.cut || !first.modes.full()
}

// lastLine returns what the line of the cursor shows, such as a prompt and what
// has been typed after it, to repeat it below a message. What moves the cursor
// or clears the screen, and what was before it, is left out.
func (h *history) lastLine() string {
	if len(h.blocks) == 0 {
		return ""
	}
	data := h.blocks[len(h.blocks)-1].data
	line := data[bytes.LastIndexByte(data, '\n')+1:]
	if len(line) > maxLastLine {
		return ""
	}
	begin := 0
	for i := 0; i < len(line); i++ {
		if line[i] != esc {
			continue
		}
		end := i + 1 // the last byte of the sequence; there are whole ones only
		switch line[i+1] {
		case '[':
			for end++; line[end] < 0x40; end++ {
			}
			if strings.IndexByte("mKhl", line[end]) < 0 {
				begin = end + 1
			}
		case ']':
			end = i + bytes.Index(line[i:], []byte("\x1b\\")) + 1
		default:
			for end < len(line) && line[end] < 0x30 {
				end++
			}
			begin = end + 1
		}
		i = end
	}
	return string(line[begin:])
}
