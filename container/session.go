package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Limits of what a session may ask for.
const (
	maxEnv      = 1024      // variables
	maxEnvBytes = 128 << 10 // of all names and values
	maxLine     = 1 << 20   // bytes of a command line
	maxSize     = 0xffff    // columns or rows
	inputWait   = 10 * time.Second
)

// ExitStatus is how a program ended: its exit status, or 128 and the number of
// the signal that ended it, as in shells. Session.ExitSignal tells which it was.
// StatusUnknown means that it could not be learned.
type ExitStatus uint32

// StatusUnknown is the status of a program whose end was not seen, since the
// engine was lost or the container was taken away. A program may have it too.
const StatusUnknown ExitStatus = 255

// Session is one session channel (RFC 4254 §6). Its methods may be called
// concurrently. Those that start a program return when it runs; its output and
// its status follow.
type Session struct {
	connection *Connection
	log        *slog.Logger
	// ctx ends with the session.
	ctx  context.Context
	quit context.CancelFunc
	// wg counts what waits for the program, inputs the readers of stdin.
	wg, inputs sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	started  bool
	env      []string
	envBytes int
	terminal *terminal
	program  *program
	sent     map[string]bool // signals that were sent
	signal   string          // that ended the program
}

// terminal is what the client said of its terminal.
type terminal struct {
	name          string
	columns, rows uint32
}

func newSession(c *Connection, id uint64) *Session {
	ctx, quit := context.WithCancel(c.handler.alive)
	return &Session{
		connection: c, ctx: ctx, quit: quit, log: c.handler.log.With("channel", id),
		sent: map[string]bool{},
	}
}

