//go:build reference

package main

import (
	"example.com/converge/pkg/clidoc"
	"example.com/converge/pkg/cmdline"
)

// Built with the tag reference, the program documents itself and does nothing else.
// What -h prints is USAGE.md.
func main() { clidoc.Print(manual()) }

func manual() cmdline.Manual {
	option := func(name, placeholder, usage string) cmdline.ManualOption {
		return cmdline.ManualOption{Names: []string{name}, Placeholder: placeholder, Usage: usage, Category: "Options"}
	}
	repeatable := func(o cmdline.ManualOption) cmdline.ManualOption {
		o.Repeatable = true
		return o
	}
	required := func(o cmdline.ManualOption) cmdline.ManualOption {
		o.Required = true
		return o
	}
	mode := func(name, usage, arguments, description string, options ...cmdline.ManualOption) cmdline.Manual {
		return cmdline.Manual{
			Name: "guest " + name, Usage: usage, Synopsis: []string{"guest " + name + arguments},
			Description: description, Options: options,
		}
	}
	const signals = "ABRT, ALRM, FPE, HUP, ILL, INT, KILL, PIPE, QUIT, SEGV, TERM, USR1 or USR2 (on Windows INT, KILL or TERM)"
	return cmdline.Manual{
		Name: "guest", Usage: "gives a container what its engine's exec has not: process ids, signals, waiting, forwarding",
		Synopsis: []string{"guest MODE [options]"},
		Description: "It stands inside of a container's image, for an SSH front end such as Converge's\n" +
			"agent or ContainerSSH. Every option stands after the mode, as --option VALUE, and\n" +
			"none has an environment variable.",
		Options: []cmdline.ManualOption{
			{Names: []string{"-h", "--help"}, Usage: "show the usage, on standard error", Category: "Options"},
			{Names: []string{"--version"}, Usage: "show the version", Category: "Options"},
		},
		Commands: []cmdline.Manual{
			mode("console", "becomes a program, after it has told its process id", " [options] -- PROGRAM [ARGUMENT]...",
				"It exits with 2 if --wait got something else, 3 if the process id could not be\n"+
					"written, 126 if PROGRAM cannot be run and 127 if there is none; else PROGRAM's own\n"+
					"exit code is what counts.",
				repeatable(option("--env", "NAME=VALUE", "set a variable of the program; of one name the last counts")),
				option("--wait", "", "first wait for one byte on standard input, a null or a newline"),
				option("--pid", "", "write the process id to standard output first, four bytes, least first")),
			mode("signal", "sends a signal to a process", " --pid N --signal NAME [--group]",
				"It exits with 2 if there is no such process and 3 if the signal could not be sent.",
				required(option("--pid", "N", "the process")),
				required(option("--signal", "NAME", signals)),
				option("--group", "", "all processes of the group that has the number of --pid")),
			mode("wait-signal", "waits for a signal, as the idle command of a container", " --signal NAME... [--message TEXT]",
				"As process 1 of a container it reaps the processes that others have left behind.",
				required(repeatable(option("--signal", "NAME", "one to wait for, of those that signal has, but KILL"))),
				option("--message", "TEXT", "print this then, without a newline")),
			mode("write-file", "makes a file of its standard input, whole or not at all", " PATH", ""),
			mode("forward-server", "connects sockets in the container with a front end outside", "",
				"It speaks the CBOR protocol of the ContainerSSH agent on standard input and output."),
		},
		Exits: []cmdline.ManualExit{
			{Code: 0, Meaning: "It did what it was asked for."},
			{Code: 1, Meaning: "The command line is wrong, or it failed, and says so on standard error."},
			{Code: 2, Meaning: "console was not answered; signal found no such process."},
			{Code: 3, Meaning: "console could not write the process id; signal could not send the signal."},
			{Code: 126, Meaning: "console could not run the program."},
			{Code: 127, Meaning: "console found no such program."},
		},
	}
}
