// Package cmdline is the command line that the Converge programs have in
// common, on top of urfave/cli/v2: options accepted wherever they stand, an
// environment variable for every option, usage errors in one line on stderr
// with exit 2, one layout of --help, and the options for connecting and for
// logging that several programs share. It knows nothing of what a program
// does, and never exits the process except in Main.
package cmdline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/transport"
	"example.com/converge/pkg/version"
)

// Exit codes of every program.
const (
	// ExitOK says that the program did what it was asked for.
	ExitOK = 0
	// ExitFailure says that it failed, with a sentence on stderr.
	ExitFailure = 1
	// ExitUsage says that the command line or the environment is wrong.
	ExitUsage = 2
)

// Program describes a program, or one subcommand that has a command line of
// its own. Run takes copies of the flags, so a Program may be used again and
// by several goroutines, as long as no flag has a Destination.
type Program struct {
	// Name begins every message, and names the environment variables.
	Name string
	// Usage says in one line, without a full stop, what the program is for.
	Usage string
	// ArgsUsage shows the positional arguments; each of its lines becomes a
	// line of the synopsis.
	ArgsUsage string
	// Description is free text for --help; its lines are printed as they are.
	Description string
	// Flags are the options, in the order of --help. --help (-h) and
	// --version are added. An option without EnvVars gets those of EnvVars.
	Flags []cli.Flag
	// Commands are subcommands, each with a command line of its own: where the
	// first argument is the Name of one, that one is run in place of this
	// program, under both names.
	Commands []Program
	// Cut, if not nil, takes out what is meant for another program before any
	// option is looked for: own is parsed, and tail becomes Tail as it is. --help
	// has no "[options]" in front of ArgsUsage then, since their place is Cut's.
	Cut func(args []string) (own, tail []string)
	// Settings, if not nil, gives values to the options that neither the command
	// line nor the environment sets, such as those of a file that one of them
	// names: value returns what that is so far, "" for none.
	Settings func(options []Option, value func(name string) string) ([]Setting, error)
	// Run does the work. Its error decides the exit code: nil is 0, Usagef 2,
	// Exit its own code, all others 1. ctx ends at SIGINT or SIGTERM.
	Run func(ctx context.Context, in *Invocation) error
}

// Invocation is one parsed command line.
type Invocation struct {
	// Context holds the option values: in.String("listen"), in.Bool("keep").
	// Asking for an option that the program does not have panics.
	*cli.Context
	// Args are the positional arguments, wherever they stood before the
	// first "--".
	Args []string
	// Tail is what came after the first "--", untouched.
	Tail []string
	// HasTail tells whether there was a "--".
	HasTail bool
	// Stdin, Stdout and Stderr are the program's; it uses no others.
	Stdin          io.Reader
	Stdout, Stderr io.Writer

	set    []setting         // those that the command line itself sets
	onLine map[string]string // the variables of the options that the command line itself sets

	program Program
	opts    options
	line    commandLine // all that is set
	argv    []string    // of Run, without the program's name
}

// Run parses args, whose first element is the program's name as in os.Args,
// runs the program and returns the exit code. It says errors in one line on
// stderr and never exits the process.
//
// A "--" ends the options; before it they may stand anywhere, as --x v, --x=v
// or with one dash. An argument that is itself one of the program's options
// is never taken for the value of another: write --x=--y for that. A lone "-"
// is a positional argument. Of repeated options the last wins, except where
// the option is a list. A command line beats the environment; an empty
// variable counts as unset, and one for a list holds one element a line.
func Run(ctx context.Context, p Program, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 1 {
		for _, command := range p.Commands {
			if command.Name == args[1] {
				command.Name = p.Name + " " + command.Name
				return Run(ctx, command, args[1:], stdin, stdout, stderr)
			}
		}
	}
	opts := newOptions(p)
	in := &Invocation{
		Stdin: stdin, Stdout: stdout, Stderr: stderr, onLine: map[string]string{},
		program: p, opts: opts, argv: args[min(1, len(args)):],
	}
	line, err := parseCut(p, opts, in.argv)
	if err == nil {
		switch line.ask {
		case askHelp:
			return report(p, stderr, emit(stdout, help(p, opts)))
		case askVersion:
			return report(p, stderr, emit(stdout, version.Line(p.Name)))
		}
		in.set = line.values
		for _, set := range line.values {
			in.onLine[set.option.name()] = strings.Join(set.option.env, ", ")
		}
		err = line.addOthers(p, opts)
	}
	if err != nil {
		return report(p, stderr, err)
	}
	in.Args, in.Tail, in.HasTail, in.line = line.args, line.tail, line.hasTail, line
	return report(p, stderr, runApp(ctx, p, opts, line, in))
}

// runApp hands the checked command line to urfave/cli, in a form in which
// nothing is left for it to misread: --name=value for every option, then "--"
// and the positional arguments.
func runApp(ctx context.Context, p Program, opts options, line commandLine, in *Invocation) error {
	argv := []string{p.Name}
	for _, set := range line.values {
		argv = append(argv, "--"+set.option.name()+"="+set.value)
	}
	argv = append(append(argv, "--"), line.args...)
	app := &cli.App{
		Name:                      p.Name,
		Usage:                     p.Usage,
		Flags:                     opts.flags(),
		Reader:                    in.Stdin,
		Writer:                    in.Stdout,
		ErrWriter:                 in.Stderr,
		HideHelp:                  true, // ours is in opts; and "help" must not become a command
		HideHelpCommand:           true,
		HideVersion:               true,
		DisableSliceFlagSeparator: true, // a comma in a header or key is no separator
		// The default handler calls os.Exit.
		ExitErrHandler: func(*cli.Context, error) {},
		OnUsageError:   func(_ *cli.Context, err error, _ bool) error { return Usagef("%v", err) },
		InvalidFlagAccessHandler: func(_ *cli.Context, name string) {
			panic(fmt.Sprintf("cmdline: %s has no option %q", p.Name, name))
		},
		Action: func(cctx *cli.Context) error {
			in.Context = cctx
			return p.Run(ctx, in)
		},
	}
	return app.RunContext(ctx, argv)
}

// emit writes s and names what failed.
func emit(w io.Writer, s string) error {
	if _, err := io.WriteString(w, s); err != nil {
		return fmt.Errorf("cannot write the output: %w", err)
	}
	return nil
}

// report says err on stderr, in one line, and returns the exit code for it.
func report(p Program, stderr io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "%s: %s; try '%s --help'\n", p.Name, oneLine(err.Error()), p.Name)
		return ExitUsage
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			fmt.Fprintf(stderr, "%s: %s\n", p.Name, oneLine(err.Error()))
		}
		return exit.code
	}
	fmt.Fprintf(stderr, "%s: %s\n", p.Name, oneLine(err.Error()))
	return ExitFailure
}

// oneLine keeps a message on its line, whatever a file or a peer put into it.
func oneLine(s string) string {
	return transport.Printable(strings.Join(strings.Fields(s), " "))
}
