//go:build unix

package console

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"example.com/converge/container/guest/mode"
)

// defaultPath is where programs are looked for without a PATH, as container engines
// set it.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run becomes the program.
func run(c command, env []string, out *os.File) error {
	if c.pid {
		if err := writeRaw(int(out.Fd()), pidBytes(os.Getpid())); err != nil {
			return mode.Exit(exitOutput, fmt.Errorf("cannot write the process id: %w", err))
		}
	}
	// Only now: a front end reads the process id first, whatever comes of it.
	path, err := find(c.argv[0], env)
	if err != nil {
		return err
	}
	return cannotRun(path, execve(path, c.argv, env))
}

// cannotRun is why a program that was found does not run.
func cannotRun(path string, err error) error {
	code := exitCannotRun
	switch {
	case errors.Is(err, unix.ENOENT):
		if _, missing := os.Stat(path); missing != nil {
			code = exitNoSuchFile
			break
		}
		err = errors.New("the interpreter or loader that it names is missing")
	case errors.Is(err, unix.ENOTDIR):
		code = exitNoSuchFile
	case errors.Is(err, unix.ENOEXEC):
		err = errors.New("it is no program for this system: a script begins with #! and an interpreter")
	}
	return mode.Exit(code, fmt.Errorf("cannot run %s: %w", path, err))
}

// find looks for a program as execvp does, in the PATH of its own environment.
func find(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	path := defaultPath
	for _, entry := range env {
		if value, ok := strings.CutPrefix(entry, "PATH="); ok {
			path = value
		}
	}
	found := ""
	if name != "" {
		for _, dir := range filepath.SplitList(path) {
			if dir == "" {
				dir = "." // POSIX.1-2024 section 8.3
			}
			file := filepath.Join(dir, name)
			if !strings.Contains(file, "/") {
				file = "./" + file
			}
			info, err := os.Stat(file)
			if errors.Is(err, fs.ErrPermission) && found == "" {
				found = file
			}
			if err != nil || info.IsDir() {
				continue
			}
			if unix.Access(file, unix.X_OK) == nil {
				return file, nil
			}
			if found == "" {
				found = file
			}
		}
	}
	if found != "" {
		return "", mode.Exit(exitCannotRun, fmt.Errorf("cannot run %s: permission denied", found))
	}
	return "", mode.Exit(exitNoSuchFile, fmt.Errorf("cannot run %q: there is no such program in %s", name, path))
}

// writeRaw writes b to fd as it is. A terminal would write a carriage return before
// a byte that is a newline's (ONLCR of termios(3)), and the reader would take it for
// a part of the number.
func writeRaw(fd int, b []byte) error {
	before, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil || before.Oflag&unix.OPOST == 0 { // no terminal, or a raw one
		return write(fd, b)
	}
	raw := *before
	raw.Oflag &^= unix.OPOST
	if err := unix.IoctlSetTermios(fd, setTermios, &raw); err != nil {
		return err
	}
	// The terminal has processed what is written when write returns.
	err = write(fd, b)
	return errors.Join(err, unix.IoctlSetTermios(fd, setTermios, before))
}

// write does without package os, which ends the process when the reader of its
// standard output is gone.
func write(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1); err != nil && err != unix.EINTR {
				return err
			}
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}
