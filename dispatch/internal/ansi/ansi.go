// Package ansi turns what a program wrote to its log into HTML that can do no
// harm: colours and the like (ECMA-48 SGR) become classes of a style sheet, all
// other control sequences vanish, and every character that means something in
// HTML is escaped. It works on a stream, in pieces of any size, with bounded
// memory. It knows nothing of builds and serves nothing.
//
// What an escape sequence could do to a terminal, such as set its title, move
// the cursor over what was written, or ask it to answer, it does not do here.
// A carriage return begins the line anew, as progress bars expect it.
package ansi

import (
	"fmt"
	"html"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLine is how long a line may be, in bytes of HTML; a longer one goes on in
	// the next.
	MaxLine = 64 << 10
	// maxSequence is how long the parameters of a control sequence may be, and
	// maxString the text of an operating system command, in bytes. What is longer
	// is no such thing, and the text goes on.
	maxSequence, maxString = 64, 4096
)

// Style is how characters look; the zero value is plain. It is comparable.
type Style struct {
	// Fore and Back are 0 for the default, else a colour's number of 256 and 1.
	Fore, Back uint16
	// Flags are the others.
	Flags uint8
}

// The flags, by the classes of the style sheet.
const (
	bold = 1 << iota
	dim
	italic
	under
	strike
	reverse
	flags = 1<<iota - 1
)

var flagClasses = []string{"bo", "di", "it", "un", "st"}

// String encodes a style, "0" for the plain one; ParseStyle reads it.
func (s Style) String() string {
	return fmt.Sprintf("%x", uint32(s.Fore)|uint32(s.Back)<<9|uint32(s.Flags)<<18)
}

// ParseStyle reads what String made; anything else is the plain style.
func ParseStyle(text string) Style {
	var n uint32
	if len(text) > 8 {
		return Style{}
	}
	if got, err := fmt.Sscanf(text, "%x", &n); got != 1 || err != nil {
		return Style{}
	}
	s := Style{Fore: uint16(n & 0x1ff), Back: uint16(n >> 9 & 0x1ff), Flags: uint8(n>>18) & flags}
	if s.Fore > 256 || s.Back > 256 {
		return Style{}
	}
	return s
}

// class is the value of the attribute class.
func (s Style) class() string {
	var b []string
	fore, back := s.Fore, s.Back
	if s.Flags&reverse != 0 {
		fore, back = back, fore
		if fore == 0 {
			b = append(b, "fr")
		}
		if back == 0 {
			b = append(b, "br")
		}
	}
	if fore != 0 {
		b = append(b, fmt.Sprintf("f%d", fore-1))
	}
	if back != 0 {
		b = append(b, fmt.Sprintf("b%d", back-1))
	}
	for i, name := range flagClasses {
		if s.Flags&(1<<i) != 0 {
			b = append(b, name)
		}
	}
	return strings.Join(b, " ")
}

// mode is where in a control sequence the stream is.
type mode uint8

const (
	ground  mode = iota
	escape       // after ESC
	charset      // after ESC and an intermediate byte: one byte more
	csi          // control sequence: parameters, and a final byte
	str          // a control string, to its terminator
	strEsc       // ESC in a control string
)

// Renderer renders one stream. The zero value is ready; its methods must not be
// called concurrently.
type Renderer struct {
	style Style // of what comes next

	mode    mode
	params  []byte
	skipped int    // of a control string
	rest    []byte // the beginning of a character, at most three bytes

	line   strings.Builder
	shown  Style // of the span that is open in line
	open   bool
	again  bool   // a carriage return: what comes next begins the line anew
	atLine Style  // the style at the line's beginning
	read   int64  // bytes of the stream
	before int64  // of them before the present character
	lineAt int64  // of which come before the line
	done   []byte // lines since the last call of Take
}

// Resume makes a Renderer that goes on at a line's beginning, where the style is
// this, with offset bytes before it.
func Resume(offset int64, style Style) *Renderer {
	return &Renderer{style: style, atLine: style, read: offset, lineAt: offset}
}

