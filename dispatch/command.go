package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/meter"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/serve"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/cmdline"
)

func program() cmdline.Program {
	return cmdline.Program{
		Name:      "dispatch",
		Usage:     "continuous integration on Nomad: a webhook becomes a job, and a failed build a debug session",
		ArgsUsage: " ",
		Description: "It serves webhooks at /hook and pages at /builds. The environment is Albatros': the\n" +
			"variables ALBATROS_URL, NOMAD_ADDR and, without --repositories, CONSUL_HTTP_ADDR must be set.\n" +
			"SIGHUP reads the file of --repositories again; SIGTERM and SIGINT finish what is being\n" +
			"answered and end, a second one ends at once. Builds go on in Nomad, and are found again.",
		Flags:    flags(),
		Commands: commands(),
		Run:      run,
	}
}

func commands() []cmdline.Program {
	command := func(name, args, usage, description string, run func(context.Context, *cmdline.Invocation) error, more ...cli.Flag) cmdline.Program {
		return cmdline.Program{Name: name, ArgsUsage: args, Usage: usage, Description: description, Flags: append(more, flags()...), Run: run}
	}
	return []cmdline.Program{
		command("check", "[REPOSITORY...]", "says whether Nomad, Consul, the jobs and the forges are as they must be, and ends",
			"REPOSITORY is the clone URL of one, whose configuration and forge are looked at, too.", check),
		command("run", "REPOSITORY COMMIT", "dispatches a build without a webhook, and prints its id",
			"A dispatch that serves takes care of its status and its logs.", runBuild,
			&cli.StringFlag{Name: "build", Value: "default", Usage: "`FLAVOR` to build"},
			&cli.StringFlag{Name: "branch", Usage: "`BRANCH` that the build is told"},
			&cli.BoolFlag{Name: "secrets", Usage: "give it the repository's secrets"},
			&cli.BoolFlag{Name: "follow", Usage: "print its logs, and exit as it does"}),
		command("logs", "ID", "prints the log of a build", "", logs,
			&cli.BoolFlag{Name: "stderr", Usage: "the one of standard error"},
			&cli.BoolFlag{Name: "follow", Usage: "go on until the build has ended"}),
		command("builds", " ", "lists the builds that Nomad knows", "", list),
		command("cancel", "ID", "stops a build, or dismisses one that waits for approval",
			"One that waits is left to the dispatch that serves, by its --state-dir.", action(func(ctx context.Context, e *engine.Engine, id string) (string, error) {
				return "", e.Cancel(ctx, local, id)
			})),
		command("rerun", "ID", "dispatches a build again, and prints its new id", "It gets the secrets if the first one had them.",
			action(func(ctx context.Context, e *engine.Engine, id string) (string, error) { return e.Rerun(ctx, local, id) })),
		command("approve", "ID", "dispatches a fork's commit that waits for approval, with the secrets, and prints its new id",
			"It reads --state-dir of the dispatch that serves. Look at the commit first.",
			action(func(ctx context.Context, e *engine.Engine, id string) (string, error) {
				return e.Approve(ctx, local, id)
			})),
	}
}

// parts are what every command uses.
type parts struct {
	settings *settings.Settings
	log      *slog.Logger
	nomad    *nomad.Client
	repos    repos.Source
	file     *repos.File // nil with Consul
}

func open(in *cmdline.Invocation) (*parts, error) {
	log, err := cmdline.Logger(in)
	if err != nil {
		return nil, err
	}
	s, err := load(in)
	if err != nil {
		return nil, err
	}
	p := &parts{settings: s, log: log}
	if p.nomad, err = nomad.New(s.Nomad); err != nil {
		return nil, cmdline.Usagef("%w", err)
	}
	if s.Repositories == "" {
		consul, err := repos.NewConsul(s.Consul)
		if err != nil {
			return nil, cmdline.Usagef("%w", err)
		}
		p.repos = consul
		return p, nil
	}
	if p.file, err = repos.NewFile(s.Repositories); err != nil {
		return nil, cmdline.Usagef("%w", err)
	}
	p.repos = p.file
	return p, nil
}

func (p *parts) close() {
	p.nomad.Close()
	if c, ok := p.repos.(*repos.Consul); ok {
		c.Close()
	}
}

// engine makes one that leaves the state of a dispatch that serves alone; close
// ends it.
func (p *parts) engine() (e *engine.Engine, end func(), err error) {
	scratch, err := os.MkdirTemp("", "dispatch-*")
	if errors.Is(err, fs.ErrNotExist) { // the image has nothing but the folder of the state
		scratch, err = os.MkdirTemp(p.settings.StateDir, "command-*")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a temporary folder: %w", err)
	}
	e, err = engine.New(engine.Options{
		Settings: p.settings, Nomad: p.nomad, Repos: p.repos, Meter: meter.New(), Log: p.log, Detached: true, Scratch: scratch,
	})
	if err != nil {
		_ = os.RemoveAll(scratch)
		return nil, nil, err
	}
	return e, func() { e.Close(); _ = os.RemoveAll(scratch) }, nil
}

// run serves.
func run(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("dispatch takes no argument but a command: check, run, logs, builds, cancel, rerun or approve")
	}
	p, err := open(in)
	if err != nil {
		return err
	}
	defer p.close()
	if err := os.MkdirAll(p.settings.StateDir, 0o700); err != nil {
		return fmt.Errorf("cannot make the folder of --state-dir: %w", err)
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	o := serve.Options{Settings: p.settings, Nomad: p.nomad, Repos: p.repos, Reload: reload, Log: p.log}
	if p.file != nil {
		o.Reread = p.file.Reload
	}
	return serve.Run(ctx, o)
}

// one is a command's one argument.
func one(in *cmdline.Invocation, what string) (string, error) {
	if len(in.Args) != 1 || len(in.Tail) > 0 {
		return "", cmdline.Usagef("give %s, and nothing else", what)
	}
	return in.Args[0], nil
}
