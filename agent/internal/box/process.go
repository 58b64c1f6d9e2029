package box

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/container"
)

const (
	// stopGrace is what programs have when everything ends, between the signal
	// that asks them to end and KILL.
	stopGrace = 5 * time.Second
	// maxSignals is how many signals wait to be sent; an engine takes a while
	// for each.
	maxSignals = 16
)

// signals are those that a client may send (RFC 4254 §6.9).
var signals = []string{
	"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2",
}

// process is a program in a container.
type process struct {
	session *container.Session
	owner   backend.Owner
	log     *slog.Logger
	tty     bool
	// stdin is read by the session, the others are written by it. On a
	// terminal errs is out.
	stdin, out, errs *stream

	exited chan struct{}
	result backend.Outcome // known then

	// What waits for the engine is done one after the other by a goroutine,
	// which ends with over: signals, and the latest size.
	signals chan string
	sizes   chan backend.Size
	over    chan struct{}
	ending  sync.Once
}

// Start starts a program.
func (p *place) Start(ctx context.Context, program backend.Program) (backend.Process, error) {
	c, err := p.wait(ctx)
	if err != nil {
		return nil, failure(err)
	}
	s, err := c.OnSessionChannel(p.channels.Add(1), nil)
	if err != nil {
		return nil, failure(err)
	}
	r := &process{
		session: s, owner: p.owner, log: p.backend.log, tty: program.Terminal != nil, stdin: newStream(), out: newStream(),
		exited: make(chan struct{}), over: make(chan struct{}),
		signals: make(chan string, maxSignals), sizes: make(chan backend.Size, 1),
	}
	if r.errs = r.out; !r.tty {
		r.errs = newStream()
	}
	// What is not waited for any more must not go on starting.
	stop := context.AfterFunc(ctx, s.OnClose)
	err = r.start(program)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		r.Close()
		r.end()
		return nil, failure(err)
	}
	p.owner.Go(r.control)
	return r, nil
}

func (r *process) start(program backend.Program) error {
	for _, entry := range latest(program.Env) {
		name, value, _ := strings.Cut(entry, "=")
		if err := r.session.OnEnvRequest(0, name, value); err != nil {
			return err
		}
	}
	for _, name := range program.Unset {
		given := func(entry string) bool { return strings.HasPrefix(entry, name+"=") }
		if !slices.ContainsFunc(program.Env, given) {
			// What an image sets can only be covered.
			if err := r.session.OnEnvRequest(0, name, ""); err != nil {
				return err
			}
		}
	}
	if t := program.Terminal; t != nil {
		z := t.Size
		if err := r.session.OnPtyRequest(0, t.Term, uint32(z.Cols), uint32(z.Rows), uint32(z.Width), uint32(z.Height), nil); err != nil {
			return err
		}
	}
	switch {
	case program.Subsystem != "":
		return r.session.OnSubsystem(0, program.Subsystem, r.stdin, r.out, r.errs, r.ended)
	case program.Line != "":
		return r.session.OnExecRequest(0, program.Line, r.stdin, r.out, r.errs, r.ended)
	}
	return r.session.OnShell(0, r.stdin, r.out, r.errs, r.ended)
}

// latest keeps the last of variables with the same name.
func latest(env []string) []string {
	seen := map[string]bool{}
	var kept []string
	for _, entry := range slices.Backward(env) {
		name, _, _ := strings.Cut(entry, "=")
		if !seen[name] {
			seen[name] = true
			kept = append(kept, entry)
		}
	}
	slices.Reverse(kept)
	return kept
}

// ended is called by the session after the last output.
func (r *process) ended(status container.ExitStatus) {
	r.result = outcome(r.session, status)
	r.out.end()
	r.errs.end()
	r.stdin.drop() // writes fail from now on, as with a program on this machine
	close(r.exited)
}

func outcome(s *container.Session, status container.ExitStatus) backend.Outcome {
	if name := s.ExitSignal(); name != "" {
		return backend.Outcome{Signal: name}
	}
	return backend.Outcome{Status: uint32(status)}
}

// control does what takes an engine its time, so that nobody waits for it.
func (r *process) control() {
	for {
		var err error
		select {
		case name := <-r.signals:
			err = r.session.OnSignal(0, name)
		case z := <-r.sizes:
			err = r.session.OnWindow(0, uint32(z.Cols), uint32(z.Rows), uint32(z.Width), uint32(z.Height))
		case <-r.over:
			return
		}
		if err != nil && !closed(r.exited) {
			r.log.Warn("a program in a container cannot be controlled", "err", err)
		}
	}
}

func (r *process) Stdin() io.Writer { return r.stdin }

func (r *process) CloseStdin() { r.stdin.end() }

func (r *process) Stdout() io.Reader { return r.out }

func (r *process) Stderr() io.Reader {
	if r.tty {
		return nil
	}
	return r.errs
}

func (r *process) Exited() <-chan struct{} { return r.exited }

func (r *process) Resize(z backend.Size) {
	for {
		select {
		case r.sizes <- z:
			return
		default:
		}
		select {
		case <-r.sizes: // an older one
		default:
		}
	}
}

func (r *process) Signal(name string) bool {
	if !slices.Contains(signals, name) {
		return false
	}
	select {
	case r.signals <- name:
		return true
	default:
		return false
	}
}

// Stop asks, and kills after the grace. The owner's own end needs no more than
// that: the container goes with its connection.
func (r *process) Stop() {
	r.owner.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), stopGrace)
		defer cancel()
		r.owner.Go(func() {
			select {
			case <-r.owner.Kill:
				cancel()
			case <-ctx.Done():
			}
		})
		r.session.OnShutdown(ctx)
		if closed(r.exited) || closed(r.owner.Kill) {
			return
		}
		if err := r.session.OnSignal(0, "KILL"); err != nil {
			r.session.OnClose()
		}
	})
}

func (r *process) Outcome() backend.Outcome {
	r.end()
	return r.result
}

func (r *process) Close() {
	for _, s := range []*stream{r.stdin, r.out, r.errs} {
		s.drop()
	}
}

// Abandon closes the session, which hangs up on the program and kills it later.
func (r *process) Abandon() {
	r.Close()
	r.end()
}

// end closes the session in the background.
func (r *process) end() {
	r.ending.Do(func() {
		close(r.over)
		r.owner.Go(r.session.OnClose)
	})
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
