package resume

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// Defaults of a Hub's limits.
const (
	// DefaultMaxDetached is how many sessions may wait for their clients.
	DefaultMaxDetached = 64
	// DefaultMaxMemory is how much their buffers may hold together, in bytes.
	DefaultMaxMemory = 64 << 20
)

// HubConfig is what the agent's end needs.
type HubConfig struct {
	// Signer is the SSH host key: Ed25519, ECDSA, or RSA of at least 2048
	// bits that can sign with SHA-512. It must be good for concurrent use.
	Signer ssh.Signer
	// Window is how long a detached session is kept; 0 is DefaultWindow.
	Window time.Duration
	// Buffer bounds what each direction of a session holds, in bytes; 0 is
	// DefaultBuffer.
	Buffer int
	// MaxDetached and MaxMemory bound the detached sessions, in number and in
	// bytes of their buffers; 0 are the defaults. Where one more is too many
	// the longest detached goes, those without Stream.Keep first.
	MaxDetached int
	MaxMemory   int
	// Ping is the mean interval of pings; 0 is DefaultPing.
	Ping time.Duration
	// Notice, if not nil, is called when a stream stalls or is back, never
	// concurrently for one stream. It must not call the stream's methods that
	// wait, nor the Hub's.
	Notice func(*Stream, Notice)
}

// Hub is the agent's end of all its streams. Its methods may be called
// concurrently.
type Hub struct {
	cfg      HubConfig
	routines sync.WaitGroup

	mu       sync.Mutex            // taken before a stream's
	closed   bool                  // no new sessions
	ended    bool                  // no connections at all
	greeting map[net.Conn]struct{} // those in a handshake
	sessions map[[tokenSize]byte]*entry
	waiting  []*entry // the detached ones, the longest detached first
	memory   int      // of those in waiting
}

// Stats are the numbers of a Hub's sessions.
type Stats struct {
	// Sessions is how many there are, Detached how many of them have no
	// connection, Memory what those hold in bytes.
	Sessions, Detached, Memory int
}

// NewHub makes a Hub. Close it.
func NewHub(cfg HubConfig) (*Hub, error) {
	if err := limits(&cfg.Window, &cfg.Ping, &cfg.Buffer); err != nil {
		return nil, err
	}
	switch {
	case cfg.Signer == nil:
		return nil, errors.New("resumable streams need a host key")
	case !acceptable(cfg.Signer.PublicKey()):
		return nil, fmt.Errorf("resumable streams cannot use a host key of type %s, or it is too short: use an Ed25519 key", cfg.Signer.PublicKey().Type())
	case cfg.MaxDetached < 0 || cfg.MaxMemory < 0:
		return nil, errors.New("the limits of detached sessions must not be negative")
	}
	if _, err := sign(cfg.Signer, make([]byte, macSize)); err != nil {
		return nil, err
	}
	if cfg.MaxDetached == 0 {
		cfg.MaxDetached = DefaultMaxDetached
	}
	if cfg.MaxMemory == 0 {
		cfg.MaxMemory = DefaultMaxMemory
	}
	return &Hub{cfg: cfg, greeting: map[net.Conn]struct{}{}, sessions: map[[tokenSize]byte]*entry{}}, nil
}

// Accept does the agent's side of a handshake on a connection, for ten seconds
// at most, and takes the connection over; on an error it has closed it. It
// returns a new stream and true, or the stream that now goes on over conn and
// false: whoever has that one needs to do nothing.
func (h *Hub) Accept(conn net.Conn) (stream *Stream, isNew bool, err error) {
	return h.accept(conn, false)
}

// Resume is Accept for an agent that has no room for a new stream: it takes
// the connections of those that go on, which it returns, and refuses others
// with ErrFull.
func (h *Hub) Resume(conn net.Conn) (*Stream, error) {
	stream, _, err := h.accept(conn, true)
	return stream, err
}

func (h *Hub) accept(conn net.Conn, full bool) (stream *Stream, isNew bool, err error) {
	by := time.Now().Add(handshakeWait)
	done := bound(conn)
	h.mu.Lock()
	if h.ended {
		h.mu.Unlock()
		_ = conn.Close()
		return nil, false, ErrHubClosed
	}
	h.routines.Add(1) // so that Close waits for this as well
	h.greeting[conn] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.greeting, conn)
		h.mu.Unlock()
		h.routines.Done()
	}()
	kind, body, err := readMessage(conn)
	switch {
	case err != nil:
	case kind == msgHello && full:
		err = refuse(conn, refusedFull, ErrFull)
	case kind == msgHello:
		isNew = true
		stream, err = h.open(conn, body, by, done)
	case kind == msgResume:
		stream, err = h.resume(conn, body, by, done)
	default:
		err = fmt.Errorf("%w: message %d of a client", errPreface, kind)
	}
	if err != nil {
		_ = conn.Close()
		return nil, false, fmt.Errorf("cannot accept a resumable stream: %w", err)
	}
	return stream, isNew, nil
}

