package ansi

import (
	"bytes"
	"strconv"
)

// escaped takes the character after ESC (ECMA-48 §5.3, §5.6).
func (r *Renderer) escaped(c rune) {
	switch {
	case c == '[':
		r.mode, r.params = csi, r.params[:0]
	case c == ']', c == 'P', c == 'X', c == '^', c == '_': // OSC, DCS, SOS, PM, APC
		r.mode, r.skipped = str, 0
	case c >= 0x20 && c <= 0x2f:
		r.mode = charset
	case c == 0x1b:
	case c == '\n': // no sequence has one
		r.mode = ground
		r.plain(c)
	default:
		r.mode = ground
	}
}

// sequence takes a character of a control sequence (ECMA-48 §5.4).
func (r *Renderer) sequence(c rune) {
	switch {
	case c >= 0x40 && c <= 0x7e:
		r.mode = ground
		switch {
		case c == 'm':
			r.colour()
		case c == 'K' && string(r.params) == "2": // erase the line
			r.clear()
		}
	case c >= 0x20 && c <= 0x3f:
		if r.params = append(r.params, byte(c)); len(r.params) > maxSequence {
			r.mode = ground
		}
	case c == 0x1b:
		r.mode = escape
	case c == '\n', c >= 0x7f:
		r.mode = ground
		r.plain(c)
	}
}

// inString takes a character of a control string, of which nothing is shown.
func (r *Renderer) inString(c rune) {
	switch {
	case c == 0x07, c == 0x9c, c == 0x18, c == 0x1a, r.mode == strEsc && c == '\\':
		r.mode = ground
	case c == '\n': // it was none, or was cut: the log goes on
		r.mode = ground
		r.plain(c)
	case r.mode == strEsc:
		r.mode = escape
		r.escaped(c)
	case c == 0x1b:
		r.mode = strEsc
	default:
		if r.skipped++; r.skipped > maxString {
			r.mode = ground
		}
	}
}

// colour is SGR (ECMA-48 §8.3.117, and ITU-T T.416 for 38 and 48).
func (r *Renderer) colour() {
	if len(r.params) > 0 && (r.params[0] < '0' || r.params[0] > ';') {
		return // a private one, such as xterm's keyboard modes
	}
	tokens := bytes.Split(r.params, []byte{';'})
	for len(tokens) > 0 {
		part := bytes.FieldsFunc(tokens[0], func(c rune) bool { return c == ':' })
		tokens = tokens[1:]
		if len(part) > 1 { // 38:2::1:2:3, 4:3
			r.style = r.style.parted(part)
			continue
		}
		n := 0
		if len(part) == 1 {
			n = number(part[0])
		}
		if n == 38 || n == 48 {
			colour, used := extended(tokens)
			r.style, tokens = r.style.coloured(n, colour), tokens[used:]
			continue
		}
		r.style = r.style.with(n)
	}
}

// number reads a parameter; -1 is none that means anything here.
func number(text []byte) int {
	if len(text) == 0 {
		return 0
	}
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 || n > 255 {
		return -1
	}
	return n
}

// parted is the style after a parameter that has parts.
func (s Style) parted(part [][]byte) Style {
	switch n := number(part[0]); n {
	case 38, 48:
		colour, _ := extended(part[1:])
		return s.coloured(n, colour)
	case 4:
		if number(part[1]) == 0 {
			return s.with(24)
		}
		return s.with(4)
	}
	return s
}

// coloured is the style with a colour that extended returned.
func (s Style) coloured(n int, colour uint16) Style {
	switch {
	case colour == 0:
	case n == 38:
		s.Fore = colour
	default:
		s.Back = colour
	}
	return s
}

// with is the style after a simple parameter.
func (s Style) with(n int) Style {
	switch {
	case n == 0:
		return Style{}
	case n == 1:
		s.Flags |= bold
	case n == 2:
		s.Flags |= dim
	case n == 3:
		s.Flags |= italic
	case n == 4, n == 21:
		s.Flags |= under
	case n == 7:
		s.Flags |= reverse
	case n == 9:
		s.Flags |= strike
	case n == 22:
		s.Flags &^= bold | dim
	case n == 23:
		s.Flags &^= italic
	case n == 24:
		s.Flags &^= under
	case n == 27:
		s.Flags &^= reverse
	case n == 29:
		s.Flags &^= strike
	case n >= 30 && n <= 37:
		s.Fore = uint16(n-30) + 1
	case n == 39:
		s.Fore = 0
	case n >= 40 && n <= 47:
		s.Back = uint16(n-40) + 1
	case n == 49:
		s.Back = 0
	case n >= 90 && n <= 97:
		s.Fore = uint16(n-90) + 9
	case n >= 100 && n <= 107:
		s.Back = uint16(n-100) + 9
	}
	return s
}

// extended reads what follows 38 or 48, and returns the colour's number of 256
// and 1, or 0, and how many parameters it was.
func extended(list [][]byte) (colour uint16, used int) {
	if len(list) == 0 {
		return 0, 0
	}
	switch kind := number(list[0]); {
	case kind == 5 && len(list) >= 2:
		return uint16(number(list[1]) + 1), 2
	case kind == 2 && len(list) >= 4:
		red, green, blue := number(list[1]), number(list[2]), number(list[3])
		if red < 0 || green < 0 || blue < 0 {
			return 0, 4
		}
		return nearest(red, green, blue) + 1, 4
	}
	return 0, len(list)
}

// levels are the six of each colour in the cube of 256 colours.
var levels = [6]int{0, 95, 135, 175, 215, 255}

// nearest is the one of the cube or of the greys.
func nearest(red, green, blue int) uint16 {
	at := func(v int) (best int) {
		for i, level := range levels {
			if abs(level-v) < abs(levels[best]-v) {
				best = i
			}
		}
		return best
	}
	r, g, b := at(red), at(green), at(blue)
	distance := func(x, y, z int) int {
		return (x-red)*(x-red) + (y-green)*(y-green) + (z-blue)*(z-blue)
	}
	grey := min(23, max(0, ((red+green+blue)/3-3)/10))
	if v := 8 + 10*grey; distance(v, v, v) < distance(levels[r], levels[g], levels[b]) {
		return uint16(232 + grey)
	}
	return uint16(16 + 36*r + 6*g + b)
}

func abs(n int) int { return max(n, -n) }