// Write takes a piece of the stream. It returns len(p) and no error. The memory
// that it takes is at most some twenty times p until the next Take.
func (r *Renderer) Write(p []byte) (int, error) {
	n := len(p)
	if len(r.rest) > 0 { // a character that was cut
		p = append(r.rest, p...)
		r.rest = nil
	}
	r.runes(p)
	return n, nil
}

// runes takes characters. The last one may be cut.
func (r *Renderer) runes(p []byte) {
	for len(p) > 0 {
		if p[0] >= utf8.RuneSelf && !utf8.FullRune(p) {
			r.rest = append([]byte(nil), p...)
			return
		}
		c, size := utf8.DecodeRune(p) // RuneError for what is no UTF-8
		p = p[size:]
		r.before = r.read
		r.read += int64(size)
		r.rune(c)
	}
}

// Take returns the lines that are complete since the last call, each with a
// newline at its end, and the line that is not, all as HTML. Every line can stand
// alone: no element goes on from one to the next.
func (r *Renderer) Take() (lines, unfinished string) {
	lines, r.done = string(r.done), r.done[:0]
	if cap(r.done) > MaxLine {
		r.done = nil
	}
	return lines, r.html()
}

// Mark returns where the line that is not complete begins in the stream, and the
// style there: what Resume wants.
func (r *Renderer) Mark() (offset int64, style Style) { return r.lineAt, r.atLine }

// html is the unfinished line.
func (r *Renderer) html() string {
	if r.open {
		return r.line.String() + "</span>"
	}
	return r.line.String()
}

func (r *Renderer) rune(c rune) {
	switch r.mode {
	case escape:
		r.escaped(c)
	case charset:
		if r.mode = ground; c == '\n' {
			r.plain(c)
		}
	case csi:
		r.sequence(c)
	case str, strEsc:
		r.inString(c)
	default:
		r.plain(c)
	}
}

// plain takes a character outside of a sequence.
func (r *Renderer) plain(c rune) {
	switch {
	case c == '\n':
		r.finish(r.read)
	case c == '\r':
		r.again = true
	case c == 0x1b:
		r.mode = escape
	case c == 0x9b:
		r.mode, r.params = csi, r.params[:0]
	case c == 0x90, c == 0x98, c == 0x9d, c == 0x9e, c == 0x9f:
		r.mode, r.skipped = str, 0
	case c == '\t':
		r.show(c)
	case c < ' ', c >= 0x7f && c < 0xa0: // nothing to be seen
	case misleading(c):
		r.show(utf8.RuneError)
	default:
		r.show(c)
	}
}

// misleading reports whether a character changes the order in which others are
// seen (Unicode UAX #9), so that a line would not say what it seems to.
func misleading(c rune) bool {
	return c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0x200e || c == 0x200f || c == 0x061c || c == 0x2028 || c == 0x2029
}

// show adds a character to the line.
func (r *Renderer) show(c rune) {
	if r.again {
		r.clear()
	}
	if r.line.Len() >= MaxLine {
		r.finish(r.before)
	}
	if r.style != r.shown || !r.open && r.style != (Style{}) {
		r.closeSpan()
		if r.style != (Style{}) {
			r.line.WriteString(`<span class="` + r.style.class() + `">`)
			r.open = true
		}
		r.shown = r.style
	}
	if c == '<' || c == '>' || c == '&' || c == '"' || c == '\'' {
		r.line.WriteString(html.EscapeString(string(c)))
		return
	}
	r.line.WriteRune(c)
}

func (r *Renderer) closeSpan() {
	if r.open {
		r.line.WriteString("</span>")
		r.open = false
	}
}

// clear empties the line.
func (r *Renderer) clear() {
	r.line.Reset()
	r.open, r.shown, r.again = false, Style{}, false
}

// finish ends a line before the byte next of the stream.
func (r *Renderer) finish(next int64) {
	r.closeSpan()
	r.done = append(append(r.done, r.line.String()...), '\n')
	r.clear()
	r.lineAt, r.atLine = next, r.style
}
