package container

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	dockercontainer "github.com/moby/moby/api/types/container"

	"example.com/converge/container/internal/engine"
)

// detachKeys is what makes an engine detach from a terminal. It cannot be turned
// off, and the default, Ctrl-P Ctrl-Q, is typed in shells; of this nobody types
// more than the first.
const detachKeys = `ctrl-@,ctrl-^,ctrl-@,ctrl-_,ctrl-@,ctrl-],ctrl-@,ctrl-\`

// How long a program that was hung up on may take, what is waited after it was
// killed, for one that has lost its streams, and for one to begin that nobody wants
// any more.
const (
	beginGrace  = 10 * time.Second
	hangupGrace = 2 * time.Second
	killGrace   = 5 * time.Second
	cutGrace    = 5 * time.Second
)

// maxPid is the largest process id of Linux (PID_MAX_LIMIT).
const maxPid = 1 << 22

// signals are those of RFC 4254 §6.9.
var signals = map[string]bool{
	"ABRT": true, "ALRM": true, "FPE": true, "HUP": true, "ILL": true, "INT": true, "KILL": true,
	"PIPE": true, "QUIT": true, "SEGV": true, "TERM": true, "USR1": true, "USR2": true,
}

// program is a program that was started in a container.
type program struct {
	box *box
	// exec is the engine's id of it; "" is process 1 of the container.
	exec   string
	stream *engine.Stream
	tty    bool
	// pid is its process id in the container, 0 if it is not known.
	pid uint32
	// gone is closed when the client takes no more output.
	gone chan struct{}
	// drained is closed when the output has come to its end; outErr is why.
	drained chan struct{}
	outErr  error
	// ended is closed when it has ended, or is taken for ended.
	ended chan struct{}
}

func execRequest(argv, env []string) dockercontainer.ExecCreateRequest {
	return dockercontainer.ExecCreateRequest{
		AttachStdin: true, AttachStdout: true, AttachStderr: true, Cmd: argv, Env: env,
	}
}

func startRequest(tty bool) dockercontainer.ExecStartRequest {
	return dockercontainer.ExecStartRequest{Tty: tty}
}

// console returns the agent's command line that becomes argv.
func (g guest) console(wait, pid bool, argv []string) []string {
	line := []string{g.path, "console"}
	if wait {
		line = append(line, "--wait")
	}
	if pid {
		line = append(line, "--pid")
	}
	return append(append(line, "--"), argv...)
}

// prologue is what the agent does before the program begins.
type prologue struct {
	// wait says that it waits for a byte.
	wait bool
	// pid says that it writes its process id.
	pid bool
}

// begin goes through the prologue and returns when the program runs. If it fails
// nothing is left.
func (p *program) begin(ctx, alive context.Context, pro prologue, t *terminal, stdout, stderr io.Writer) error {
	p.gone, p.drained, p.ended = make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	out, errs := &sink{stdout, &once, p.gone}, &sink{stderr, &once, p.gone}
	first := newPreface(out, pro)
	go func() {
		defer close(p.drained)
		if p.tty {
			p.outErr = engine.Copy(first, p.stream)
		} else {
			p.outErr = engine.Demux(p.stream, first, errs)
		}
	}()
	err := p.prepare(ctx, pro, t)
	if err == nil {
		select {
		case <-first.done:
		case <-p.drained:
			// It may have been in time.
			first.end()
		case <-ctx.Done():
			if !closed(first.done) {
				err = fmt.Errorf("the guest agent does not begin: %w", ctx.Err())
			}
		}
	}
	if err == nil {
		if err = first.err; err != nil && p.over() && p.outErr != nil {
			err = fmt.Errorf("%w (%w)", err, p.outErr)
		}
	}
	if err == nil {
		if pro.pid {
			p.pid = first.number
		}
		return nil
	}
	once.Do(func() { close(p.gone) })
	p.recall(first, pro)
	p.abandon()
	return err
}

// recall ends a program that may begin yet, in a container that stays: to drop its
// streams would not keep it from that.
func (p *program) recall(first *preface, pro prologue) {
	if p.exec == "" || !pro.pid {
		return
	}
	timer := time.NewTimer(beginGrace)
	defer timer.Stop()
	select {
	case <-first.done:
	case <-p.drained:
	case <-timer.C:
	case <-p.box.handler.patience.Done():
	}
	if closed(first.done) && first.number != 0 {
		p.pid = first.number
		_, _ = p.terminate() // which logs what it could not do
	}
}

// prepare gives the terminal its size, before the program may begin if the agent
// waits.
func (p *program) prepare(ctx context.Context, pro prologue, t *terminal) error {
	if t != nil && (pro.wait || p.exec == "" || p.box.guest.path == "") && t.columns > 0 && t.rows > 0 {
		if err := p.firstSize(ctx, *t); err != nil {
			if pro.wait {
				// Another byte than the right one ends the agent.
				_, _ = p.stream.Write([]byte("x\n"))
			}
			return err
		}
	}
	if !pro.wait {
		return nil
	}
	// A terminal does not give a lone NUL to its reader.
	ready := []byte{0}
	if p.tty {
		ready[0] = '\n'
	}
	if _, err := p.stream.Write(ready); err != nil {
		return fmt.Errorf("begin the program: %w", err)
	}
	return nil
}

// firstSize sets the size of a terminal which may not be there yet.
func (p *program) firstSize(ctx context.Context, t terminal) error {
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		err := p.resize(ctx, t)
		if err == nil {
			return nil
		}
		if running, _, gone := p.status(ctx); gone != nil || !running && p.over() {
			return nil // it has ended, or never began: its output says why
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// over reports whether the output has ended.
func (p *program) over() bool {
	select {
	case <-p.drained:
		return true
	default:
		return false
	}
}

// abandon takes back a program that did not begin.
func (p *program) abandon() {
	_ = p.stream.Close()
	<-p.drained
	if p.exec == "" {
		p.box.remove()
	}
}

// input copies stdin to the program. When that takes no more, the rest is read
// and thrown away: the client may not be kept from sending what comes after.
func (p *program) input(stdin io.Reader) {
	buf := make([]byte, 32<<10)
	for taking := true; ; {
		n, err := stdin.Read(buf)
		if n > 0 && taking {
			_, failed := p.stream.Write(buf[:n])
			taking = failed == nil
		}
		if err != nil {
			break
		}
	}
	// The end of stdin is not the end of the program. On a terminal it is not
	// even passed on: engines cut the output then (moby issue 38457).
	if !p.tty {
		_ = p.stream.CloseWrite()
	}
}

// status asks how the program does. code is nil while that is not known.
func (p *program) status(ctx context.Context) (running bool, code *int, err error) {
	if p.exec != "" {
		e, err := p.box.handler.engine.ExecInspect(ctx, p.exec)
		return e.Running, e.ExitCode, err
	}
	s, err := p.box.handler.engine.Inspect(ctx, p.box.id)
	if err != nil {
		return false, nil, err
	}
	return s.State.Running, &s.State.ExitCode, nil
}

// Pauses between two questions for the status. The output has ended by then, and
// mostly the program with it.
const (
	firstAsk = time.Millisecond
	lastAsk  = 250 * time.Millisecond
)

// await asks for the status until the program has ended.
func (p *program) await(ctx context.Context) (code int, err error) {
	limit := p.box.handler.cfg.Timeouts.CommandStart.or(defaultLimit)
	unknown := 0
	for pause := firstAsk; ; pause = min(2*pause, lastAsk) {
		ask, cancel := context.WithTimeout(ctx, limit)
		running, code, err := p.status(ask)
		cancel()
		switch {
		case err != nil:
			return 0, err
		case !running && code != nil:
			return *code, nil
		case !running:
			// An engine may know that it ends before it knows how.
			if unknown++; unknown > 20 {
				return 0, errors.New("the engine does not know how the program ended")
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
	}
}

// resize gives the terminal its size.
func (p *program) resize(ctx context.Context, t terminal) error {
	if p.exec == "" {
		return p.box.handler.engine.Resize(ctx, p.box.id, t.columns, t.rows)
	}
	return p.box.handler.engine.ExecResize(ctx, p.exec, t.columns, t.rows)
}

// signal sends a signal to the program and its process group.
func (p *program) signal(ctx context.Context, name string) error {
	if p.exec == "" {
		return p.box.handler.engine.Kill(ctx, p.box.id, "SIG"+name)
	}
	if p.pid == 0 || p.box.guest.path == "" {
		return fmt.Errorf("%w without the guest agent in the container", ErrUnsupported)
	}
	argv := []string{p.box.guest.path, "signal", "--pid", fmt.Sprint(p.pid), "--signal", name}
	code, said, err := exitNoProcess, "", error(nil)
	if p.box.guest.group() {
		said, code, err = p.box.run(ctx, append(argv, "--group"))
	}
	if code == exitNoProcess && err == nil {
		// ContainerSSH's agent knows no groups, and a program may have left its own.
		said, code, err = p.box.run(ctx, argv)
	}
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("the guest agent ended with %d: %s", code, said)
	}
	return nil
}

// exitNoProcess is the guest agent's exit code where there is nothing to signal.
const exitNoProcess = 2

// run runs a program of this side's own and returns what it said.
func (b *box) run(ctx context.Context, argv []string) (said string, code int, err error) {
	req := execRequest(argv, nil)
	req.AttachStdin = false
	if !b.owned {
		req.User = b.handler.cfg.Execution.Container.User
	}
	p := &program{box: b}
	if p.exec, err = b.handler.engine.ExecCreate(ctx, b.id, req); err != nil {
		return "", 0, err
	}
	if p.stream, err = b.handler.engine.ExecStart(ctx, p.exec, startRequest(false)); err != nil {
		return "", 0, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.stream.Close() })
	defer stop()
	defer func() { _ = p.stream.Close() }()
	var text bounded
	if err := engine.Demux(p.stream, &text, &text); err != nil {
		return "", 0, err
	}
	code, err = p.await(ctx)
	return strings.TrimSpace(text.String()), code, err
}

// bounded keeps the beginning of what is written.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxSaid - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// maxSaid is what is kept of a sentence from the container.
const maxSaid = 4 << 10

// preface takes what comes before the program's output, and passes on the rest.
type preface struct {
	w io.Writer
	// line says that a line comes first: the echo of the byte that was waited
	// for.
	line bool
	// pid says that 4 bytes follow, little-endian: the process id.
	pid bool

	buf    []byte
	number uint32
	bad    bool
	said   bounded
	err    error
	// done is closed when number or err is known.
	done chan struct{}
	over bool
}

func newPreface(w io.Writer, pro prologue) *preface {
	f := &preface{w: w, line: pro.wait, pid: pro.pid, done: make(chan struct{}), over: !pro.wait && !pro.pid}
	if f.over {
		close(f.done)
	}
	return f
}

func (f *preface) Write(p []byte) (int, error) {
	if f.over {
		return f.w.Write(p)
	}
	n := len(p)
	if f.bad {
		return f.said.Write(p)
	}
	f.buf = append(f.buf, p[:min(len(p), maxSaid)]...)
	rest := p[min(len(p), maxSaid):]
	if f.line {
		i := bytes.IndexByte(f.buf, '\n')
		if i < 0 {
			if len(f.buf) > 2 {
				f.bad = true
				_, _ = f.said.Write(f.buf)
			}
			return n, nil
		}
		if i > 1 {
			f.bad = true
			_, _ = f.said.Write(f.buf)
			return n, nil
		}
		f.buf, f.line = f.buf[i+1:], false
	}
	if f.pid {
		if len(f.buf) < 4 {
			return n, nil
		}
		f.number = binary.LittleEndian.Uint32(f.buf)
		if f.number == 0 || f.number > maxPid {
			// Somebody else's words, such as the engine's.
			f.bad = true
			_, _ = f.said.Write(f.buf)
			return n, nil
		}
		f.buf = f.buf[4:]
	}
	f.over = true
	close(f.done)
	for _, part := range [][]byte{f.buf, rest} {
		if len(part) == 0 {
			continue
		}
		if _, err := f.w.Write(part); err != nil {
			return 0, err
		}
	}
	f.buf = nil
	return n, nil
}

// end says that no more comes. It is called after the last write.
func (f *preface) end() {
	if f.over {
		return
	}
	if !f.bad {
		_, _ = f.said.Write(f.buf)
	}
	text := strings.TrimSpace(f.said.String())
	if text == "" {
		text = "it ended without a word"
	}
	f.err = fmt.Errorf("the guest agent did not begin: %s", text)
}