func (h *Hub) open(conn net.Conn, body []byte, by time.Time, done func()) (*Stream, error) {
	first, message, err := welcomeClient(body, h.cfg.Signer, h.cfg.Window, h.cfg.Buffer)
	if err != nil {
		if message != nil {
			_, _ = conn.Write(message)
		}
		return nil, err
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	done()
	s := newStream(h, h.cfg.Ping, first.secret, first.token, newCore(h.cfg.Buffer, first.peerBuffer), false)
	// In the table and attached in one step: it may be resumed, or be lost, as
	// soon as it is either.
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrHubClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.attachLocked(conn, first.agent, first.client, 0, by); err != nil {
		return nil, err
	}
	h.sessions[s.token] = &entry{s: s}
	return s, nil
}

// refuse answers with a refusal and returns the error that it is about.
func refuse(conn net.Conn, reason refusal, err error) error {
	_, _ = conn.Write(encode(msgRefused, []byte{byte(reason)}))
	return err
}

func (h *Hub) resume(conn net.Conn, body []byte, by time.Time, done func()) (*Stream, error) {
	m, err := parseResumption(body)
	if err != nil {
		return nil, err
	}
	if m.version != version {
		return nil, refuse(conn, refusedVersion, ErrVersion)
	}
	h.mu.Lock()
	e := h.sessions[m.token]
	h.mu.Unlock()
	switch {
	case e == nil:
		return nil, refuse(conn, refusedGone, ErrGone)
	case !m.authentic(e.s.secret):
		return nil, errForged // no refusal: the client may yet get through
	}
	s := e.s
	// The old connection is parked before the offset is read: what comes on it
	// from now on is not taken, and the offset stays true.
	received, err := s.park(m.attempt)
	switch {
	case errors.Is(err, ErrGone):
		return nil, refuse(conn, refusedGone, err)
	case err != nil:
		return nil, err
	}
	client, agent, message, err := confirm(s.secret, body, received)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(message); err != nil {
		return nil, err
	}
	done()
	s.mu.Lock()
	switch {
	case s.over:
		err = ErrGone
	case s.attempt != m.attempt: // a newer one came in between
		err = errSuperseded
	default:
		if err = s.attachLocked(conn, agent, client, m.received, by); err != nil {
			s.endLocked(err)
		}
	}
	s.mu.Unlock()
	h.changed(s)
	return s, err
}

// park takes the connection away from a session for an attempt that is newer
// than all before, and returns what it has received.
func (s *Stream) park(attempt uint64) (received uint64, err error) {
	s.mu.Lock()
	lost := s.link != nil
	switch {
	case s.over:
		s.mu.Unlock()
		return 0, ErrGone
	case attempt <= s.attempt:
		// No refusal: a relay may say a client's words again, to a connection
		// that it has in place of one that looked dead. The client's next
		// attempt has another number.
		s.mu.Unlock()
		return 0, errUsed
	case lost:
		s.loseLocked(errSuperseded)
	}
	if s.over { // it was closed, and could not go on without that connection
		err = ErrGone
	}
	s.attempt = attempt
	received = s.core.received
	s.mu.Unlock()
	if lost {
		s.owner.changed(s)
	}
	return received, err
}

func (h *Hub) spawn(f func()) { h.routines.Go(f) }

// closing does not wait: the stream is the Hub's to end.
func (h *Hub) closing(*Stream) {}

// Stats counts.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Stats{Sessions: len(h.sessions), Detached: len(h.waiting), Memory: h.memory}
}

// Close closes all streams and waits until their clients have everything, or
// ctx ends, and for every goroutine. A stream without a connection ends at
// once: there is nobody to tell. Meanwhile Accept takes no new streams, and then
// nothing. Where ctx has ended, connections that take long to close are left
// to themselves.
func (h *Hub) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	var all []*Stream
	for _, e := range h.sessions {
		all = append(all, e.s)
	}
	h.mu.Unlock()
	var err error
	for _, s := range all {
		_ = s.Close()
		h.changed(s) // which ends it if it is alone
	}
	for _, s := range all {
		select {
		case <-s.done:
		case <-ctx.Done():
			s.fail(ErrHubClosed)
		}
		h.changed(s) // whoever ended it, such as a timer, may not have come to that yet
		s.mu.Lock()
		if s.err != nil {
			err = ErrUnsent
		}
		s.mu.Unlock()
	}
	h.mu.Lock()
	h.ended = true
	for conn := range h.greeting {
		_ = conn.SetDeadline(past)
	}
	h.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		h.routines.Wait()
	}()
	select {
	case <-gone:
	case <-ctx.Done():
		// What ended just now is as good as gone, unless it is stuck.
		timer := time.NewTimer(closeWait)
		defer timer.Stop()
		select {
		case <-gone:
		case <-timer.C:
			err = errors.Join(err, errStuck)
		}
	}
	return err
}
