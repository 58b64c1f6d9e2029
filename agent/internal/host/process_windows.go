package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/winproc"
)

// terminals says why there are none.
func terminals() error {
	if winproc.HasConsoles() {
		return nil
	}
	return errors.New("this Windows has no terminals (10 1809 and Server 2019 have them); lines are sent as they are typed")
}

// native is what a process needs on Windows: a job object, which its children
// are born into, takes the place of a Unix process session, and a pseudo
// console that of a terminal.
type native struct {
	job     *winproc.Job
	console *winproc.Console // nil for a process with pipes
}

// release ends what is left of the job.
func (n *native) release() { n.job.Close() }

// findShell returns the shell to run: the one asked for, or else the first
// that is there of those that winproc.Shells knows.
func findShell(wanted string, env []string) (string, error) {
	candidates := []string{wanted}
	if wanted == "" {
		candidates = winproc.Shells(env)
	}
	var found string
	var err error
	for _, shell := range candidates {
		if found, err = exec.LookPath(shell); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", fmt.Errorf("cannot use the shell %s: give the path of a program: %w", candidates[len(candidates)-1], err)
}

// ownVariables are none: on Windows nothing expects them, and a SHELL that is
// cmd would mislead those that come from Unix.
func ownVariables(_, _ string) []string { return nil }

// start runs the command, with pipes or on a pseudo console.
func (c command) start() (*process, error) {
	args, line := winproc.Arguments(c.shell, c.line, c.terminal != nil)
	p := newProcess(&exec.Cmd{
		Path:        c.shell,
		Args:        args,
		Dir:         c.dir,
		Env:         append([]string{}, c.env...),
		SysProcAttr: &syscall.SysProcAttr{CmdLine: line},
	})
	if c.terminal == nil {
		return p, p.startPipes()
	}
	return p, p.startTerminal(c.terminal)
}

// startTerminal starts the command on a pseudo console of its own. A console
// has no terminal modes: programs set their own.
func (p *process) startTerminal(t *backend.Terminal) error {
	console, err := winproc.NewConsole(t.Size.Cols, t.Size.Rows)
	if err != nil {
		return err
	}
	p.native.console = console
	p.stdin, p.stdout = console.Input, console.Output
	// A name that OpenSSH for Windows gives too.
	p.cmd.Env = append(p.cmd.Env, "TERM="+t.Term, "SSH_TTY=windows-pty")
	if err := p.start(); err != nil {
		p.Close()
		console.End()
		return err
	}
	return nil
}

// start starts the command in a job that ends with its handle.
func (p *process) start() (err error) {
	p.native.job, err = winproc.Start(p.cmd, p.native.console)
	return err
}

func (p *process) awaitExit() { p.wait() }

// endTerminal is called when the leader has ended. It ends the output, which
// that of a console does not by itself, after what is still in it; processes
// that the leader has left on the console end too.
func (p *process) endTerminal() { p.native.console.End() }

// resize sets the size of the console.
func (p *process) resize(s backend.Size) error {
	if p.native.console == nil {
		return nil
	}
	return p.native.console.Resize(s.Cols, s.Rows)
}

// Signal ends the job for the signals that ask for an end; there are no others
// on Windows. On a console ctrl-C is typed, not sent.
func (p *process) Signal(name string) bool {
	switch name {
	case "INT":
		if p.native.console != nil {
			return false
		}
		fallthrough
	case "HUP", "KILL", "QUIT", "TERM":
		p.kill()
		return true
	}
	return false
}

// hangup ends the job: there is nothing gentler that a process would notice.
func (p *process) hangup() { p.kill() }

// terminate has nobody left to ask: hangup has ended them all.
func (p *process) terminate() { p.kill() }

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		p.native.job.Terminate()
	}
}

// remains are empty: a job that is released leaves nobody.
type remains struct{}

func (p *process) left() *remains { return &remains{} }

func (*remains) endLeft(_, _ <-chan struct{}) {}

func outcomeOf(state *os.ProcessState) backend.Outcome {
	return backend.Outcome{Status: uint32(state.ExitCode())}
}
