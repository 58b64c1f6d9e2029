package share

import (
	"fmt"
	"strings"
	"time"
)

// Calm waits until the shell has shown nothing for a moment and no sequence is
// unfinished, for a second at most or until stop is closed: so that a message
// is not wiped out by the rest of a picture.
func (r *Room) Calm(stop <-chan struct{}) {
	limit := time.Now().Add(calmMost)
	for {
		r.mu.Lock()
		next, busy := r.last.Add(calmAfter), r.filter.busy()
		r.mu.Unlock()
		now := time.Now()
		if busy && !next.After(now) {
			next = now.Add(calmAfter)
		}
		if next.After(limit) {
			next = limit
		}
		if !next.After(now) {
			return
		}
		timer := time.NewTimer(next.Sub(now))
		select {
		case <-timer.C:
		case <-stop:
			timer.Stop()
			return
		}
	}
}

// Place returns a message as the shell's terminal can be sent it now: on lines
// of its own, with the prompt repeated below, or, over a full-screen program, on
// the last lines of the screen, with the cursor back where it was; over says
// which. Control characters in
// text, but for line breaks, must have been taken out.
func (r *Room) Place(text string) (message []byte, over bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.placeLocked(text)
}

func (r *Room) placeLocked(text string) (message []byte, over bool) {
	lines := strings.Split(strings.ReplaceAll(strings.Trim(text, "\r\n"), "\r\n", "\n"), "\n")
	rows, cols := int(r.size.Rows), int(r.size.Cols)
	if !r.filter.modes.full() || rows == 0 || cols == 0 {
		return []byte("\r\n" + strings.Join(lines, "\r\n") + "\r\n" + r.history.lastLine()), false
	}
	lines = wrap(lines, cols, rows)
	var b strings.Builder
	b.WriteString("\x1b7\x1b[0;7m")
	for i, line := range lines {
		fmt.Fprintf(&b, "\x1b[%d;1H\x1b[2K%s", rows-len(lines)+1+i, line)
	}
	b.WriteString("\x1b8")
	return []byte(b.String()), true
}

// wrap breaks lines at a number of columns, into as many as there are at most.
func wrap(lines []string, cols, most int) []string {
	var out []string
	for _, line := range lines {
		runes := []rune(line)
		for len(runes) > cols {
			out = append(out, string(runes[:cols]))
			runes = runes[cols:]
		}
		out = append(out, string(runes))
	}
	return out[:min(len(out), most)]
}

// Restore returns what makes a terminal usable that a full-screen program has
// not restored, and "" where none has to be.
func (r *Room) Restore() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.filter.modes.full() {
		return ""
	}
	return r.filter.modes.leave()
}
