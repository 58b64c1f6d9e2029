package share

import (
	"bytes"
	"io"
	"strings"
)

// Viewer is somebody in a shell that is not theirs. Its methods are safe for
// concurrent use.
type Viewer struct {
	room   *Room
	person Person // its Size is guarded by room.mu
	intro  string
	wake   chan struct{} // holds one token
	left   chan struct{}

	// What follows is guarded by room.mu.
	queue, spare []byte
	modes        modes // of its terminal, once what next returned is written
	begun        bool  // it has got its first picture
	behind       bool  // it needs a picture
	out          bool  // it has left
}

// What a picture begins with: a terminal as after a reset, and clear.
const cleared = "\x1b[m\x1b[2J\x1b[H"

const skipped = "converge: this connection is too slow for the shell; some output was left out"

// addLocked queues output for a viewer that keeps up.
func (v *Viewer) addLocked(p []byte) {
	switch {
	case v.behind:
		return
	case len(v.queue)+len(p) > maxQueue:
		v.queue, v.behind = v.queue[:0], true
	default:
		v.queue = append(v.queue, p...)
	}
	poke(v.wake)
}

// next waits for output, and returns false after the last.
func (v *Viewer) next() ([]byte, bool) {
	r := v.room
	for {
		r.mu.Lock()
		if v.out {
			r.mu.Unlock()
			return nil, false
		}
		if v.behind {
			v.pictureLocked()
		}
		if len(v.queue) > 0 {
			chunk := v.queue
			v.queue, v.spare = v.spare[:0], chunk
			v.modes = r.filter.modes
			r.mu.Unlock()
			return chunk, true
		}
		closed := r.closed
		r.mu.Unlock()
		if closed {
			return nil, false
		}
		select {
		case <-v.wake:
		case <-v.left:
		}
	}
}

// pictureLocked puts the picture into the queue.
func (v *Viewer) pictureLocked() {
	r := v.room
	message := v.intro
	v.queue = v.queue[:0]
	if v.begun {
		message = skipped
		v.queue = append(v.queue, v.modes.leave()...)
	}
	v.queue = append(v.queue, cleared...)
	picture, exact := r.history.replay()
	v.queue = append(v.queue, picture...)
	// It comes last: the picture may clear the screen.
	if r.filter.modes.full() {
		message, _, _ = strings.Cut(message, "\r\n")
	}
	placed, _ := r.placeLocked(message)
	v.queue = append(v.queue, placed...)
	v.begun, v.behind = true, false
	if !exact && r.filter.modes.full() {
		poke(r.nudge)
	}
}

// Run writes to w what the viewer is to see, until the shell has ended, the
// viewer has left, or w takes no more. At the end it makes the terminal usable
// and returns why, as a sentence; "" is what the viewer did itself.
func (v *Viewer) Run(w io.Writer) (reason string) {
	defer v.Leave()
	for {
		chunk, ok := v.next()
		if !ok {
			break
		}
		if _, err := w.Write(chunk); err != nil {
			return ""
		}
	}
	v.room.mu.Lock()
	if !v.out {
		reason = v.room.reason
	}
	leave := v.modes.leave()
	v.room.mu.Unlock()
	// An error means that nobody is there to see it.
	_, _ = io.WriteString(w, leave)
	return reason
}

// Type passes keys on to the shell. It waits while the shell takes none, and
// returns false when the viewer has left or the shell has ended. It does not
// keep p. It is for those who type.
func (v *Viewer) Type(p []byte) bool {
	if !v.person.Types {
		return false
	}
	select {
	case <-v.left:
		return false
	case <-v.room.done:
		return false
	default:
	}
	select {
	case v.room.typed <- append([]byte(nil), p...):
		return true
	case <-v.left:
	case <-v.room.done:
	}
	return false
}

// Resize tells of another size of the viewer's window.
func (v *Viewer) Resize(s Size) {
	r := v.room
	r.mu.Lock()
	defer r.mu.Unlock()
	v.person.Size = s
	if !v.out {
		r.fitLocked()
	}
}

// Leave takes the viewer out, and tells the others.
func (v *Viewer) Leave() {
	r := v.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.out {
		return
	}
	v.out = true
	v.queue, v.spare = nil, nil
	close(v.left)
	r.forgetLocked(v)
}

// Leaves reports whether what a watcher has typed says that they want to go: q,
// ctrl-C or ctrl-D. Other keys mean nothing, and the report of a mouse or
// terminal, which begins with ESC, is no key.
func Leaves(typed []byte) bool {
	return bytes.IndexByte(typed, esc) < 0 && bytes.ContainsAny(typed, "qQ\x03\x04")
}
