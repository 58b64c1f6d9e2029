// Package share lets several people see one shell, and type in it: what the
// shell's terminal shows goes to everybody, keys of those who may type go to
// the shell, and everybody is told who comes and goes.
//
// It must know nothing of SSH, processes and the command line: it is given the
// bytes and the callbacks.
//
// # Policies
//
// The owner is never slowed down: each viewer has a queue of 256 KiB. Where it
// is full, the viewer misses what comes until it takes output again; then it is
// told so and gets the picture anew.
//
// The terminal has the smallest size of those who type, the owner among them,
// so that everybody who works in it sees all of it. Who only watches has no say.
// What the shell shows is passed on as it is: a window of another size shows
// what counts on the border of the screen (line breaks, scrolling) in the wrong
// place.
//
// Who joins sees the last output again, 64 KiB or a little more. If a
// full-screen program began before that, it is made to draw anew, by a terminal
// that for a moment is one line less high.
//
// Viewers do not get everything that the owner's terminal gets. Questions to
// the terminal are left out, since every terminal would answer and the answers
// would be typed; and so is what reaches beyond the screen: clipboard, colours,
// images, printing, windows.
package share

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Limits.
const (
	// maxViewers of one shell, the owner not counted.
	maxViewers = 32
	// maxQueue bounds what waits for a viewer, in bytes.
	maxQueue = 256 << 10
	// maxTyped is the number of reads that wait for a shell to take them.
	maxTyped = 16

	// calmAfter is how long nothing must come for the output to be calm, and
	// calmMost how long that is waited for. They concern what people see.
	calmAfter = 100 * time.Millisecond
	calmMost  = time.Second
)

// Why nobody can enter.
var (
	// ErrFull is a shell with too many viewers.
	ErrFull = errors.New("too many people are in this shell already: wait until one has left")
	// ErrEnded is a shell that has just ended.
	ErrEnded = errors.New("the shell has just ended")
)

// Size is that of a terminal, in cells and pixels; 0 is unknown.
type Size struct{ Cols, Rows, Width, Height uint16 }

// String returns the cells, as in 80x24.
func (s Size) String() string { return fmt.Sprintf("%dx%d", s.Cols, s.Rows) }

// Person is somebody present.
type Person struct {
	// Name is how others see them.
	Name string
	// Types says whether their keys reach the shell.
	Types bool
	// Size is that of their window.
	Size Size
	// Tell shows a line on their terminal. It must not block, nor call the
	// Room. nil is nobody.
	Tell func(text string)
}

// Config says what a Room is for. The callbacks must not call the Room.
type Config struct {
	// Owner is who started the shell. They type; Types is not looked at.
	Owner Person
	// Resize gives the terminal another size. It must not block. nil ignores.
	Resize func(Size)
	// Type gives the shell what somebody other than its owner has typed. It
	// may block for as long as the shell takes nothing.
	Type func([]byte) (int, error)
}

// Room is one shell and who is in it. Its methods are safe for concurrent use;
// none but Run, Calm, Viewer.Run and Viewer.Type blocks.
type Room struct {
	cfg   Config
	typed chan []byte
	nudge chan struct{} // holds one token: draw anew
	fresh chan struct{} // holds one token: there was output
	done  chan struct{}

	mu      sync.Mutex
	filter  filter
	history history
	scratch []byte
	last    time.Time // of the last output
	owner   Size
	size    Size
	viewers []*Viewer // in the order in which they came
	closed  bool
	reason  string
}

// NewRoom makes a room with its owner in it. Somebody has to call Run.
func NewRoom(cfg Config) *Room {
	return &Room{
		cfg:   cfg,
		owner: cfg.Owner.Size, size: cfg.Owner.Size,
		typed: make(chan []byte, maxTyped),
		nudge: make(chan struct{}, 1), fresh: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
}

// Output takes what the shell's terminal shows, in order. It does not keep p.
func (r *Room) Output(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.filter.modes
	r.scratch = r.filter.feed(r.scratch[:0], p)
	r.last = time.Now()
	if len(r.scratch) > 0 && !r.closed {
		r.history.add(r.scratch, before)
		for _, v := range r.viewers {
			v.addLocked(r.scratch)
		}
	}
	poke(r.fresh)
}

// ResizeOwner tells of another size of the owner's window.
func (r *Room) ResizeOwner(s Size) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owner = s
	r.fitLocked()
}

// Size returns the terminal's size.
func (r *Room) Size() Size {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.size
}

