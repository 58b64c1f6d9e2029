// Package asciicast records what a terminal shows as an asciicast file of
// version 2 (https://docs.asciinema.org/manual/asciicast/v2/), which asciinema
// plays: a header line and then an event a line.
//
// It must know nothing of SSH and of who is recorded. What it is not given it
// cannot record: there is no event for input, so that a typed password that the
// terminal does not show is in no file.
package asciicast

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// maxQueue bounds what waits for the disk, in bytes.
	maxQueue = 1 << 20
	// eventCost is added to an event's bytes: many small ones are not free.
	eventCost = 64
	// batch is about how much is written at once, in bytes.
	batch = 64 << 10

	defaultLimit    = 256 << 20
	defaultPatience = 3 * time.Second
)

// Why a recording ends before its shell.
var (
	// ErrLimit is a recording that has become too large.
	ErrLimit = errors.New("the recording has reached its size limit")
	// ErrSlow is a disk that does not take what a terminal shows.
	ErrSlow = errors.New("the disk takes no more output")
)

// Header describes a recording.
type Header struct {
	// Cols and Rows are the terminal's size at the start, in cells.
	Cols, Rows int
	// Start is when it started; events are dated relative to New.
	Start time.Time
	// Title says what is recorded.
	Title string
	// Term and Shell are the environment's TERM and SHELL.
	Term, Shell string
}

// Options bound a recording.
type Options struct {
	// Limit is the most that is written, in bytes; 0 is 256 MiB. A job's disk
	// is the job's.
	Limit int64
	// Patience is how long Output and Close wait for a slow disk; 0 is 3 s.
	// What does not go in time ends the recording.
	Patience time.Duration
	// Failed is told, once, why the recording ended before Close. It is called
	// from a goroutine of the recorder, or from Output or Close, and must not
	// call the recorder. nil is nobody.
	Failed func(error)
}

// event is a line that is not encoded yet.
type event struct {
	at   time.Duration
	kind byte
	data []byte
}

// Recorder is a recording under way. Its methods are safe for concurrent use
// and return no errors: a recording that cannot go on must not disturb what it
// records. After the first error, and after Close, they do nothing.
type Recorder struct {
	o     Options
	w     io.WriteCloser
	begun time.Time

	mu     sync.Mutex
	queue  []event
	size   int    // of queue, in bytes
	cut    []byte // the beginning of a character
	ended  bool   // nothing more is taken
	failed bool
	// drained is closed and replaced when the writer has taken the queue.
	drained chan struct{}

	wake chan struct{} // holds one token
	done chan struct{} // closed by the writer at its end
}

// New starts a recording to w, which it closes at the end. If w has a method
// Truncate(int64) error, as files have, an event that was written in part is
// taken back.
func New(w io.WriteCloser, h Header, o Options) *Recorder {
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	r := &Recorder{
		o: o, w: w, begun: time.Now(),
		drained: make(chan struct{}), wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	go r.write(h.line())
	return r
}

// line encodes the header.
func (h Header) line() []byte {
	env := map[string]string{}
	for name, value := range map[string]string{"TERM": h.Term, "SHELL": h.Shell} {
		if value != "" {
			env[name] = value
		}
	}
	text, err := json.Marshal(struct {
		Version   int               `json:"version"`
		Width     int               `json:"width"`
		Height    int               `json:"height"`
		Timestamp int64             `json:"timestamp"`
		Title     string            `json:"title,omitempty"`
		Env       map[string]string `json:"env"`
	}{2, h.Cols, h.Rows, h.Start.Unix(), h.Title, env})
	if err != nil {
		panic(err) // strings and numbers have a form
	}
	return append(text, '\n')
}

// Output records what the terminal shows. It waits while more than 1 MiB waits
// for the disk, but not longer than Options.Patience. It does not keep p.
func (r *Recorder) Output(p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.makeRoomLocked() {
		return
	}
	// A character that is cut by a read is put together again.
	data := make([]byte, 0, len(r.cut)+len(p))
	data = append(append(data, r.cut...), p...)
	whole := wholeCharacters(data)
	r.cut = append([]byte(nil), data[whole:]...)
	if whole > 0 {
		r.addLocked('o', data[:whole])
	}
}

// Resize records that the terminal's size has changed, in cells.
func (r *Recorder) Resize(cols, rows int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked('r', fmt.Appendf(nil, "%dx%d", cols, rows))
}

// Mark records a marker, which players can go to.
func (r *Recorder) Mark(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addLocked('m', []byte(label))
}

// Close writes what is left and closes the file, waiting for it not longer
// than Options.Patience: a write to a disk that hangs cannot be interrupted,
// and its goroutine is left to it.
func (r *Recorder) Close() {
	r.mu.Lock()
	if len(r.cut) > 0 {
		r.addLocked('o', r.cut)
		r.cut = nil
	}
	r.ended = true
	r.mu.Unlock()
	r.poke()
	timer := time.NewTimer(r.o.Patience)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failLocked(ErrSlow)
	}
}

