package sshd

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/share"
)

// Limits of what is kept for a session until it takes it.
const (
	// maxEarly is the number of signals kept until the command has started.
	maxEarly = 16
	// maxWall is the number of messages kept for a shell whose client is slow.
	maxWall = 8
)

// session is one session channel (RFC 4254 §6). A goroutine of its own answers
// its requests and never waits for the client: the requests of all channels
// come through one reader. What a session runs is run's to wait for.
type session struct {
	conn   *conn
	server *Server
	ch     ssh.Channel
	vars   variables
	// peer is the connection, to open channels to the client.
	peer ssh.Conn
	// agentSocket leads to the client's key agent; "" is none.
	agentSocket string
	// subsystem is the one that the client wanted, where the back end has it.
	subsystem string
	// original is what the client wanted where a command is forced.
	original string
	// gone is closed when the channel is, by whichever side, and then ctx ends,
	// which also ends when the session is stopped before something runs.
	gone chan struct{}
	ctx  context.Context
	quit context.CancelFunc
	// finished is closed when nothing more will be sent.
	finished     chan struct{}
	finishedOnce sync.Once
	// wg counts the goroutines of the session.
	wg sync.WaitGroup
	// notice is for the user, sent on stderr before the rest.
	notice string

	// out orders those that write to stdout: output and messages.
	out sync.Mutex
	// wall carries messages to the goroutine that writes them.
	wall chan string
	// room is that of the shell that this terminal shows, its own or another
	// one's; nil while there is none.
	room atomic.Pointer[share.Room]
	// covering is what was said at Shutdown over a full-screen program.
	covering string

	mu       sync.Mutex
	kind     Kind // 0 until something runs
	terminal *backend.Terminal
	process  backend.Process
	early    []string
	stopping bool
	viewport func(backend.Size) // hears of the window's size; nil is process
	ending   func()             // what stop does where there is no process
}

func newSession(c *conn) *session {
	ctx, quit := context.WithCancel(c.alive)
	return &session{
		ctx:      ctx,
		quit:     quit,
		conn:     c,
		server:   c.server,
		gone:     make(chan struct{}),
		finished: make(chan struct{}),
		wall:     make(chan string, maxWall),
	}
}

// serve answers requests until the channel is closed, and returns when the
// session has ended.
func (s *session) serve(ch ssh.Channel, requests <-chan *ssh.Request) {
	s.mu.Lock()
	s.ch = ch
	stopping := s.stopping
	s.mu.Unlock()
	if stopping {
		ch.Close()
	}
	for req := range requests {
		ok, then := s.handle(req)
		// An error means that the channel is closing; the range ends.
		_ = req.Reply(ok, nil)
		if then != nil {
			// The answer goes before the first output.
			s.wg.Go(then)
		}
	}
	close(s.gone)
	s.quit()
	s.wg.Wait()
	// The side that closes last has to close too; a second time is an error
	// that says nothing new.
	_ = ch.Close()
	s.finish()
}

// handle answers one request. If that starts something, it returns what to run.
func (s *session) handle(req *ssh.Request) (ok bool, then func()) {
	switch req.Type {
	case "pty-req":
		return s.requestTerminal(req.Payload), nil
	case "window-change":
		return s.changeWindow(req.Payload), nil
	case "env":
		name, value, err := parseEnv(req.Payload)
		return err == nil && !s.started() && s.vars.set(name, value, s.server.cfg.AcceptEnv), nil
	case "signal":
		name, err := parseString(req.Payload)
		return err == nil && s.signal(name), nil
	case "shell":
		if len(req.Payload) != 0 {
			return false, nil
		}
		return s.start(s.shellKind(), "")
	case "exec":
		line, err := parseString(req.Payload)
		if err != nil {
			return false, nil
		}
		return s.start(Exec, line)
	case "subsystem":
		name, err := parseString(req.Payload)
		switch {
		case err != nil, name == "sftp" && s.server.cfg.NoSFTP:
			return false, nil
		case name == "sftp":
			return s.start(SFTP, internalSFTP)
		case s.server.backend.Subsystem(name):
			s.subsystem = name
			return s.start(Exec, name)
		case s.forced() != "":
			return false, nil // nothing goes past the forced command
		}
		return s.startView(name)
	case "auth-agent-req@openssh.com":
		return s.requestAgent(req.Payload), nil
	}
	// x11-req among others.
	return false, nil
}

// started reports whether something runs, or has run.
func (s *session) started() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kind != 0
}

// shellKind tells a shell on a terminal from one without.
func (s *session) shellKind() Kind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal != nil {
		return Shell
	}
	return Exec
}

// begin takes the one thing that a session may run (RFC 4254 §6.5).
func (s *session) begin(k Kind) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind != 0 || s.stopping {
		return false
	}
	s.kind = k
	return true
}

func (s *session) requestTerminal(payload []byte) bool {
	t, err := parsePty(payload)
	if err != nil || s.conn.grant.NoPTY {
		return false
	}
	if err := s.server.backend.Terminals(); err != nil {
		s.notice = "converge: " + err.Error() + "\r\n"
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind != 0 || s.terminal != nil {
		return false
	}
	s.terminal = &t
	return true
}

func (s *session) changeWindow(payload []byte) bool {
	size, err := parseSize(payload)
	if err != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal == nil {
		return false
	}
	s.terminal.Size = size
	if s.viewport != nil {
		s.viewport(size)
	} else if s.process != nil {
		s.process.Resize(size)
	}
	return true
}

func (s *session) signal(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.kind == Shell || s.kind == Exec:
	default:
		return false
	}
	if s.process != nil {
		return s.process.Signal(name)
	}
	if len(s.early) == maxEarly {
		return false
	}
	s.early = append(s.early, name)
	return true
}

// adopt makes a process known that has just been started, and gives it what
// has come for it meanwhile.
func (s *session) adopt(p backend.Process, begun backend.Size) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.process = p
	if s.terminal != nil && s.terminal.Size != begun {
		p.Resize(s.terminal.Size)
	}
	for _, name := range s.early {
		p.Signal(name)
	}
	s.early = nil
	if s.stopping {
		p.Stop()
	}
}

// tell queues a message for an interactive shell.
func (s *session) tell(text string) {
	s.mu.Lock()
	shell := s.kind.interactive()
	s.mu.Unlock()
	if !shell {
		return
	}
	select {
	case s.wall <- text:
	default: // a client that takes no output misses it
	}
}

// stop ends the session from this side.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping = true
	switch {
	case s.process != nil:
		s.process.Stop()
	case s.kind == Shell || s.kind == Exec:
		// adopt will see it, unless it does not come to that.
		s.quit()
	case s.ending != nil:
		s.ending()
	case s.ch != nil:
		s.ch.Close()
		s.finish()
	}
}

// finish says that nothing more will be sent.
func (s *session) finish() { s.finishedOnce.Do(func() { close(s.finished) }) }