// OnEnvRequest sets a variable for the program that is yet to start. Which
// variables a client may set is for the caller to decide.
func (s *Session) OnEnvRequest(_ uint64, name, value string) error {
	if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
		return failed("set a variable", fmt.Errorf("%.64q is not a variable", name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		return failed("set a variable", ErrStarted)
	}
	if len(s.env) >= maxEnv || s.envBytes+len(name)+len(value) > maxEnvBytes {
		return failed("set a variable", errors.New("there are too many"))
	}
	s.env = append(s.env, name+"="+value)
	s.envBytes += len(name) + len(value)
	return nil
}

// OnPtyRequest gives the program that is yet to start a terminal of that size in
// characters. Pixels and modes are ignored: engines have no place for them.
func (s *Session) OnPtyRequest(_ uint64, term string, columns, rows, _, _ uint32, _ []byte) error {
	if strings.ContainsRune(term, 0) || len(term) > 256 {
		return failed("make a terminal", errors.New("TERM is not a name"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.terminal != nil {
		return failed("make a terminal", ErrStarted)
	}
	s.terminal = &terminal{term, min(columns, maxSize), min(rows, maxSize)}
	return nil
}

// OnShell starts the shell. stdin is read until its end, or the session's, which
// it must come to when the channel is closed; the end of stdin is no reason for
// the program to end. With a terminal nothing is written to stderr, but for a
// sentence when the engine is lost. Writes are one at a time for each writer;
// one that fails ends the program. onExit is called once, after the last write;
// it is not called if an error is returned.
func (s *Session) OnShell(_ uint64, stdin io.Reader, stdout, stderr io.Writer, onExit func(status ExitStatus)) error {
	return s.start(launch{shell: true}, stdin, stdout, stderr, onExit)
}

// OnExecRequest starts a command line, as /bin/sh -c has it. The rest is as in
// OnShell.
func (s *Session) OnExecRequest(_ uint64, line string, stdin io.Reader, stdout, stderr io.Writer, onExit func(status ExitStatus)) error {
	if len(line) > maxLine || strings.ContainsRune(line, 0) {
		return failed("start a command", errors.New("the command line is too long, or holds a zero byte"))
	}
	return s.start(launch{argv: []string{"/bin/sh", "-c", line}}, stdin, stdout, stderr, onExit)
}

// OnProgram starts a program without any shell, which an image from scratch has
// not. It is looked for on the PATH if there is a guest agent. The rest is as in
// OnShell.
func (s *Session) OnProgram(_ uint64, argv []string, stdin io.Reader, stdout, stderr io.Writer, onExit func(status ExitStatus)) error {
	if len(argv) == 0 || argv[0] == "" || strings.ContainsRune(strings.Join(argv, ""), 0) {
		return failed("start a program", errors.New("there is none"))
	}
	return s.start(launch{argv: argv}, stdin, stdout, stderr, onExit)
}

// OnSubsystem starts the program of a subsystem. ErrUnsupported says that there
// is none. The rest is as in OnShell.
func (s *Session) OnSubsystem(_ uint64, subsystem string, stdin io.Reader, stdout, stderr io.Writer, onExit func(status ExitStatus)) error {
	e := &s.connection.handler.cfg.Execution
	line, given := e.Subsystems[subsystem]
	if !given && subsystem != "sftp" {
		return failed("start subsystem "+clip(subsystem), ErrUnsupported)
	}
	return s.start(launch{subsystem: subsystem, argv: strings.Fields(line)}, stdin, stdout, stderr, onExit)
}

// OnSignal sends a signal, by its name without SIG (RFC 4254 §6.9), to the
// program and its process group.
func (s *Session) OnSignal(_ uint64, signal string) error {
	if !signals[signal] {
		return failed("send a signal", fmt.Errorf("%.32q is not the name of one", signal))
	}
	s.mu.Lock()
	p := s.program
	s.mu.Unlock()
	if p == nil {
		return failed("send a signal", ErrNotStarted)
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.connection.handler.cfg.Timeouts.Signal.or(defaultLimit))
	defer cancel()
	s.mu.Lock()
	s.sent[signal] = true
	s.mu.Unlock()
	return failed("send a signal", p.signal(ctx, signal))
}

// OnWindow gives the terminal another size, in characters.
func (s *Session) OnWindow(_ uint64, columns, rows, _, _ uint32) error {
	s.mu.Lock()
	if s.terminal == nil {
		s.mu.Unlock()
		return failed("resize the terminal", errors.New("there is none"))
	}
	s.terminal.columns, s.terminal.rows = min(columns, maxSize), min(rows, maxSize)
	p, t := s.program, *s.terminal
	s.mu.Unlock()
	if p == nil {
		return nil // it will start with this size
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.connection.handler.cfg.Timeouts.Window.or(defaultLimit))
	defer cancel()
	return failed("resize the terminal", p.resize(ctx, t))
}

// OnX11Request refuses.
func (s *Session) OnX11Request(uint64, bool, string, string, uint32) error {
	return failed("forward X11", ErrUnsupported)
}

// OnShutdown asks the program to end, and waits until it has or ctx ends.
func (s *Session) OnShutdown(ctx context.Context) {
	s.mu.Lock()
	p := s.program
	s.mu.Unlock()
	if p == nil {
		return
	}
	name := "TERM"
	if p.tty {
		name = "HUP" // an interactive shell ignores TERM
	}
	if err := p.signal(ctx, name); err != nil {
		s.log.Debug("a program could not be told to end", "err", err)
	}
	select {
	case <-p.ended:
	case <-ctx.Done():
	}
}

// OnClose ends the session: its program is hung up on and killed, if it still
// runs, and what belongs to it is removed. It returns when that is done, and may
// be called more than once.
func (s *Session) OnClose() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.quit()
	s.wg.Wait()
	read := make(chan struct{})
	go func() {
		defer close(read)
		s.inputs.Wait()
	}()
	timer := time.NewTimer(inputWait)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
		s.log.Error("the input of a session that is closed does not end")
	}
	s.connection.forget(s)
}

// ExitSignal returns the name, without SIG, of the signal that ended the program;
// "" if none did, or it still runs. It is known when onExit is called.
func (s *Session) ExitSignal() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal
}

// clip shortens what a client said for a log or an error.
func clip(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return fmt.Sprintf("%q", s)
}
