// Package child runs a program in place of this one, as nearly as a process can
// that has to outlive it: with the same terminal, signals, stops and exit
// status. It knows nothing of what the program does.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Command is what is run.
type Command struct {
	// Name is the program, which is looked for on the PATH.
	Name string
	// Args are its arguments, without its name.
	Args []string
	// Env is its whole environment.
	Env []string
	// The streams are handed on as they are.
	Stdin, Stdout, Stderr *os.File
}

// Run runs the command and returns its exit status; 128 and the number of the
// signal if one has killed it. An error, one sentence, says why it could not be
// started. Signals that ask this process to end go to the command, but for those
// that the terminal sends to both; if the command stops, so does this process.
func Run(c Command) (int, error) {
	path, err := exec.LookPath(c.Name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 0, fmt.Errorf("cannot find %s: install it, or put it on the PATH: %w", c.Name, err)
	}
	if err != nil { // from the working folder: somebody may have put it there
		return 0, fmt.Errorf("cannot run %s: %w: put its folder on the PATH", c.Name, err)
	}
	cmd := exec.Command(path, c.Args...)
	cmd.Args[0] = c.Name
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, c.Stdin, c.Stdout, c.Stderr
	status, err := run(cmd)
	if err != nil {
		return 0, fmt.Errorf("cannot run %s: %w", c.Name, err)
	}
	return status, nil
}
