// Package guest is a program that stands inside of a container's image and gives a
// front end what a container engine's exec has not: the process id, signals, waiting,
// forwarding, and files that are written whole. Each mode of it is a package below
// this one, which is the command line that they share. That is the ContainerSSH
// agent's, so that either can stand in the other's place.
//
// Programs carry the modes: guest, which is nothing else, and Converge's agent. It
// has no framework for its command line, since the program is to be small.
package guest

import (
	"context"
	_ "embed" // the usage
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"example.com/converge/container/guest/console"
	"example.com/converge/container/guest/forward"
	"example.com/converge/container/guest/mode"
	"example.com/converge/container/guest/signals"
	"example.com/converge/container/guest/writefile"
	"example.com/converge/pkg/version"
)

// Usage is what -h prints, as Markdown.
//
//go:embed usage.md
var Usage string

// The modes.
const (
	Console       = "console"
	Signal        = "signal"
	WaitSignal    = "wait-signal"
	WriteFile     = "write-file"
	ForwardServer = "forward-server"
)

// IsMode reports whether a word is a mode, for a program that has other commands
// beside them.
func IsMode(word string) bool {
	switch word {
	case Console, Signal, WaitSignal, WriteFile, ForwardServer:
		return true
	}
	return false
}

// Run runs the mode that args, without the program's name, begin with, and returns
// the exit code of the process. It is made to be all that a process does: console
// does not return where it succeeds, but on Windows, wait-signal reaps whatever
// children there are, and forward-server may leave behind a read of in.
// Standard output has nothing but what a mode writes there; all that is said goes to
// errw.
func Run(name string, args []string, in, out *os.File, errw io.Writer) int {
	err := run(name, args, in, out, errw)
	var e *mode.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e) && e.Err == nil:
	case e != nil && e.Hint:
		fmt.Fprintf(errw, "%s: %v; try '%s -h'\n", name, err, name)
	default:
		fmt.Fprintf(errw, "%s: %v\n", name, err)
	}
	return mode.Code(err)
}

func run(name string, args []string, in, out *os.File, errw io.Writer) error {
	if len(args) == 0 {
		return mode.Usagef("not enough parameters")
	}
	rest := args[1:]
	switch args[0] {
	case "-h", "--help":
		_, err := io.WriteString(errw, Usage)
		return err
	case "--version":
		_, err := io.WriteString(out, version.Line(name))
		return err
	case Console:
		return console.Run(rest, os.Environ(), in, out)
	case Signal:
		return signals.Send(rest)
	case WaitSignal:
		return signals.Wait(rest, out)
	case WriteFile:
		return writefile.Run(rest, in)
	case ForwardServer:
		if len(rest) > 0 {
			return mode.Usagef("%s takes no arguments", ForwardServer)
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		defer stop()
		return forward.Serve(ctx, in, out, &lines{name: name, w: errw})
	}
	return mode.Usagef("invalid mode: %s", args[0])
}
