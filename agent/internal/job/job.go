// Package job runs the job's own command in the agent's place: with the agent's
// streams, unchanged, the signals that the agent gets, and a result that the
// agent can end with as if it had been the command. It knows nothing of what the
// agent does besides.
package job

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"

	"example.com/converge/agent/internal/signals"
)

// Exit codes of a command that could not be started, as shells have them.
const (
	// NotExecutable says that it is there but cannot be run.
	NotExecutable = 126
	// NotFound says that it is not there.
	NotFound = 127
	// bySignal is added to the number of the signal that killed it.
	bySignal = 128
)

// Command is what to run.
type Command struct {
	// Args are the program, looked for in PATH, and its arguments; one or more.
	Args []string
	// Env is the complete environment.
	Env []string
	// The streams. Files are handed over as they are, so that the command has
	// the very same terminal or pipe; others are copied.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Result is how a command ended.
type Result struct {
	// Code is what the command's parent should exit with: its own exit code, or
	// 128 and the number of the signal that killed it, or NotExecutable or
	// NotFound.
	Code int
	// Err says why the command could not be started; nil if it was.
	Err error
	// signal is the name of the signal that killed it.
	signal string
}

// String words the result after "the command": "ended with exit code 2".
func (r Result) String() string {
	switch {
	case r.Err != nil:
		return fmt.Sprintf("could not be started: %v", r.Err)
	case r.signal != "":
		return "was killed by " + r.signal
	case r.Code == 0:
		return "succeeded"
	}
	return fmt.Sprintf("ended with exit code %d", r.Code)
}

// Run runs the command to its end. Signals that reach this process meanwhile are
// passed on, save those that the terminal has sent to both; none of them ends
// this process. The command is not killed for any other reason.
func Run(c Command) Result {
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Env = c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Stdin, c.Stdout, c.Stderr
	caught, stop := signals.Notify()
	defer stop()
	if err := cmd.Start(); err != nil {
		return notStarted(err)
	}
	ended := make(chan struct{})
	passedOn := make(chan struct{})
	go func() {
		defer close(passedOn)
		for {
			select {
			case s := <-caught:
				if !signals.Delivered(s) {
					// An error means that the command has just ended.
					_ = cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	<-passedOn
	if cmd.ProcessState == nil {
		return Result{Code: NotExecutable, Err: err}
	}
	return resultOf(cmd.ProcessState)
}

// notStarted translates an error of Start.
func notStarted(err error) Result {
	r := Result{Code: NotExecutable, Err: err}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		r.Code = NotFound
	}
	var named *exec.Error
	if errors.As(err, &named) {
		r.Err = fmt.Errorf("%s: %w", named.Name, named.Err)
	}
	return r
}

// resultOf translates how a process ended.
func resultOf(state *os.ProcessState) Result {
	if number, name := killedBy(state); number != 0 {
		return Result{Code: bySignal + number, signal: name}
	}
	return Result{Code: state.ExitCode()}
}
