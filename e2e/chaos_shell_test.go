//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// openPty makes a pseudo terminal, pts(4).
func openPty() (terminal, line *os.File, err error) {
	terminal, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	control := func(request uintptr, value *int32) error {
		raw, err := terminal.SyscallConn()
		if err != nil {
			return err
		}
		var errno syscall.Errno
		err = raw.Control(func(fd uintptr) {
			_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(unsafe.Pointer(value)))
		})
		if err == nil && errno != 0 {
			err = errno
		}
		return err
	}
	var unlocked, number int32
	if err := errors.Join(control(syscall.TIOCSPTLCK, &unlocked), control(syscall.TIOCGPTN, &number)); err != nil {
		_ = terminal.Close()
		return nil, nil, err
	}
	line, err = os.OpenFile("/dev/pts/"+strconv.Itoa(int(number)), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		_ = terminal.Close()
		return nil, nil, err
	}
	return terminal, line, nil
}

var (
	greeting = regexp.MustCompile(`Welcome to this job`)
	// What is typed has no figure behind the letter, only its answer has.
	answer = regexp.MustCompile(`L(\d+)\.`)
)

// shell types numbered lines into an interactive shell, some ahead of their
// answers, and wants each answered once and in order.
func (w *worker) shell(uint64) (compared int64, err error) {
	lines := 10 + w.rng.IntN(30)
	if w.c.soak > 0 {
		lines *= 4
	}
	terminal, line, err := openPty()
	if err != nil {
		return 0, err
	}
	defer terminal.Close()
	cmd := w.command("ssh", "-tt", "-F", w.config, "chaos")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true} // a session is a group as well
	cmd.Stdin, cmd.Stdout = line, line
	fmt.Fprintf(w.stderr, "%v: %d lines: %s\n", time.Now(), lines, cmd)
	err = cmd.Start()
	_ = line.Close()
	if err != nil {
		return 0, err
	}
	screen := newScreenReader(terminal)
	err = w.converse(terminal, screen, lines)
	if err != nil {
		_ = cmd.Cancel()
	}
	waitErr := cmd.Wait()
	_ = terminal.Close()
	<-screen.done
	if screen.err != nil {
		err = screen.err // it came first
	}
	if err == nil && cmd.ProcessState.ExitCode() != 7 {
		err = fmt.Errorf("the shell's exit status is lost: %w", errors.Join(errors.New("want 7"), waitErr))
	}
	if err == nil && screen.last != lines {
		err = fmt.Errorf("%d lines were answered, want %d", screen.last, lines)
	}
	if err != nil {
		return 0, fmt.Errorf("%w; the terminal showed, at last: %q", err, screen.text())
	}
	return screen.bytes, nil
}

// converse is the typing. It returns when all lines are answered and the shell
// has been told to end.
func (w *worker) converse(terminal *os.File, screen *screenReader, lines int) error {
	if err := w.await(screen, -1); err != nil {
		return err
	}
	for typed := 0; typed < lines; {
		begin := time.Now()
		ahead := min(1+w.rng.IntN(4), lines-typed)
		for range ahead {
			typed++
			if _, err := fmt.Fprintf(terminal, "echo L$((%d+1)).\r", typed-1); err != nil {
				return err
			}
		}
		if err := w.await(screen, typed); err != nil {
			return err
		}
		w.c.answered(begin, time.Now())
		w.moved.Add(int64(ahead))
		w.c.moment(w.rng, 100*time.Millisecond)
	}
	_, err := fmt.Fprint(terminal, "exit 7\r")
	return err
}

// await waits for the answer of a line, or the greeting.
func (w *worker) await(screen *screenReader, line int) error {
	for {
		select {
		case got := <-screen.seen:
			if got == line {
				return nil
			}
		case <-screen.done:
			return errors.New("the shell ended early")
		case <-w.c.ctx.Done():
			return w.c.ctx.Err()
		}
	}
}

// screenReader reads what a terminal shows.
type screenReader struct {
	seen chan int      // -1 for the greeting, then each line
	done chan struct{} // what follows may be read then

	err   error // an answer too many, or out of order
	last  int
	bytes int64
	shown []byte
}

func newScreenReader(terminal *os.File) *screenReader {
	s := &screenReader{seen: make(chan int, 1<<10), done: make(chan struct{})}
	go s.read(terminal)
	return s
}

func (s *screenReader) read(terminal *os.File) {
	defer close(s.done)
	buf := make([]byte, 4096)
	var rest []byte // not looked at yet
	greeted := false
	for {
		n, err := terminal.Read(buf)
		s.bytes += int64(n)
		rest = append(rest, buf[:n]...)
		s.shown = append(s.shown, buf[:n]...)
		s.shown = s.shown[max(0, len(s.shown)-4096):]
		if !greeted && greeting.Match(rest) {
			greeted = true
			s.seen <- -1
		}
		for {
			m := answer.FindSubmatchIndex(rest)
			if m == nil {
				break
			}
			number, _ := strconv.Atoi(string(rest[m[2]:m[3]]))
			rest = rest[m[1]:]
			if number != s.last+1 {
				s.err = fmt.Errorf("line %d was answered after line %d", number, s.last)
				return
			}
			s.last = number
			s.seen <- number
		}
		rest = rest[max(0, len(rest)-1024):]
		if err != nil {
			return // the terminal has nobody at its other end
		}
	}
}

// text is the end of what was shown.
func (s *screenReader) text() string { return string(s.shown) }
