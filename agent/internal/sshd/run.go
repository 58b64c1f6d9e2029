package sshd

import (
	"io"
	"strings"
	"sync"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/share"
)

const (
	// copyBuffer is the largest packet that the library sends.
	copyBuffer = 32 << 10
	// bulkBuffer is what is read of a command that writes much.
	bulkBuffer = 128 << 10
)

// cannotStart is the status of a command that could not be started, as shells
// have it for one that is not found.
const cannotStart = 127

// run runs a command, or a shell if line is empty, until it has ended or the
// client is gone.
func (s *session) run(line string) {
	id, kind := s.conn.info.ID, s.kind
	cutOff := false
	s.server.events.SessionOpened(id, kind)
	defer func() {
		if !cutOff {
			s.server.events.SessionClosed(id, kind)
		}
	}()
	defer s.finish()

	// Nobody writes after the messages have ended.
	endWall := s.startWall(kind)
	if s.notice != "" {
		s.writeError(s.notice)
	}
	if banner := s.server.cfg.Banner; kind == Shell && banner != nil {
		s.writeOut([]byte(crlf(banner(s.conn.info))))
	}
	program, begun := s.program(line)
	p, err := s.conn.place.Start(s.ctx, program)
	if err != nil {
		s.server.log.Warn("a command could not be started", "id", id, "err", err)
		s.writeError(s.sentence(err))
		endWall()
		s.report(backend.Outcome{Status: cannotStart})
		s.wg.Go(s.discard)
		return
	}
	s.adopt(p, begun)
	show := s.writeOut
	var shared *shell
	var screen *share.Room
	switch {
	case kind == Shell:
		shared = s.host(p, begun)
		show = s.show(shared)
		screen = shared.room
	case s.terminal != nil:
		screen = share.NewRoom(share.Config{})
		show = func(p []byte) (int, error) {
			screen.Output(p)
			return s.writeOut(p)
		}
	}
	s.wg.Go(func() { s.copyIn(p) })
	var outputs sync.WaitGroup
	outputs.Go(func() { s.copyOut(p.Stdout(), show) })
	if stderr := p.Stderr(); stderr != nil {
		outputs.Go(func() { s.copyOut(stderr, s.ch.Stderr().Write) })
	}
	read := make(chan struct{})
	s.wg.Go(func() {
		outputs.Wait()
		close(read)
	})

	// As in OpenSSH, a command ends when it has exited and nobody holds its
	// pipes any more; a terminal ends with its shell.
	there := true
	for _, end := range []<-chan struct{}{read, p.Exited()} {
		select {
		case <-end:
		case <-s.gone:
			there = false
		}
	}
	if !there {
		cutOff = s.conn.lost.Load()
		p.Abandon()
		endWall()
		if shared != nil {
			s.unhost(shared, ownerGone, backend.Outcome{Status: 1})
		}
		return
	}
	result := p.Outcome()
	endWall()
	if shared != nil {
		s.lastMessage(screen.Restore())
		s.unhost(shared, shellEnded, result)
	} else {
		s.lastReason(screen)
	}
	s.report(result)
	p.Close()
}

// sentence is an error of the back end's for the user.
func (s *session) sentence(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	text := "converge: " + strings.Join(lines, "\n") + "\n"
	if s.terminal != nil {
		return crlf(text)
	}
	return text
}

// program puts together what to start.
func (s *session) program(line string) (backend.Program, backend.Size) {
	p := backend.Program{Line: line, Env: append([]string{}, s.vars.list...)}
	if s.forced() == "" {
		if p.Subsystem = s.subsystem; p.Subsystem != "" {
			p.Line = ""
		}
	} else {
		s.addForced(&p)
	}
	if s.agentSocket != "" {
		p.Env = append(p.Env, "SSH_AUTH_SOCK="+s.agentSocket)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.terminal == nil {
		return p, backend.Size{}
	}
	// A copy: the size may change meanwhile.
	t := *s.terminal
	p.Terminal = &t
	return p, t.Size
}

// copyIn gives the client's input to the process. When the process takes no
// more, the rest is read and thrown away, as in OpenSSH: the client may not
// be kept from sending what comes after.
func (s *session) copyIn(p backend.Process) {
	buf := make([]byte, copyBuffer)
	stdin := p.Stdin()
	taking := true
	for {
		n, err := s.ch.Read(buf)
		if n > 0 {
			s.conn.touch()
			if taking {
				_, werr := stdin.Write(buf[:n])
				taking = werr == nil
			}
		}
		if err != nil {
			break
		}
	}
	// On a terminal the end of input means nothing: the user may only have
	// redirected it, and the output goes on.
	if p.Stderr() != nil {
		p.CloseStdin()
	}
}

// discard reads input that nobody takes, until the channel is closed.
func (s *session) discard() { _, _ = io.Copy(io.Discard, s.ch) }

// copyOut sends output until its end, or until the channel is closed.
func (s *session) copyOut(r io.Reader, write func([]byte) (int, error)) {
	buf := make([]byte, copyBuffer)
	for n := 0; ; {
		if n == len(buf) && n < bulkBuffer {
			buf = make([]byte, bulkBuffer)
		}
		var err error
		n, err = r.Read(buf)
		if n > 0 {
			if _, werr := write(buf[:n]); werr != nil {
				return
			}
		}
		// A terminal whose last holder is gone gives an input/output error.
		if err != nil {
			return
		}
	}
}

// writeOut sends to the client's stdout. The library wants one writer at a
// time.
func (s *session) writeOut(p []byte) (int, error) {
	s.out.Lock()
	defer s.out.Unlock()
	return s.conn.bulk(s.ch.Write, p)
}

// writeError sends to the client's stderr, before anybody else does. An error
// means that the channel is closed.
func (s *session) writeError(text string) { _, _ = io.WriteString(s.ch.Stderr(), text) }

// startWall starts to write the messages that tell queues for a shell, and
// returns what ends it: what has been queued by then is still written.
func (s *session) startWall(kind Kind) (end func()) {
	if !kind.interactive() {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	s.wg.Go(func() {
		defer close(stopped)
		for {
			select {
			case text := <-s.wall:
				s.place(text, stop)
				continue
			default:
			}
			select {
			case text := <-s.wall:
				s.place(text, stop)
			case <-stop:
				if len(s.wall) == 0 {
					return
				}
			}
		}
	})
	return func() {
		close(stop)
		<-stopped
	}
}

// report tells the client how it ended, after the last output: status, end of
// output, close (RFC 4254 §6.10, §5.3). Dropbear's client closes the channel
// when it sees the end of output, and takes no status after that.
func (s *session) report(o backend.Outcome) {
	name, payload := exitRequest(o)
	_, _ = s.ch.SendRequest(name, false, payload)
	_ = s.ch.CloseWrite()
	_ = s.ch.Close()
}
