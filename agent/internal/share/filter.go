package share

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// Limits of what is kept of a sequence until its end, in bytes. Longer ones are
// not for viewers.
const (
	maxCSI = 256
	maxOSC = 2 << 10
)

const esc = 0x1b

// state is where in a control sequence a stream is (ECMA-48 §5.3, §5.4, §5.6).
type state uint8

const (
	ground    state = iota
	character       // within a UTF-8 character
	escape          // after ESC
	between         // after ESC and intermediate bytes
	csi             // after ESC [
	csiLong         // the same, and it is too long
	osc             // after ESC ]
	oscEnd          // the same, after another ESC
	text            // within a string that is dropped
	textEnd         // the same, after ESC
)

// filter makes what one terminal is sent fit for others. It passes whole
// characters and sequences only; it drops questions, because each terminal
// would answer and the answers would be typed, and what reaches beyond the
// screen: clipboard, colours, images, printers, windows. And it knows which
// modes are set.
type filter struct {
	state state
	held  []byte // a sequence that has not ended
	bell  bool   // a dropped string may end with BEL
	modes modes
}

// busy reports whether a sequence or character has begun and not ended.
func (f *filter) busy() bool { return f.state != ground }

// feed appends to dst what of p passes, and returns it.
func (f *filter) feed(dst, p []byte) []byte {
	for len(p) > 0 {
		if f.state == ground {
			n := bytes.IndexByte(p, esc)
			if n < 0 {
				n = len(p)
			}
			plain := p[:n]
			if n == len(p) {
				if whole := wholeCharacters(plain); whole < n {
					f.held = append(f.held[:0], plain[whole:]...)
					f.state = character
					plain = plain[:whole]
				}
			} else {
				f.state = escape
				f.held = append(f.held[:0], esc)
				n++
			}
			dst = appendPlain(dst, plain)
			p = p[n:]
			continue
		}
		dst = f.step(dst, p[0])
		p = p[1:]
	}
	return dst
}

// appendPlain appends text without ENQ, to which terminals answer.
func appendPlain(dst, plain []byte) []byte {
	for {
		n := bytes.IndexByte(plain, 0x05)
		if n < 0 {
			return append(dst, plain...)
		}
		dst = append(dst, plain[:n]...)
		plain = plain[n+1:]
	}
}

// step takes one byte outside of plain text.
func (f *filter) step(dst []byte, b byte) []byte {
	switch f.state {
	case character:
		if b >= 0x80 && b < 0xc0 {
			f.held = append(f.held, b)
			if utf8.FullRune(f.held) {
				return f.pass(dst)
			}
			return dst
		}
		// It was none. Both are shown as whatever they are.
		dst = f.pass(dst)
		return f.feed(dst, []byte{b})
	case text, textEnd, oscEnd:
		return f.inString(dst, b)
	}
	switch b {
	case 0x18, 0x1a: // CAN and SUB end any sequence
		f.state = ground
		return dst
	case esc:
		if f.state == osc {
			f.state = oscEnd
			return dst
		}
		f.begin()
		return dst
	}
	if b < 0x20 && (b != 0x07 || f.state != osc) {
		return dst // executed at once by a terminal; here it would hide what follows
	}
	switch f.state {
	case escape:
		return f.afterEscape(dst, b)
	case between:
		f.held = append(f.held, b)
		switch {
		case b >= 0x30:
			return f.pass(dst)
		case len(f.held) > maxCSI:
			f.state = ground
		}
	case csi:
		f.held = append(f.held, b)
		switch {
		case b >= 0x40 && b < 0x7f:
			return f.endCSI(dst)
		case len(f.held) > maxCSI:
			f.state = csiLong
		}
	case csiLong:
		if b >= 0x40 && b < 0x7f {
			f.state = ground
		}
	case osc:
		if b == 0x07 {
			return f.endOSC(dst)
		}
		if f.held = append(f.held, b); len(f.held) > maxOSC {
			f.drop(true)
		}
	}
	return dst
}

// begin starts a sequence with ESC.
func (f *filter) begin() {
	f.state = escape
	f.held = append(f.held[:0], esc)
}

// pass lets through what is held.
func (f *filter) pass(dst []byte) []byte {
	f.state = ground
	return append(dst, f.held...)
}

// drop skips a string to its end.
func (f *filter) drop(bell bool) {
	f.state, f.bell = text, bell
	f.held = f.held[:0]
}

func (f *filter) afterEscape(dst []byte, b byte) []byte {
	f.held = append(f.held, b)
	switch {
	case b == '[':
		f.state = csi
	case b == ']':
		f.state = osc
	case strings.IndexByte("PX^_k", b) >= 0: // DCS, SOS, PM, APC, screen's title
		f.drop(false)
	case b == 'Z': // who are you?
		f.state = ground
	case b >= 0x20 && b < 0x30:
		f.state = between
	default:
		switch b {
		case '=', '>':
			f.modes = f.modes.keypad(b == '=')
		case 'c':
			f.modes = 0
		}
		return f.pass(dst)
	}
	return dst
}

// inString looks for the end of a string: ST, which is ESC \, or BEL for some.
// Another ESC ends it as well and is the beginning of the next sequence.
func (f *filter) inString(dst []byte, b byte) []byte {
	switch {
	case f.state == text && b == esc:
		f.state = textEnd
	case f.state == text:
		if b == 0x18 || b == 0x1a || b == 0x07 && f.bell {
			f.state = ground
		}
	case b == '\\' && f.state == oscEnd:
		return f.endOSC(dst)
	case b == '\\':
		f.state = ground
	default:
		f.begin()
		return f.step(dst, b)
	}
	return dst
}

// endOSC lets titles and hyperlinks through.
func (f *filter) endOSC(dst []byte) []byte {
	f.state = ground
	number, _, _ := strings.Cut(string(f.held[2:]), ";")
	switch number {
	case "0", "1", "2", "8":
		return append(append(dst, f.held...), esc, '\\')
	}
	return dst
}

// endCSI lets a control sequence through unless it asks something or reaches
// beyond the screen.
func (f *filter) endCSI(dst []byte) []byte {
	f.state = ground
	body := string(f.held[2:])
	final := body[len(body)-1]
	params := strings.TrimRight(body[:len(body)-1], " !\"#$%&'()*+,-./")
	inter := body[len(params) : len(body)-1]
	prefix := byte(0)
	if params != "" && params[0] >= '<' && params[0] <= '?' {
		prefix, params = params[0], params[1:]
	}
	switch {
	case prefix != 0 && prefix != '?':
		// Questions, and ways to encode keys that only some terminals know.
		return dst
	case inter == "" && strings.IndexByte("cnxti", final) >= 0,
		prefix == '?' && final == 'u':
		return dst
	}
	switch inter + string(final) {
	case "$p", "$u", "$w", "*y", "'|", "'z", "'{", "&w", "&u":
		return dst
	case "!p":
		f.modes = f.modes.soft()
	case "h", "l":
		if prefix == '?' {
			f.modes = f.modes.private(params, final == 'h')
		}
	}
	return append(dst, f.held...)
}

// wholeCharacters returns how much of p does not end within a UTF-8 character.
func wholeCharacters(p []byte) int {
	for back := 1; back < utf8.UTFMax && back <= len(p); back++ {
		if b := p[len(p)-back]; utf8.RuneStart(b) {
			if !utf8.FullRune(p[len(p)-back:]) {
				return len(p) - back
			}
			break
		}
	}
	return len(p)
}
