package container

import (
	"context"
	"errors"
	"io"
	"time"
)

// finish waits for the end of a program, or of its client, and tells it.
func (s *Session) finish(p *program, stderr io.Writer, onExit func(ExitStatus)) {
	defer close(p.ended)
	select {
	case <-p.drained:
	case <-p.gone:
	case <-s.ctx.Done():
	}
	var code int
	err := errors.New("the client is gone")
	switch {
	case p.over() && p.outErr != nil:
		s.log.Warn("the output of a program was cut off", "err", p.outErr)
		code, err = p.cut(s.ctx)
	case p.over():
		code, err = p.await(s.ctx)
	}
	there := s.ctx.Err() == nil && !closed(p.gone)
	if !there {
		if c, ended := p.terminate(); ended == nil {
			code, err = c, nil
		}
	}
	_ = p.stream.Close()
	<-p.drained
	status := StatusUnknown
	switch {
	case err == nil:
		status = ExitStatus(uint32(code))
		s.mu.Lock()
		s.signal = endedBy(code, p.tty, s.sent)
		s.mu.Unlock()
	case there:
		s.log.Error("the end of a program was not seen", "err", err)
		// The client may be gone as well, which is no news.
		_, _ = io.WriteString(stderr, "The container is gone: how the program ended is not known.\r\n")
	}
	if onExit != nil {
		onExit(status)
	}
	if p.exec == "" {
		p.box.remove()
	}
}

// cut waits for a program whose output was cut off. It may have ended with it;
// where it goes on nobody can use it any more.
func (p *program) cut(ctx context.Context) (code int, err error) {
	short, cancel := context.WithTimeout(ctx, cutGrace)
	defer cancel()
	code, err = p.await(short)
	if err == nil || short.Err() == nil || ctx.Err() != nil {
		return code, err
	}
	return p.terminate()
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// terminate ends a program whose client is gone: to drop its streams alone would
// leave it running.
func (p *program) terminate() (code int, err error) {
	if p.exec == "" {
		p.box.remove()
		return 0, errors.New("its container was removed")
	}
	h := p.box.handler
	for _, step := range []struct {
		signal string
		grace  time.Duration
		during context.Context
	}{{"HUP", hangupGrace, h.patience}, {"KILL", killGrace, h.effort}} {
		ctx, cancel := context.WithTimeout(h.effort, p.box.handler.cfg.Timeouts.Signal.or(defaultLimit))
		running, known, err := p.status(ctx)
		switch {
		case err != nil:
			// Mostly its container is gone, and it too.
			cancel()
			return 0, err
		case !running && known != nil:
			cancel()
			return *known, nil
		case running:
			if err := p.signal(ctx, step.signal); err != nil {
				p.box.handler.log.Debug("a program that was left could not be signalled", "signal", step.signal, "err", err)
			}
		}
		cancel()
		ctx, cancel = context.WithTimeout(step.during, step.grace)
		code, err = p.await(ctx)
		cancel()
		if err == nil {
			return code, nil
		}
	}
	p.box.handler.log.Warn("a program that was left may still run", "container", p.box.id, "pid", p.pid)
	return 0, err
}

// numbers are the signals of RFC 4254 by their numbers in Linux.
var numbers = map[int]string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 8: "FPE", 9: "KILL", 10: "USR1",
	11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM",
}

// fatal are the signals that hardly any program reports as a status of its own
// unless it was ended by them.
var fatal = map[string]bool{
	"HUP": true, "ILL": true, "ABRT": true, "FPE": true, "KILL": true, "SEGV": true, "TERM": true,
}

// endedBy returns the signal that ended a program. Engines say 128 and its
// number, as do shells, whose own status that is: Ctrl-C in the last command
// before exit makes 130. So a signal is believed in if the client has sent it,
// and without a terminal also if it is one of the fatal ones.
func endedBy(code int, tty bool, sent map[string]bool) string {
	name := numbers[code-128]
	if sent[name] || !tty && fatal[name] {
		return name
	}
	return ""
}
