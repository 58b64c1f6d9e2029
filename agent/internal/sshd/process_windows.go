package sshd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

// hasTerminals says whether pty-req can be served.
const hasTerminals = false

// native is what a process needs on Windows: a job object, which its children
// are born into, takes the place of a Unix process session.
type native struct{ job windows.Handle }

// release ends what is left of the job.
func (n *native) release() {
	if n.job != 0 {
		_ = windows.CloseHandle(n.job)
		n.job = 0
	}
}

// findShell returns the shell to run: the one asked for, or else cmd.
func findShell(wanted string, env []string) (string, error) {
	shell := wanted
	for _, candidate := range []string{lookup(env, "ComSpec"), os.Getenv("ComSpec"), "cmd.exe"} {
		if shell == "" {
			shell = candidate
		}
	}
	found, err := exec.LookPath(shell)
	if err != nil {
		return "", fmt.Errorf("cannot use the shell %s: give the path of a program: %w", shell, err)
	}
	return found, nil
}

// start runs the command with pipes; there are no terminals here yet.
func (c command) start() (*process, error) {
	cmd := &exec.Cmd{
		Path: c.shell,
		Args: []string{c.shell},
		Dir:  c.dir,
		Env:  append([]string{}, c.env...),
		SysProcAttr: &syscall.SysProcAttr{
			CreationFlags: windows.CREATE_NEW_PROCESS_GROUP,
			HideWindow:    true,
		},
	}
	switch strings.TrimSuffix(strings.ToLower(filepath.Base(c.shell)), ".exe") {
	case "cmd":
		if c.line != "" {
			// cmd has quoting rules of its own: /s takes the outer quotes off
			// and leaves the rest alone.
			cmd.SysProcAttr.CmdLine = fmt.Sprintf(`"%s" /d /s /c "%s"`, c.shell, c.line)
		}
	case "powershell", "pwsh":
		cmd.Args = append(cmd.Args, "-NoLogo", "-NoProfile")
		if c.line != "" {
			cmd.Args = append(cmd.Args, "-NonInteractive", "-Command", c.line)
		} else {
			cmd.Args = append(cmd.Args, "-Command", "-")
		}
	default:
		if c.line != "" {
			cmd.Args = append(cmd.Args, "-c", c.line)
		}
	}
	p := newProcess(cmd)
	return p, p.startPipes()
}

// start starts the command in a job that ends with its handle.
func (p *process) start() error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return fmt.Errorf("no job object: %w", err)
	}
	p.native.job = job
	limits := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{}
	limits.BasicLimitInformation.LimitFlags = windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&limits)), uint32(unsafe.Sizeof(limits))); err != nil {
		p.native.release()
		return fmt.Errorf("no job object: %w", err)
	}
	if err := p.cmd.Start(); err != nil {
		p.native.release()
		return err
	}
	handle, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false,
		uint32(p.cmd.Process.Pid))
	if err == nil {
		err = windows.AssignProcessToJobObject(job, handle)
		_ = windows.CloseHandle(handle)
	}
	if err != nil {
		// Too late to say no; it may have ended already.
		p.native.release()
	}
	return nil
}

func (p *process) awaitExit() { p.wait() }

// resize is for terminals, which are refused.
func (p *process) resize(size) error { return nil }

// signal ends the job for the signals that ask for an end; there are no others
// on Windows.
func (p *process) signal(name string) bool {
	switch name {
	case "HUP", "INT", "KILL", "QUIT", "TERM":
		p.kill()
		return true
	}
	return false
}

// hangup ends the job: there is nothing gentler that a process would notice.
func (p *process) hangup() { p.kill() }

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return
	}
	if p.native.job != 0 {
		_ = windows.TerminateJobObject(p.native.job, 1)
		return
	}
	_ = p.cmd.Process.Kill()
}

// remains are empty: a job that is released leaves nobody.
type remains struct{}

func (p *process) left() *remains { return &remains{} }

func (*remains) endLeft(_, _ <-chan struct{}) {}

func (*remains) end(<-chan struct{}) {}

func outcomeOf(state *os.ProcessState) outcome {
	return outcome{status: uint32(state.ExitCode())}
}
