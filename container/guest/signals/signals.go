// Package signals is the guest's modes signal, which sends one, and wait-signal,
// which waits for some as the idle command of a container. Signals have the names of
// RFC 4254 section 6.9.
package signals

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"

	"example.com/converge/container/guest/mode"
)

// Exit codes of signal beside those of package mode.
const (
	// exitNoProcess says that there is no such process.
	exitNoProcess = 2
	// exitNotSent says that the signal cannot be sent to it.
	exitNotSent = 3
)

// Named returns the signal of a name such as TERM, or nil if the system has none of
// that name.
func Named(name string) os.Signal {
	if s, ok := names[name]; ok {
		return s
	}
	return nil
}

// lookup is Named for a command line.
func lookup(name string) (syscall.Signal, error) {
	if s, ok := names[name]; ok {
		return s, nil
	}
	return 0, mode.Usagef("unsupported signal: %s", name)
}

// Send sends the signal that args ask for.
func Send(args []string) error {
	var sig syscall.Signal
	pid, group := 0, false
	for len(args) > 0 {
		option := args[0]
		switch option {
		case "--group":
			if group {
				return mode.Usagef("--group is duplicate")
			}
			group = true
			args = args[1:]
			continue
		case "--pid", "--signal":
		default:
			return mode.Usagef("unknown option: %s", option)
		}
		if len(args) < 2 {
			return mode.Usagef("%s requires an argument", option)
		}
		value := args[1]
		args = args[2:]
		switch {
		case option == "--pid" && pid != 0, option == "--signal" && sig != 0:
			return mode.Usagef("%s is duplicate", option)
		case option == "--pid":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil || n < 1 {
				return mode.Usagef("--pid requires a positive integer argument")
			}
			pid = int(n)
		default:
			var err error
			if sig, err = lookup(value); err != nil {
				return err
			}
		}
	}
	switch {
	case pid == 0:
		return mode.Usagef("missing required --pid option")
	case sig == 0:
		return mode.Usagef("missing required --signal option")
	}
	return send(pid, sig, group)
}

// Wait waits for one of the signals that args name, and writes their message to out.
// While it does, it reaps children: process 1 of a container is given those of all
// others.
func Wait(args []string, out io.Writer) error {
	var waited []os.Signal
	message, told := "", false
	for len(args) > 0 {
		option := args[0]
		if option != "--message" && option != "--signal" {
			return mode.Usagef("unknown option: %s", option)
		}
		if len(args) < 2 {
			return mode.Usagef("%s requires an argument", option)
		}
		value := args[1]
		args = args[2:]
		if option == "--message" {
			if told {
				return mode.Usagef("--message is duplicate")
			}
			message, told = value, true
			continue
		}
		sig, err := lookup(value)
		if err != nil {
			return err
		}
		if sig == syscall.SIGKILL {
			return mode.Usagef("unsupported signal: KILL, which nobody can wait for")
		}
		waited = append(waited, sig)
	}
	if len(waited) == 0 {
		return mode.Usagef("missing required --signal option")
	}
	wait(waited)
	if _, err := io.WriteString(out, message); err != nil {
		return mode.Exit(0, fmt.Errorf("cannot write the message: %w", err))
	}
	return nil
}
