package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	dockercontainer "github.com/moby/moby/api/types/container"

	"example.com/converge/container/internal/engine"
)

// launch is what a session wants to run: a shell, a subsystem, or a program.
type launch struct {
	shell     bool
	subsystem string
	argv      []string
}

// OpenSSHServerPath is where an sftp server is when the guest agent is none.
const OpenSSHServerPath = "/usr/lib/openssh/sftp-server"

// start starts a program and returns when it runs.
func (s *Session) start(l launch, stdin io.Reader, stdout, stderr io.Writer, onExit func(ExitStatus)) error {
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return failed("start a program", ErrClosed)
	case s.started:
		s.mu.Unlock()
		return failed("start a program", ErrStarted)
	}
	s.started = true
	env := slices.Clone(s.env)
	var begun *terminal
	if s.terminal != nil {
		t := *s.terminal
		begun = &t
		env = append(env, "TERM="+t.name)
	}
	// So that OnClose waits for it.
	s.wg.Add(1)
	s.mu.Unlock()

	p, err := s.open(l, env, begun, stdout, stderr)
	if err != nil {
		s.wg.Done()
		s.mu.Lock()
		s.started = false // the client may try something else
		s.mu.Unlock()
		if !errors.Is(err, ErrUnsupported) {
			s.log.Error("the back end failed", "err", err)
		}
		return failed("start a program", err)
	}
	s.mu.Lock()
	s.program = p
	changed := begun != nil && *s.terminal != *begun
	s.mu.Unlock()
	if changed {
		_ = s.OnWindow(0, s.size().columns, s.size().rows, 0, 0) // a wrong size ends nothing
	}
	s.inputs.Go(func() { p.input(stdin) })
	go func() {
		defer s.wg.Done()
		s.finish(p, stderr, onExit)
	}()
	return nil
}

func (s *Session) size() terminal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.terminal
}

// open starts the program where it belongs.
func (s *Session) open(l launch, env []string, t *terminal, stdout, stderr io.Writer) (*program, error) {
	h := s.connection.handler
	limit := h.cfg.Timeouts.CommandStart.or(defaultLimit)
	if s.connection.box == nil {
		limit += h.cfg.Timeouts.ContainerStart.or(defaultLimit)
	}
	ctx, cancel := context.WithTimeout(s.ctx, limit)
	defer cancel()
	if b := s.connection.box; b != nil {
		argv, err := b.argv(ctx, l)
		if err != nil {
			return nil, err
		}
		return b.exec(ctx, s.ctx, argv, env, t, stdout, stderr)
	}
	return h.openMain(ctx, s.ctx, s.connection.username, l, env, t, stdout, stderr)
}

// argv returns the program and its arguments.
func (b *box) argv(ctx context.Context, l launch) ([]string, error) {
	switch {
	case l.shell:
		return b.shellCommand(ctx)
	case l.subsystem != "" && len(l.argv) == 0:
		return b.sftpServer(ctx)
	}
	return l.argv, nil
}

// sftpServer returns the sftp server, which is copied there if need be.
func (b *box) sftpServer(ctx context.Context) ([]string, error) {
	e := &b.handler.cfg.Execution
	if b.guest.copied && e.GuestSFTP != nil {
		return e.sftp(append([]string{b.guest.path}, e.GuestSFTP...)), nil
	}
	_, found, err := b.handler.engine.Stat(ctx, b.id, OpenSSHServerPath)
	if err != nil {
		return nil, err
	}
	if found {
		return e.sftp([]string{OpenSSHServerPath}), nil
	}
	if e.GuestSFTP == nil || e.source() == nil || e.DisableAgent {
		return nil, fmt.Errorf("sftp: %w by this container: it has no sftp server, and none to copy there is configured", ErrUnsupported)
	}
	g, err := b.copyGuest(ctx)
	if err != nil {
		return nil, err
	}
	return e.sftp(append([]string{g.path}, e.GuestSFTP...)), nil
}

// sftp is the command line of an sftp server.
func (e *ExecutionConfig) sftp(argv []string) []string {
	if e.ReadOnlySFTP {
		return append(argv, "-R")
	}
	return argv
}