// makeRoomLocked waits until the queue takes another event, and reports
// whether it does.
func (r *Recorder) makeRoomLocked() bool {
	if r.ended || r.size < maxQueue {
		return !r.ended
	}
	timer := time.NewTimer(r.o.Patience)
	defer timer.Stop()
	for !r.ended && r.size >= maxQueue {
		drained := r.drained
		r.mu.Unlock()
		late := false
		select {
		case <-drained:
		case <-timer.C:
			late = true
		}
		r.mu.Lock()
		if late && r.size >= maxQueue {
			r.failLocked(ErrSlow)
		}
	}
	return !r.ended
}

// addLocked queues an event. Those that do not wait for room have an end too.
func (r *Recorder) addLocked(kind byte, data []byte) {
	if r.ended || r.size >= 2*maxQueue {
		return
	}
	r.queue = append(r.queue, event{time.Since(r.begun), kind, data})
	r.size += len(data) + eventCost
	r.poke()
}

func (r *Recorder) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// failLocked ends the recording and says why, once.
func (r *Recorder) failLocked(err error) {
	r.ended = true
	r.queue, r.size = nil, 0
	if !r.failed && r.o.Failed != nil {
		r.o.Failed(err)
	}
	r.failed = true
}

// write is the writer's goroutine.
func (r *Recorder) write(header []byte) {
	defer close(r.done)
	f := file{w: r.w, limit: r.o.Limit}
	err := f.write(header)
	for err == nil {
		<-r.wake
		r.mu.Lock()
		queue, ended := r.queue, r.ended
		r.queue, r.size = nil, 0
		close(r.drained)
		r.drained = make(chan struct{})
		r.mu.Unlock()
		if err = f.events(queue); ended {
			break
		}
	}
	if cerr := r.w.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failLocked(err)
		close(r.drained)
		r.drained = make(chan struct{})
	}
}

// file writes whole lines or nothing.
type file struct {
	w              io.Writer
	written, limit int64
}

func (f *file) events(list []event) error {
	var buf bytes.Buffer
	var full error
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	for _, e := range list {
		before := buf.Len()
		buf.WriteByte('[')
		buf.Write(strconv.AppendFloat(buf.AvailableBuffer(), e.at.Seconds(), 'f', 6, 64))
		fmt.Fprintf(&buf, `, "%c", `, e.kind)
		// What is no character becomes U+FFFD. The error would be buf's.
		_ = encoder.Encode(string(e.data))
		buf.Truncate(buf.Len() - 1) // Encode ends the line
		buf.WriteString("]\n")
		if f.written+int64(buf.Len()) > f.limit {
			buf.Truncate(before)
			full = ErrLimit
			break
		}
		if buf.Len() >= batch {
			if err := f.write(buf.Bytes()); err != nil {
				return err
			}
			buf.Reset()
		}
	}
	if err := f.write(buf.Bytes()); err != nil {
		return err
	}
	return full
}

func (f *file) write(lines []byte) error {
	n, err := f.w.Write(lines)
	if err == nil {
		f.written += int64(n)
		return nil
	}
	// The lines that did go in stay; a part of one would stop a player.
	f.written += int64(bytes.LastIndexByte(lines[:n], '\n') + 1)
	if t, ok := f.w.(interface{ Truncate(int64) error }); ok {
		_ = t.Truncate(f.written) // the first error tells more
	}
	return fmt.Errorf("writing the recording: %w", err)
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
