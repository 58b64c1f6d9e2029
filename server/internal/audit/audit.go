// Package audit writes down who used the server, for those who must answer for
// it: JSON, one event a line. It knows nothing of what the events mean, and
// never lets the service wait for a disk.
package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Limits of the log.
const (
	// queue is how many events may wait to be written.
	queue = 4096
	// tellEvery is how often lost events are told.
	tellEvery = time.Minute
	// closeWait is how long Close waits for what is still to be written.
	closeWait = 2 * time.Second
)

// Event is one line. What is not known is left out. No member may be a secret.
type Event struct {
	// Time is set by Write if it is zero.
	Time time.Time `json:"time"`
	// Event names what happened, such as agent.registered.
	Event string `json:"event"`
	// ID is the agent's id, Remote the peer's address.
	ID     string `json:"id,omitempty"`
	Remote string `json:"remote,omitempty"`
	// Client is the client's number in this run of the server.
	Client uint64 `json:"client,omitempty"`
	// Session is the id of the client's session, as all logs have it.
	Session string `json:"session,omitempty"`
	// Credential is how it was let in: token, oidc, key, none.
	Credential string `json:"credential,omitempty"`
	// Subject is a static token's name or an OIDC token's sub.
	Subject string            `json:"subject,omitempty"`
	Issuer  string            `json:"issuer,omitempty"`
	Rule    string            `json:"rule,omitempty"`
	Claims  map[string]string `json:"claims,omitempty"`
	// Seconds is how long it lasted, ToAgent and ToClient the bytes moved.
	Seconds  *float64 `json:"seconds,omitempty"`
	ToAgent  *int64   `json:"to_agent,omitempty"`
	ToClient *int64   `json:"to_client,omitempty"`
	// Status is the HTTP status of a refusal, Result why it was refused or how
	// it ended.
	Status int    `json:"status,omitempty"`
	Result string `json:"result,omitempty"`
	// Lost is the number of events of which there is no line.
	Lost uint64 `json:"lost,omitempty"`
}

// Log writes events. A nil *Log discards them. Its methods may be called
// concurrently.
type Log struct {
	path string
	out  io.Writer // in place of a file
	log  *slog.Logger
	now  func() time.Time

	events chan Event
	reopen chan struct{}
	done   chan struct{}

	mu     sync.Mutex
	closed bool
	left   bool   // Close has given the writer up
	busy   bool   // the writer is writing an event
	lost   uint64 // since the last line about them
	total  uint64 // lost since the start

	// The rest is the writer's alone.
	file *os.File
	torn bool // the last line was not written whole
	told time.Time
}

// Open appends to a file, which it makes with mode 0600. out, if not nil, is
// written to instead. The error names the file. A nil log discards.
//
// The writer's goroutine is the Log's, and Close waits for it. Where a write
// never returns it stays there, with at most that one event, until the write
// does or the process ends.
func Open(path string, out io.Writer, log *slog.Logger) (*Log, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Log{
		path: path, out: out, log: log, now: time.Now,
		events: make(chan Event, queue), reopen: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if out == nil {
		if err := l.open(); err != nil {
			return nil, err
		}
	}
	go l.write()
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open the audit log: %w", err)
	}
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file, l.torn = f, false
	return nil
}

// Write adds an event. It never waits: what cannot be written in time is
// counted and told.
func (l *Log) Write(e Event) {
	if l == nil {
		return
	}
	if e.Time.IsZero() {
		e.Time = l.now().UTC()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	select {
	case l.events <- e:
	default:
		l.lost++
		l.total++
	}
}

// Lost returns how many events are not in the log.
func (l *Log) Lost() uint64 {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Reopen opens the file anew, after it was moved away.
func (l *Log) Reopen() {
	if l == nil {
		return
	}
	select {
	case l.reopen <- struct{}{}:
	default: // one is due already
	}
}

// Close writes what there is and closes the file. It waits for two seconds at
// most, as for a pipe that nobody reads: what is not written then is counted as
// lost, and told.
func (l *Log) Close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.events)
	}
	l.mu.Unlock()
	late := time.NewTimer(closeWait)
	defer late.Stop()
	select {
	case <-l.done:
	case <-late.C:
		l.leave()
	}
}

// leave counts what the writer has not written as lost. An event that it is
// just writing counts too: whether there is a line of it nobody will know.
func (l *Log) leave() {
	l.mu.Lock()
	if l.left {
		l.mu.Unlock()
		return
	}
	l.left = true
	var rest uint64
	for range l.events { // it is closed
		rest++
	}
	if l.busy {
		rest++
	}
	l.lost += rest
	l.total += rest
	lost := l.lost
	l.mu.Unlock()
	l.log.Error("the audit log lacks events: it takes no more", "lost", lost)
}

// write is the writer's goroutine, which ends with Close.
func (l *Log) write() {
	defer close(l.done)
	for {
		select {
		case e, ok := <-l.events:
			if !ok {
				l.tell(true)
				if l.file != nil {
					_ = l.file.Close()
				}
				return
			}
			l.line(e)
		case <-l.reopen:
			if l.out != nil {
				continue
			}
			if err := l.open(); err != nil {
				l.log.Error("the audit log goes on in its old file", "err", err)
			}
		}
		l.tell(false)
	}
}

// line writes one event, and before it how many were lost.
func (l *Log) line(e Event) {
	l.mu.Lock()
	lost, left := l.lost, l.left
	l.busy = !left
	if left { // it was taken while Close counted the others
		l.lost++
		l.total++
	}
	l.mu.Unlock()
	if left {
		return
	}
	defer func() {
		l.mu.Lock()
		l.busy = false
		l.mu.Unlock()
	}()
	if lost > 0 && l.put(Event{Time: l.now().UTC(), Event: "audit.lost", Lost: lost}) == nil {
		l.mu.Lock()
		l.lost -= lost
		l.mu.Unlock()
	}
	if err := l.put(e); err != nil {
		l.mu.Lock()
		counted := l.left
		if !counted {
			l.lost++
			l.total++
		}
		l.mu.Unlock()
		if !counted {
			l.complain(err)
		}
	}
}

// put writes one line. After one that was cut short it begins a new one.
func (l *Log) put(e Event) error {
	var buf bytes.Buffer
	if l.torn {
		buf.WriteByte('\n')
	}
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return fmt.Errorf("cannot encode an event: %w", err)
	}
	out := l.out
	if out == nil {
		out = l.file
	}
	n, err := out.Write(buf.Bytes())
	if err == nil {
		l.torn = false
	} else if n > 0 {
		l.torn = true
	}
	return err
}

// complain says, once in a while, that there is no log.
func (l *Log) complain(err error) {
	if now := l.now(); now.Sub(l.told) >= tellEvery {
		l.told = now
		l.log.Error("the audit log cannot be written: the service goes on without it", "err", err)
	}
}

// tell says that events were lost because the disk is slower than they are.
func (l *Log) tell(last bool) {
	l.mu.Lock()
	lost, left := l.lost, l.left
	l.mu.Unlock()
	if left {
		return // Close has told
	}
	if now := l.now(); lost > 0 && (last || now.Sub(l.told) >= tellEvery) {
		l.told = now
		l.log.Error("the audit log lacks events", "lost", lost)
	}
}