// exec starts a program beside others in a container that runs.
func (b *box) exec(ctx, alive context.Context, argv, env []string, t *terminal, stdout, stderr io.Writer) (*program, error) {
	e := b.handler.engine
	p := &program{box: b, tty: t != nil}
	req := execRequest(argv, env)
	if !b.owned {
		config := &b.handler.cfg.Execution.Container
		req.User, req.WorkingDir = config.User, config.WorkingDir
		req.Env = append(slices.Clone(config.Env), env...)
	}
	wait := false
	if b.guest.path != "" {
		// An engine that cannot be told the size before the start is told while
		// the agent waits.
		wait = t != nil && !e.AtLeast(ctx, engine.ConsoleSizeVersion)
		req.Cmd = b.guest.console(wait, true, argv)
	}
	start := startRequest(t != nil)
	if t != nil {
		req.Tty, req.DetachKeys = true, detachKeys
		if e.AtLeast(ctx, engine.ConsoleSizeVersion) && t.columns > 0 && t.rows > 0 {
			size := [2]uint{uint(t.rows), uint(t.columns)}
			req.ConsoleSize, start.ConsoleSize = &size, &size
		}
	}
	var err error
	if p.exec, err = e.ExecCreate(ctx, b.id, req); err != nil {
		return nil, err
	}
	if p.stream, err = e.ExecStart(ctx, p.exec, start); err != nil {
		return nil, err
	}
	return p, p.begin(ctx, alive, prologue{wait: wait, pid: b.guest.path != ""}, t, stdout, stderr)
}

// openMain makes a container whose process 1 is the program of a session.
func (h *Handler) openMain(ctx, alive context.Context, username string, l launch, env []string, t *terminal, stdout, stderr io.Writer) (*program, error) {
	e := &h.cfg.Execution
	req := h.request(username)
	c := req.Config
	c.AttachStdin, c.AttachStdout, c.AttachStderr = true, true, true
	c.OpenStdin, c.StdinOnce, c.Tty = true, true, t != nil
	c.Env = append(slices.Clone(c.Env), env...)
	wait := t != nil && !e.DisableAgent
	sftp := l.subsystem != "" && len(l.argv) == 0
	// In an image with an agent of its own there is no sftp server for certain.
	bring := sftp && e.AgentPath != "" && e.GuestSFTP != nil && e.source() != nil && !e.DisableAgent
	b, err := h.prepare(ctx, req, func(c *dockercontainer.Config, g guest, about engine.Image) error {
		argv := l.argv
		switch {
		case l.shell && len(e.Cmd) > 0:
			argv = e.Cmd
		case l.shell && len(e.ShellCommand) > 0:
			argv = e.ShellCommand
		case l.shell:
			argv = nil
		case bring:
			p, err := h.payload(ctx, about)
			if err != nil {
				return err
			}
			argv = e.sftp(append([]string{p.guest().path}, e.GuestSFTP...))
		case sftp && g.copied && e.GuestSFTP != nil:
			argv = e.sftp(append([]string{g.path}, e.GuestSFTP...))
		case sftp:
			argv = e.sftp([]string{OpenSSHServerPath})
		}
		if wait {
			// The agent has to know what it waits to start.
			if argv == nil {
				argv = imageCommand(c.Entrypoint, c.Cmd, about)
			} else {
				argv = append(slices.Clone(c.Entrypoint), argv...)
			}
			if len(argv) > 0 {
				c.Entrypoint, argv = nil, g.console(true, false, argv)
			}
		}
		if len(argv) > 0 { // otherwise the image says it, or the engine that nobody does
			runs(c, argv)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if bring {
		if _, err := b.copyGuest(ctx); err != nil {
			b.remove()
			return nil, err
		}
	}
	p := &program{box: b, tty: t != nil, pid: 1}
	p.stream, err = h.engine.Attach(ctx, b.id)
	if err != nil {
		b.remove()
		return nil, err
	}
	if err := h.engine.Start(ctx, b.id); err != nil {
		_ = p.stream.Close()
		b.remove()
		return nil, err
	}
	return p, p.begin(ctx, alive, prologue{wait: wait}, t, stdout, stderr)
}

// imageCommand is what a container runs of its own accord, as engines join it.
func imageCommand(entrypoint, cmd []string, about engine.Image) []string {
	if entrypoint == nil {
		entrypoint = about.Config.Entrypoint
		if cmd == nil {
			cmd = about.Config.Cmd
		}
	}
	return append(slices.Clone(entrypoint), cmd...)
}

// sink is a writer to the client. After the first error the rest is thrown away,
// and the client counts as gone: the program must not be kept from ending.
type sink struct {
	w    io.Writer
	once *sync.Once
	gone chan struct{}
}

func (s *sink) Write(p []byte) (int, error) {
	select {
	case <-s.gone:
		return len(p), nil
	default:
	}
	if n, err := s.w.Write(p); err != nil || n < len(p) {
		s.once.Do(func() { close(s.gone) })
	}
	return len(p), nil
}
