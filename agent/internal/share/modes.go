package share

import "strings"

// modes are those settings of a terminal that a program makes and that decide
// what the keys send and which screen is shown: one bit for each that is not as
// it is after a reset.
type modes uint32

// mode is one of them. set is what makes it differ from the default.
type mode struct {
	bit      modes
	param    string // of CSI ? … h and l; "" for another sequence
	inverted bool   // on is the default
	set      string
	reset    string
}

// The private modes (DECSET) as xterm's control sequences document has them.
// What leaves the other screen comes first: the rest then changes nothing that
// anybody sees.
var modeTable = func() []mode {
	var list []mode
	add := func(param string, inverted bool) {
		m := mode{bit: 1 << len(list), param: param, inverted: inverted, set: "\x1b[?" + param + "h", reset: "\x1b[?" + param + "l"}
		if inverted {
			m.set, m.reset = m.reset, m.set
		}
		list = append(list, m)
	}
	for _, param := range []string{"1049", "1047", "47"} { // the alternate screen
		add(param, false)
	}
	add("1", false)  // cursor keys
	add("5", false)  // reverse video
	add("6", false)  // origin
	add("7", true)   // automatic line breaks
	add("25", true)  // the cursor is seen
	add("66", false) // keypad
	add("69", false) // left and right margins
	for _, param := range []string{"9", "1000", "1001", "1002", "1003", "1004", "1005", "1006", "1015", "1016"} {
		add(param, false) // mouse and focus
	}
	add("2004", false) // bracketed paste
	return append(list, mode{bit: 1 << len(list), set: "\x1b=", reset: "\x1b>"})
}()

// alternate are the ways to show the other screen.
const alternate modes = 1<<0 | 1<<1 | 1<<2

// full reports whether a full-screen program has the terminal.
func (m modes) full() bool { return m&alternate != 0 }

// private applies CSI ? … h or l.
func (m modes) private(params string, on bool) modes {
	for param := range strings.SplitSeq(params, ";") {
		for _, t := range modeTable {
			if t.param != param || param == "" {
				continue
			}
			if on != t.inverted {
				m |= t.bit
			} else {
				m &^= t.bit
			}
		}
	}
	return m
}

// keypad applies ESC = or ESC >.
func (m modes) keypad(on bool) modes {
	bit := modeTable[len(modeTable)-1].bit
	if on {
		return m | bit
	}
	return m &^ bit
}

// soft applies DECSTR, CSI ! p, as xterm does: screen and mouse stay.
func (m modes) soft() modes {
	return m.private("1;6;69", false).private("7;25", true).keypad(false)
}

// enter makes a terminal that is as after a reset like one with these modes.
func (m modes) enter() string {
	var b strings.Builder
	for _, t := range modeTable {
		if m&t.bit != 0 {
			b.WriteString(t.set)
		}
	}
	return b.String()
}

// leave undoes whatever of these modes may be set, and what else a program
// could have left: attributes, margins, the character set. The cursor stays.
func (m modes) leave() string {
	var b strings.Builder
	for _, t := range modeTable {
		if m&t.bit != 0 {
			b.WriteString(t.reset)
		}
	}
	b.WriteString("\x1b7\x1b[r\x1b8\x1b(B\x0f\x1b[m")
	return b.String()
}
