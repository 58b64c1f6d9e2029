// Package mux is a session in the language of package wire: many connections over
// one pair of streams. Both ends are here: the guest's forward-server answers a
// setup (Answer), a front end sends one (Dial); from then on they are alike.
//
// One connection never holds up another. Its data wait in a queue of its own, and
// a peer that knows the extensions is told how much there is room for in each.
// Another, such as the original front end, has no way to be told, and what it sends
// waits in memory. For all connections together that is Config.Budget. When it is
// full, the session waits for whoever has most to be read, and closes it if for
// Config.Stall nothing of it is; with the extensions that takes 64 connections that
// nobody reads.
//
// The package opens no sockets, and does not know what the connections are for.
package mux

import (
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"example.com/converge/container/guest/wire"
)

const (
	// Window is how much of a connection may be on the way, or wait to be read,
	// where both ends know the extensions: bytes, in each direction.
	Window = 1 << 20
	// chunk is how much one DATA carries at most: as much as the original's.
	chunk = 32 << 10
	// maxStreams is how many connections a peer may have open.
	maxStreams = 1024
	// maxReason is how long the sentence in an ERROR may be, in bytes.
	maxReason = 1 << 10
	// flushTime is how long the end of a session waits for what is yet to be
	// written.
	flushTime = 5 * time.Second
)

var (
	// ErrEnded is the error of what can no longer happen, since the session or the
	// connection is over.
	ErrEnded = errors.New("the connection is over")
	// ErrStalled is the error of a connection that was closed since nobody read it.
	ErrStalled = errors.New("nobody reads the connection")
)

// RefusedError says that the peer refused a setup or a connection.
type RefusedError struct {
	// Reason is the peer's sentence, or empty: the original gives none.
	Reason string
}

func (e *RefusedError) Error() string {
	if e.Reason == "" {
		return "refused by the other end, which says why in its log"
	}
	return "refused by the other end: " + e.Reason
}

// Config are the choices for a session. The zero value refuses connections that the
// peer opens, and logs nothing.
type Config struct {
	// Incoming gets each connection that the peer opens, to accept or to reject it
	// once. It must return at once.
	Incoming func(*Stream)
	// NoMore is called when the peer says that it opens no more connections and wants
	// none opened. It must return at once.
	NoMore func()
	// Budget is how much data may wait to be read in all connections together, in
	// bytes; 0 is 64 MiB.
	Budget int
	// Stall is for how long a connection may stand still while the budget is used
	// up; 0 is 10 seconds.
	Stall time.Duration
	// Logger gets what is odd; nil discards it.
	Logger Logger
}

// Logger is as much of a *slog.Logger as is used here: the message is followed by
// keys and values. Named like this, a small program need not contain that package.
type Logger interface {
	Debug(message string, pairs ...any)
	Info(message string, pairs ...any)
	Warn(message string, pairs ...any)
}

// Discard is a Logger that logs nothing.
type Discard struct{}

// Debug implements Logger.
func (Discard) Debug(string, ...any) {}

// Info implements Logger.
func (Discard) Info(string, ...any) {}

// Warn implements Logger.
func (Discard) Warn(string, ...any) {}

func (c Config) withDefaults() Config {
	if c.Budget == 0 {
		c.Budget = 64 << 20
	}
	if c.Stall == 0 {
		c.Stall = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = Discard{}
	}
	return c
}

// Session is one end of a session. All methods may be called concurrently.
type Session struct {
	cfg        Config
	in         *wire.Reader
	out        *output
	extensions bool // set before anything else happens

	opening sync.Mutex // keeps the ids of NEW in order on the wire

	mu      sync.Mutex
	room    *sync.Cond // of mu: data have been read
	streams map[uint64]*Stream
	waiting map[*Stream]struct{} // those with data that wait to be read
	queued  int                  // bytes of these
	last    uint64               // the id that was given last, by either end
	ended   bool
}

func newSession(r io.Reader, w io.Writer, cfg Config) *Session {
	s := &Session{
		cfg: cfg.withDefaults(), in: wire.NewReader(r), out: newOutput(w),
		streams: map[uint64]*Stream{}, waiting: map[*Stream]struct{}{},
	}
	s.room = sync.NewCond(&s.mu)
	return s
}

// Dial begins a session as the front end: it sends setup and waits for the answer.
// To end that wait early, close what r reads from. If there is no error, Run must be
// called.
func Dial(r io.Reader, w io.Writer, setup wire.Setup, cfg Config) (*Session, wire.Granted, error) {
	s := newSession(r, w, cfg)
	setup.Extensions = wire.Extensions1
	granted, err := s.dial(setup)
	if err != nil {
		s.out.close()
		return nil, wire.Granted{}, err
	}
	s.extensions = granted.Extensions == wire.Extensions1
	return s, granted, nil
}

