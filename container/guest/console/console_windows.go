package console

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"

	"example.com/converge/container/guest/mode"
)

// resumeProcess starts the threads of a process that was made suspended. It is the
// one call that needs no handle of a thread, which package os does not keep.
var resumeProcess = windows.NewLazySystemDLL("ntdll.dll").NewProc("NtResumeProcess")

// run starts the program as a child, since Windows cannot replace a process, tells
// the child's process id before the child runs, and ends as it does.
func run(c command, env []string, out *os.File) error {
	cmd := exec.Command(c.argv[0], c.argv[1:]...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, os.Stdin, out, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_SUSPENDED}
	if err := cmd.Start(); err != nil {
		code := exitCannotRun
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
			code = exitNoSuchFile
		}
		return mode.Exit(code, fmt.Errorf("cannot run %s: %w", c.argv[0], err))
	}
	if c.pid {
		if _, err := out.Write(pidBytes(cmd.Process.Pid)); err != nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			return mode.Exit(exitOutput, fmt.Errorf("cannot write the process id: %w", err))
		}
	}
	if err := resume(cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return mode.Exit(exitCannotRun, fmt.Errorf("cannot run %s: %w", c.argv[0], err))
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return mode.Exit(exit.ExitCode(), nil)
	}
	return err
}

func resume(pid int) error {
	process, err := windows.OpenProcess(windows.PROCESS_SUSPEND_RESUME, false, uint32(pid))
	if err != nil {
		return err
	}
	defer func() { _ = windows.CloseHandle(process) }()
	if err := resumeProcess.Find(); err != nil {
		return err
	}
	if status, _, _ := resumeProcess.Call(uintptr(process)); status != 0 {
		return windows.NTStatus(status)
	}
	return nil
}
