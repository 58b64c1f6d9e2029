// Package console is the guest's mode console: it becomes the program of a session,
// after it has told its process id and waited for a terminal, as it is asked to. It
// knows nothing of engines or SSH.
package console

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"example.com/converge/container/guest/mode"
)

// Exit codes beside those of package mode; the last two are a shell's.
const (
	exitInput      = 2   // --wait was not answered
	exitOutput     = 3   // --pid could not be written
	exitCannotRun  = 126 // the program is there, and does not run
	exitNoSuchFile = 127 // there is no such program
)

// command is a parsed command line.
type command struct {
	env       []string // of --env, in order
	wait, pid bool
	argv      []string // the program and its arguments
}

func parse(args []string) (command, error) {
	var c command
	for len(args) > 0 {
		switch args[0] {
		case "--":
			if c.argv = args[1:]; len(c.argv) == 0 {
				return command{}, mode.Usagef("no program to run passed")
			}
			return c, nil
		case "--env":
			if len(args) < 2 || strings.HasPrefix(args[1], "--") {
				return command{}, mode.Usagef("--env requires an argument")
			}
			if name, _, ok := strings.Cut(args[1], "="); !ok || name == "" {
				return command{}, mode.Usagef("--env requires an argument in the format of NAME=VALUE")
			}
			c.env = append(c.env, args[1])
			args = args[2:]
		case "--wait":
			c.wait = true
			args = args[1:]
		case "--pid":
			c.pid = true
			args = args[1:]
		default:
			return command{}, mode.Usagef("invalid parameter: %s", args[0])
		}
	}
	return command{}, mode.Usagef("no program to run passed: it stands after --")
}

// Run does what args say. Where it can replace the process by the program, it only
// returns if that fails; on Windows it returns when the program has ended, with the
// program's exit code in the error. in and out are the standard streams, environ the
// environment.
func Run(args, environ []string, in, out *os.File) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	if c.wait {
		if err := await(in); err != nil {
			return mode.Exit(exitInput, err)
		}
	}
	return run(c, merge(environ, c.env), out)
}

// await takes exactly one byte: what follows is the program's.
func await(in *os.File) error {
	var b [1]byte
	n, err := in.Read(b[:])
	switch {
	case err != nil || n != 1:
		return fmt.Errorf("cannot read from standard input, where a null or a newline starts the program: %w", err)
	case b[0] != 0 && b[0] != '\n':
		return errors.New("an unexpected first byte on standard input: send a null or a newline to start the program")
	}
	return nil
}

// merge is the environment with other values for some names. Each name is there once,
// with the value that came last: of two a C library would take the first.
func merge(environ, more []string) []string {
	var merged []string
	seen := map[string]bool{}
	for _, entry := range slices.Backward(slices.Concat(environ, more)) {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		merged = append(merged, entry)
	}
	slices.Reverse(merged)
	return merged
}

// pidBytes is a process id as front ends read it.
func pidBytes(pid int) []byte {
	return binary.LittleEndian.AppendUint32(nil, uint32(pid))
}