func (s *Session) dial(setup wire.Setup) (wire.Granted, error) {
	if err := s.out.control(wire.Packet{Type: wire.TypeSetup, Payload: setup.Payload()}); err != nil {
		return wire.Granted{}, err
	}
	answer, err := s.in.Read()
	switch {
	case err == io.EOF:
		return wire.Granted{}, io.ErrUnexpectedEOF
	case err != nil:
		return wire.Granted{}, err
	case answer.Type == wire.TypeError:
		return wire.Granted{}, &RefusedError{reason(answer.Payload)}
	case answer.Type != wire.TypeSuccess:
		return wire.Granted{}, errors.New("the answer to the setup is neither yes nor no")
	}
	return wire.ParseGranted(answer.Payload)
}

// Answer begins a session as the guest: it waits for the setup, and calls prepare,
// whose error is the peer's answer and Answer's. prepare returns the port that is
// listened on, or 0. If there is no error, Run must be called.
func Answer(r io.Reader, w io.Writer, cfg Config, prepare func(wire.Setup) (port uint64, err error)) (*Session, error) {
	s := newSession(r, w, cfg)
	err := s.answer(prepare)
	if err != nil {
		s.out.close()
		return nil, err
	}
	return s, nil
}

func (s *Session) answer(prepare func(wire.Setup) (uint64, error)) error {
	first, err := s.in.Read()
	if err != nil {
		return err
	}
	if first.Type != wire.TypeSetup {
		return s.refuse(errors.New("the first packet is not a setup"))
	}
	setup, err := wire.ParseSetup(first.Payload)
	if err != nil {
		return s.refuse(err)
	}
	s.extensions = setup.Extensions == wire.Extensions1
	port, err := prepare(setup)
	if err != nil {
		return s.refuse(err)
	}
	success := wire.Packet{Type: wire.TypeSuccess}
	if s.extensions {
		success.Payload = wire.Granted{BindPort: port, Extensions: wire.Extensions1}.Payload()
	} else if setup.BindPort == 0 && port != 0 {
		success.Payload = wire.Granted{BindPort: port}.Payload()
	}
	return s.out.control(success)
}

// refuse answers a setup with err and returns it.
func (s *Session) refuse(err error) error {
	_ = s.out.control(s.failure(0, err.Error()))
	return err
}

// failure is an ERROR, with a sentence for a peer that reads it.
func (s *Session) failure(id uint64, why string) wire.Packet {
	p := wire.Packet{Type: wire.TypeError, ConnectionID: id}
	if s.extensions {
		p.Payload = []byte(why[:min(len(why), maxReason)])
	}
	return p
}

// reason is the sentence of an ERROR, which goes to logs and terminals.
func reason(payload []byte) string {
	text := make([]rune, 0, min(len(payload), maxReason))
	for _, r := range string(payload[:min(len(payload), maxReason)]) {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			r = ' '
		}
		text = append(text, r)
	}
	return string(text)
}

// Run reads what the peer sends until that ends, and ends all connections then;
// what they have received can still be read. It returns nil if the peer ended in
// good order. Run is called once.
func (s *Session) Run() error {
	var err error
	for err == nil {
		var p wire.Packet
		if p, err = s.in.Read(); err == nil {
			err = s.handle(p)
		}
	}
	s.Close()
	if err == io.EOF {
		return nil
	}
	return err
}

// Close ends all connections, and writes what is yet to be written, for 5 seconds
// at most. It does not end Run: what that reads from must be closed for it.
func (s *Session) Close() {
	s.mu.Lock()
	s.ended = true
	for _, st := range s.streams {
		s.overLocked(st, ErrEnded)
	}
	s.mu.Unlock()
	s.out.close()
}

// Open opens a connection. It does not wait for the peer's answer: Stream.Opened
// does, and reads and writes.
func (s *Session) Open(what wire.New) (*Stream, error) {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	if s.ended || s.last == math.MaxUint64 {
		s.mu.Unlock()
		return nil, ErrEnded
	}
	s.last++
	st := s.addLocked(s.last, what)
	s.mu.Unlock()
	if err := s.out.control(wire.Packet{Type: wire.TypeNew, ConnectionID: st.id, Payload: what.Payload()}); err != nil {
		return nil, err
	}
	return st, nil
}

// Len returns how many connections there are, those among them that wait for an
// answer.
func (s *Session) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.streams)
}

// NoMore tells the peer to open no more connections, and that none will be accepted.
func (s *Session) NoMore() error {
	return s.out.control(wire.Packet{Type: wire.TypeNoMore})
}

func (s *Session) addLocked(id uint64, what wire.New) *Stream {
	st := &Stream{session: s, id: id, what: what, done: make(chan struct{}), changed: sync.NewCond(&s.mu)}
	if s.extensions {
		st.credit = Window
	}
	s.streams[id] = st
	return st
}

// overLocked ends a connection: nothing of it is sent or received any more.
func (s *Session) overLocked(st *Stream, err error) {
	if st.phase == over {
		return
	}
	st.phase = over
	if st.err == nil {
		st.err = err
	}
	delete(s.streams, st.id)
	close(st.done)
	st.changed.Broadcast()
}
