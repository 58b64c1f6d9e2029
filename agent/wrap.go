package main

import (
	"context"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/job"
	"example.com/converge/agent/internal/session"
	"example.com/converge/pkg/cmdline"
)

// wrapFlags are the options that concern a COMMAND after --.
func wrapFlags() []cli.Flag {
	const category = "Options for COMMAND"
	return []cli.Flag{
		&cli.BoolFlag{Name: "on-failure-only", Category: category, Usage: "open the session only if COMMAND fails; this is the default"},
		&cli.BoolFlag{Name: "always", Category: category, Usage: "open the session after COMMAND, however it ended"},
		&cli.BoolFlag{Name: "background", Category: category, Usage: "open the session while COMMAND runs, too"},
	}
}

// checkWrap refuses combinations of options that would do nothing.
func checkWrap(in *cmdline.Invocation) error {
	switch {
	case in.HasTail && len(in.Tail) == 0:
		return cmdline.Usagef("there is no command after --: give one, or leave the -- out")
	case in.Bool("always") && in.Bool("on-failure-only"):
		return cmdline.Usagef("--always and --on-failure-only exclude each other: give one of them")
	case in.HasTail && in.Int("timeout-exit-code") != 0:
		return cmdline.Usagef("--timeout-exit-code does nothing with a command: the exit code is the command's; leave it out")
	case in.HasTail:
		return nil
	}
	for _, name := range []string{"on-failure-only", "always", "background"} {
		if in.Bool(name) {
			return cmdline.Usagef("--%s needs a command: give one after --", name)
		}
	}
	return nil
}

// opener opens a session and returns when it is over, as session.Run.
type opener func(context.Context, session.Config) (int, error)

// wrap runs the command, opens the session where that is asked for, and ends with
// the command's own status whatever becomes of the session.
//
// What the agent itself has to say goes to standard error: standard output is the
// command's.
func wrap(ctx context.Context, in *cmdline.Invocation, cfg session.Config, open opener) error {
	cfg.Out, cfg.Object = in.Stderr, in.Stderr
	command := job.Command{
		Args: in.Tail, Env: session.JobEnv(os.Environ()),
		Stdin: in.Stdin, Stdout: in.Stdout, Stderr: in.Stderr,
	}
	always := in.Bool("always")
	var result job.Result
	var failed error
	wanted := false
	if in.Bool("background") {
		result, wanted = beside(ctx, cfg, open, command, always)
	} else {
		result = job.Run(command)
		wanted = always || result.Code != 0
		defer dropIgnored()() // not before: the command inherits what the agent did
	}
	// After a signal from the CI system nobody waits for an engineer.
	if wanted && ctx.Err() == nil {
		fmt.Fprintf(in.Stderr, "converge: the command %s; opening a session\n", result)
		if _, failed = open(ctx, cfg); failed == nil {
			fmt.Fprintf(in.Stderr, "converge: going on with the command's exit code, %d\n", result.Code)
		}
	} else if result.Err != nil {
		failed = fmt.Errorf("the command %s", result)
	}
	if result.Code == 0 && failed == nil {
		return nil
	}
	return cmdline.Exit(result.Code, failed)
}

// beside runs the command and a session next to each other, until both are over.
// again asks for another session, where the first was over before the command.
func beside(ctx context.Context, cfg session.Config, open opener, command job.Command, always bool) (result job.Result, again bool) {
	end := make(chan session.JobEnd, 1)
	cfg.Job = end
	over := make(chan struct{})
	go func() {
		defer close(over)
		if _, err := open(ctx, cfg); err != nil {
			// Said now: the command may run for hours yet.
			cfg.Logger.Warn("the session beside the command could not go on", "err", err)
		}
	}()
	result = job.Run(command)
	stay := always || result.Code != 0
	end <- session.JobEnd{Text: result.String(), Stay: stay}
	<-over
	select {
	case <-end: // the session did not take it: it was over
		return result, stay
	default:
		return result, false
	}
}
