//go:build linux || darwin

package host

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"example.com/converge/agent/internal/backend"
)

// terminals says why there are none.
func terminals() error { return nil }

// native is what a process needs on this platform: nothing more.
type native struct{}

func (*native) release() {}

// findShell returns the shell to run: the one asked for, or else $SHELL, or
// else what the platform has. Accounts of services often have $SHELL set to
// something that is not there, or that only says no.
func findShell(wanted string, env []string) (string, error) {
	if wanted != "" {
		if !filepath.IsAbs(wanted) || !executable(wanted) {
			return "", fmt.Errorf("cannot use the shell %s: give the absolute path of a program", wanted)
		}
		return wanted, nil
	}
	candidates := []string{lookup(env, "SHELL"), os.Getenv("SHELL")}
	if runtime.GOOS == "darwin" {
		candidates = append(candidates, "/bin/zsh")
	}
	candidates = append(candidates, "/bin/bash", "/bin/sh")
	for _, shell := range candidates {
		switch filepath.Base(shell) {
		case "false", "true", "nologin":
			continue
		}
		if filepath.IsAbs(shell) && executable(shell) {
			return shell, nil
		}
	}
	return "", fmt.Errorf("there is no shell here (looked for %s): name one", strings.Join(candidates[2:], ", "))
}

// lookup returns the last value of a variable in an environment.
func lookup(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if key, value, ok := strings.Cut(env[i], "="); ok && key == name {
			return value
		}
	}
	return ""
}

// ownVariables are those that describe the shell itself.
func ownVariables(shell, dir string) []string {
	own := []string{"SHELL=" + shell}
	if dir != "" {
		own = append(own, "PWD="+dir)
	}
	return own
}

func executable(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil
}

// start runs the command, with pipes or on a terminal.
func (c command) start() (*process, error) {
	name := filepath.Base(c.shell)
	args := []string{name, "-c", c.line}
	if c.line == "" {
		// This is how login(1) tells a shell that it is a login shell.
		args = []string{"-" + name}
	}
	p := newProcess(&exec.Cmd{
		Path:        c.shell,
		Args:        args,
		Dir:         c.dir,
		Env:         append([]string{}, c.env...),
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	})
	if c.terminal == nil {
		return p, p.startPipes()
	}
	return p, p.startTerminal(c.terminal)
}

func (p *process) start() error { return p.cmd.Start() }

// startTerminal starts the command on a terminal of its own.
func (p *process) startTerminal(t *backend.Terminal) error {
	master, tty, err := pty.Open()
	if err != nil {
		return fmt.Errorf("no terminal: %w", err)
	}
	defer tty.Close()
	if master, err = pollable(master); err != nil {
		return fmt.Errorf("no terminal: %w", err)
	}
	p.stdin, p.stdout = master, master
	if err := p.prepare(tty, t); err != nil {
		p.Close()
		return err
	}
	p.cmd.Env = append(p.cmd.Env, "TERM="+t.Term, "SSH_TTY="+tty.Name())
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = tty, tty, tty
	p.cmd.SysProcAttr.Setctty = true // of descriptor 0
	if err := p.cmd.Start(); err != nil {
		p.Close()
		return err
	}
	return nil
}

// prepare sets size and modes before anybody can see them change.
func (p *process) prepare(tty *os.File, t *backend.Terminal) error {
	if err := p.resize(t.Size); err != nil {
		return fmt.Errorf("the terminal takes no size: %w", err)
	}
	if err := setModes(int(tty.Fd()), t.Modes); err != nil {
		return fmt.Errorf("the terminal takes no modes: %w", err)
	}
	return nil
}

// endTerminal is called when the leader has ended. Whatever it wrote last is
// there by then. If somebody else holds the terminal, nothing else ends the
// reading.
func (p *process) endTerminal() {
	_ = p.stdout.SetReadDeadline(time.Now().Add(drainIdle))
}

// resize sets the size of the terminal; the kernel sends SIGWINCH if it
// changes.
func (p *process) resize(s backend.Size) error {
	raw, err := p.stdout.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{
			Row: s.Rows, Col: s.Cols, Xpixel: s.Width, Ypixel: s.Height,
		})
	})
	if err != nil {
		return err
	}
	return set
}

// signals are those that a client may send (RFC 4254 §6.9).
var signals = map[string]unix.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "FPE": unix.SIGFPE,
	"HUP": unix.SIGHUP, "ILL": unix.SIGILL, "INT": unix.SIGINT,
	"KILL": unix.SIGKILL, "PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT,
	"SEGV": unix.SIGSEGV, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1,
	"USR2": unix.SIGUSR2,
}

// Signal sends a signal to the leader's process group and reports whether it
// is one that exists.
func (p *process) Signal(name string) bool {
	signal, ok := signals[name]
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok && !p.reaped {
		// An error means that nobody is left.
		_ = unix.Kill(-p.cmd.Process.Pid, signal)
	}
	return ok
}

// hangup sends SIGHUP to everybody in the session and wakes those that are
// stopped. It does nothing once the leader is reaped.
func (p *process) hangup() { p.signalAll(unix.SIGHUP, unix.SIGCONT) }

// terminate asks everybody in the session to end who has ignored hangup.
func (p *process) terminate() { p.signalAll(unix.SIGTERM, unix.SIGCONT) }

// kill sends SIGKILL to everybody in the session.
func (p *process) kill() { p.signalAll(unix.SIGKILL) }

// left returns those in the session that are not its leader.
func (p *process) left() *remains {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := &remains{session: p.cmd.Process.Pid}
	if !p.reaped {
		r.list, r.seen = members(r.session), time.Now()
	}
	return r
}

func (p *process) signalAll(signals ...unix.Signal) {
	left := p.left()
	defer left.release()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	for _, signal := range signals {
		_ = unix.Kill(-left.session, signal)
		for _, other := range left.list {
			// Who is in the leader's group has got it already.
			if group, err := unix.Getpgid(other.Pid); err == nil && group != left.session {
				_ = other.Signal(signal)
			}
		}
	}
}

// outcomeOf translates how a process ended.
func outcomeOf(state *os.ProcessState) backend.Outcome {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		name := strings.TrimPrefix(unix.SignalName(status.Signal()), "SIG")
		if name == "" {
			name = fmt.Sprintf("number %d", int(status.Signal()))
		}
		return backend.Outcome{Signal: name, Core: status.CoreDump()}
	}
	return backend.Outcome{Status: uint32(state.ExitCode())}
}