// People returns who is present, the owner first.
func (r *Room) People() []Person {
	r.mu.Lock()
	defer r.mu.Unlock()
	owner := r.cfg.Owner
	owner.Types, owner.Size = true, r.owner
	list := []Person{owner}
	for _, v := range r.viewers {
		list = append(list, v.person)
	}
	return list
}

// Enter lets somebody in, tells the others, and returns what the newcomer has
// to Run. intro is a message for them; over a full-screen program only its
// first line is shown.
func (r *Room) Enter(p Person, intro string) (*Viewer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return nil, ErrEnded
	case len(r.viewers) >= maxViewers:
		return nil, ErrFull
	}
	v := &Viewer{room: r, person: p, intro: intro, wake: make(chan struct{}, 1), left: make(chan struct{})}
	// The first thing that it gets is the picture.
	v.behind = true
	poke(v.wake)
	r.viewers = append(r.viewers, v)
	verb := "watches this shell"
	if p.Types {
		verb = "joined this shell and types here too"
	}
	r.announceLocked(p.Name+" "+verb+r.fitLocked(), v)
	return v, nil
}

// announceLocked tells everybody but one.
func (r *Room) announceLocked(text string, but *Viewer) {
	text = "converge: " + text
	people := []Person{r.cfg.Owner}
	for _, v := range r.viewers {
		if v != but {
			people = append(people, v.person)
		}
	}
	for _, p := range people {
		if p.Tell != nil {
			p.Tell(text)
		}
	}
}

// fitLocked gives the terminal the smallest size of those who type, and returns
// the end of a sentence that tells of another one.
func (r *Room) fitLocked() (change string) {
	fit := r.owner
	for _, v := range r.viewers {
		if s := v.person.Size; v.person.Types {
			fit.Cols, fit.Rows = smaller(fit.Cols, s.Cols), smaller(fit.Rows, s.Rows)
		}
	}
	// A cell stays as large as the owner's.
	fit.Width = scale(r.owner.Width, fit.Cols, r.owner.Cols)
	fit.Height = scale(r.owner.Height, fit.Rows, r.owner.Rows)
	if fit != r.size && !r.closed {
		r.size = fit
		r.resizeLocked(fit)
		return fmt.Sprintf("; the terminal is %s now", fit)
	}
	return ""
}

func (r *Room) resizeLocked(s Size) {
	if r.cfg.Resize != nil {
		r.cfg.Resize(s)
	}
}

// smaller returns the smaller of two numbers that are known.
func smaller(a, b uint16) uint16 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// scale returns n·part/whole.
func scale(n, part, whole uint16) uint16 {
	if whole == 0 || part == whole {
		return n
	}
	return uint16(uint32(n) * uint32(part) / uint32(whole))
}

// Run carries what viewers type, and makes programs draw anew, until Close has
// been called and Config.Type has returned.
func (r *Room) Run() {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(r.redraw)
	for {
		select {
		case <-r.done:
			return
		case p := <-r.typed:
			// The shell's end comes through Close.
			_, _ = r.cfg.Type(p)
		}
	}
}

// redraw makes full-screen programs draw their picture anew. Some do so only
// for a size that is really another one.
func (r *Room) redraw() {
	for {
		select {
		case <-r.done:
			return
		case <-r.nudge:
		}
		r.mu.Lock()
		s := r.size
		if s.Rows < 2 || r.closed {
			r.mu.Unlock()
			continue
		}
		s.Rows--
		select {
		case <-r.fresh:
		default:
		}
		r.resizeLocked(s)
		r.mu.Unlock()
		timer := time.NewTimer(calmMost)
		select {
		case <-r.fresh:
			r.Calm(r.done)
		case <-timer.C: // it does not care
		case <-r.done:
		}
		timer.Stop()
		r.mu.Lock()
		if !r.closed {
			r.resizeLocked(r.size)
		}
		r.mu.Unlock()
	}
}

// Close ends the room for everybody, who are told the reason, a sentence,
// after the last output. A second reason is not heard.
func (r *Room) Close(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed, r.reason = true, reason
	close(r.done)
	for _, v := range r.viewers {
		poke(v.wake)
	}
}

// forgetLocked takes a viewer out.
func (r *Room) forgetLocked(v *Viewer) {
	r.viewers = slices.DeleteFunc(r.viewers, func(other *Viewer) bool { return other == v })
	if r.closed {
		return
	}
	r.announceLocked(v.person.Name+" left this shell"+r.fitLocked(), v)
}

// poke puts a token where one has its place.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
