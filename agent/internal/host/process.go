package host

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/pkg/rawio"
)

const (
	// bulkBuffer is what is read at once of a program that writes much, and what
	// the pipe to it holds is twice that, so that both find work.
	bulkBuffer = 128 << 10
	// hangupGrace is what processes have when everything ends, between the signal
	// that asks them to end and SIGKILL.
	hangupGrace = 5 * time.Second
)

// command is what is to run.
type command struct {
	shell string
	// line is given to the shell; "" makes it a login shell.
	line string
	dir  string
	env  []string
	// terminal is nil for a command with pipes.
	terminal *backend.Terminal
}

// process is a command that was started, the leader of a process session of
// its own. The platform's files give it start, Signal, hangup and kill.
type process struct {
	owner backend.Owner
	cmd   *exec.Cmd
	// stdin and stdout are pipes, or both the terminal's end; stderr is nil
	// on a terminal.
	stdin, stdout, stderr *os.File
	// exited is closed when the leader has ended. Where the platform allows
	// it is not reaped then, so that its number is not given to another one
	// while the processes that it left behind are looked for.
	exited chan struct{}
	// done is closed when the leader is reaped.
	done chan struct{}

	mu     sync.Mutex
	reaped bool

	waitOnce sync.Once
	native   native
}

// newProcess wraps what is about to start.
func newProcess(cmd *exec.Cmd) *process {
	return &process{cmd: cmd, exited: make(chan struct{}), done: make(chan struct{})}
}

// startPipes starts the command with a pipe for each of its streams.
func (p *process) startPipes() error {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			p.Close()
			return err
		}
		switch i {
		case 0:
			p.cmd.Stdin, p.stdin, theirs = r, w, append(theirs, r)
		case 1:
			p.cmd.Stdout, p.stdout, theirs = w, r, append(theirs, w)
			rawio.Widen(r, 2*bulkBuffer)
		case 2:
			p.cmd.Stderr, p.stderr, theirs = w, r, append(theirs, w)
		}
	}
	if err := p.start(); err != nil {
		p.Close()
		return err
	}
	return nil
}

// Close closes this side of the streams, and with it the terminal.
func (p *process) Close() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			f.Close()
		}
	}
}

// watch waits until the leader has ended, and says so.
func (p *process) watch() {
	p.awaitExit()
	close(p.exited)
	if p.stderr == nil {
		p.endTerminal()
	}
}

// wait reaps the leader, once. Its streams are files, so that this waits for
// nothing else.
func (p *process) wait() {
	p.waitOnce.Do(func() { _ = p.cmd.Wait() })
}

// reap reaps the leader and returns how it ended. It is called after exited;
// from then on its number is no longer used.
func (p *process) reap() backend.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wait()
	if !p.reaped {
		p.reaped = true
		p.native.release()
		close(p.done)
	}
	return outcomeOf(p.cmd.ProcessState)
}

// Stop hangs up, and kills what is left in the session after the grace or when
// the owner's patience is over.
func (p *process) Stop() { p.owner.Go(func() { p.stop(p.owner.Kill) }) }

// stop returns when the leader is reaped or all were killed.
func (p *process) stop(kill <-chan struct{}) {
	p.hangup()
	timer := time.NewTimer(hangupGrace)
	defer timer.Stop()
	select {
	case <-p.done:
		return
	case <-kill:
	case <-timer.C:
	}
	p.kill()
}

// abandon waits for a process whose client is gone, and for whoever is left of
// it. They have been hung up on; those that ignored it are asked to end when
// hurry is closed, and killed after the grace, or when kill is closed.
func (p *process) abandon(hurry, kill <-chan struct{}) {
	select {
	case <-p.exited:
	case <-hurry:
		p.terminate()
		timer := time.NewTimer(hangupGrace)
		defer timer.Stop()
		select {
		case <-p.exited:
		case <-kill:
			p.kill()
		case <-timer.C:
			p.kill()
		}
	}
	<-p.exited
	left := p.left()
	p.reap()
	// They have got SIGHUP, but a shell's child that has not started its
	// program yet loses it.
	left.endLeft(hurry, kill)
}

// Outcome reaps the leader and has whoever is left of its session looked after.
func (p *process) Outcome() backend.Outcome {
	left := p.left()
	result := p.reap()
	p.owner.Go(func() { left.endLeft(p.owner.Hurry, p.owner.Kill) })
	return result
}

// Abandon hangs up on a process whose client is gone.
func (p *process) Abandon() {
	p.hangup()
	p.Close()
	p.owner.Go(func() { p.abandon(p.owner.Hurry, p.owner.Kill) })
}

// Exited is closed when the leader has ended.
func (p *process) Exited() <-chan struct{} { return p.exited }

// Stdin is the pipe to the process, or its terminal.
func (p *process) Stdin() io.Writer { return rawio.File(p.stdin) }

// CloseStdin closes the pipe.
func (p *process) CloseStdin() { p.stdin.Close() }

// Stdout is the pipe from the process, or what its terminal shows.
func (p *process) Stdout() io.Reader {
	if p.stderr == nil {
		return terminalReader{p, rawio.File(p.stdout)}
	}
	return rawio.File(p.stdout)
}

// Stderr is the other pipe; there is none on a terminal.
func (p *process) Stderr() io.Reader {
	if p.stderr == nil {
		return nil
	}
	return rawio.File(p.stderr)
}

// Resize gives the terminal another size. An error means that it has just been
// closed.
func (p *process) Resize(s backend.Size) { _ = p.resize(s) }

// drainIdle ends the reading of a terminal whose shell has ended, when nothing
// comes for that long. On Linux the kernel hangs the terminal up before.
const drainIdle = 500 * time.Millisecond

// terminalReader reads a terminal until the shell has ended and what it wrote
// is read. Where a pipe cannot have a deadline, endTerminal ends the output.
type terminalReader struct {
	*process
	file io.Reader // stdout
}

func (r terminalReader) Read(buf []byte) (int, error) {
	select {
	case <-r.exited:
		// An earlier deadline may have passed while the client was slow.
		_ = r.stdout.SetReadDeadline(time.Now().Add(drainIdle))
	default:
	}
	n, err := r.file.Read(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		select {
		case <-r.exited:
			return n, io.EOF
		default:
		}
	}
	return n, err
}
