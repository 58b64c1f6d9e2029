package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/forge"
	"example.com/converge/pkg/transport"
)

// local is who uses the command line: he has Nomad's token.
var local = build.Who{Local: true}

// with opens an engine for a command.
func with(ctx context.Context, in *cmdline.Invocation, do func(ctx context.Context, p *parts, e *engine.Engine) error) error {
	p, err := open(in)
	if err != nil {
		return err
	}
	defer p.close()
	e, end, err := p.engine()
	if err != nil {
		return err
	}
	defer end()
	return do(ctx, p, e)
}

// action is a command that does something to one build.
func action(do func(ctx context.Context, e *engine.Engine, id string) (string, error)) func(context.Context, *cmdline.Invocation) error {
	return func(ctx context.Context, in *cmdline.Invocation) error {
		id, err := one(in, "the ID of a build")
		if err != nil {
			return err
		}
		return with(ctx, in, func(ctx context.Context, _ *parts, e *engine.Engine) error {
			if err := e.LoadWaiting(); err != nil {
				return err
			}
			made, err := do(ctx, e, id)
			if err != nil || made == "" {
				return err
			}
			_, err = fmt.Fprintln(in.Stdout, made)
			return err
		})
	}
}

// runBuild is dispatch run.
func runBuild(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) != 2 || len(in.Tail) > 0 {
		return cmdline.Usagef("give the clone URL of a REPOSITORY and a COMMIT")
	}
	url, commit, flavor := in.Args[0], in.Args[1], in.String("build")
	switch {
	case !forge.IsCommit(commit):
		return cmdline.Usagef("the COMMIT is no full object id: git rev-parse prints it")
	case !repos.IsFlavor(flavor):
		return cmdline.Usagef("--build is no flavour: letters, digits, dots, dashes and underscores, 64 at most")
	}
	return with(ctx, in, func(ctx context.Context, p *parts, e *engine.Engine) error {
		repo, err := p.repos.Get(ctx, url)
		if errors.Is(err, repos.ErrUnknown) {
			return fmt.Errorf("the repository is not registered in %s", p.repos.Name())
		}
		if err != nil {
			return err
		}
		secrets := in.Bool("secrets")
		b, err := e.Launch(ctx, engine.Want{
			Repo: repo, Origin: repo.URL, Commit: commit, Branch: in.String("branch"), Flavor: flavor, Kind: build.Manual, Secrets: &secrets,
		})
		if err != nil {
			return err
		}
		if !in.Bool("follow") {
			_, err = fmt.Fprintln(in.Stdout, b.ID)
			return err
		}
		fmt.Fprintln(in.Stderr, b.ID)
		return follow(ctx, in, e, b.ID)
	})
}

// follow prints both logs until the build has ended, and exits as it did.
func follow(ctx context.Context, in *cmdline.Invocation, e *engine.Engine, id string) error {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { e.Watch(watching) })
	defer watch.Wait()
	defer stop()
	var both sync.WaitGroup
	errs := make([]error, 2)
	for i, to := range []struct {
		log build.Stream
		w   io.Writer
	}{{build.Stdout, in.Stdout}, {build.Stderr, in.Stderr}} {
		both.Go(func() { errs[i] = copyLog(ctx, e, id, to.log, true, to.w) })
	}
	both.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	b, err := e.Get(ctx, id)
	switch {
	case err != nil:
		return err
	case b.State == build.Success:
		return nil
	case b.Exit > 0 && b.Exit < 256:
		return cmdline.Exit(b.Exit, fmt.Errorf("the build has failed: %s", b.Reason))
	}
	return fmt.Errorf("the build has not succeeded: %s", b.Reason)
}

func copyLog(ctx context.Context, e *engine.Engine, id string, log build.Stream, follow bool, to io.Writer) error {
	r, err := e.Open(ctx, id, log, 0, follow)
	if err != nil {
		return fmt.Errorf("cannot read the log: %w", err)
	}
	defer r.Close()
	for {
		_, err := io.Copy(to, r)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, build.ErrAnew):
			return fmt.Errorf("cannot print the log: %w", err)
		}
		fmt.Fprintf(to, "\n[%v]\n", err)
	}
}

// logs is dispatch logs.
func logs(ctx context.Context, in *cmdline.Invocation) error {
	id, err := one(in, "the ID of a build")
	if err != nil {
		return err
	}
	log := build.Stdout
	if in.Bool("stderr") {
		log = build.Stderr
	}
	return with(ctx, in, func(ctx context.Context, _ *parts, e *engine.Engine) error {
		watching, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		defer watch.Wait()
		defer stop()
		if in.Bool("follow") {
			watch.Go(func() { e.Watch(watching) })
		}
		return copyLog(ctx, e, id, log, in.Bool("follow"), in.Stdout)
	})
}

// list is dispatch builds.
func list(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("dispatch builds takes no argument")
	}
	return with(ctx, in, func(ctx context.Context, _ *parts, e *engine.Engine) error {
		if err := e.LoadWaiting(); err != nil {
			return err
		}
		if err := e.Refresh(ctx); err != nil {
			return err
		}
		all, err := e.List(ctx, 0)
		if err != nil {
			return err
		}
		table := tabwriter.NewWriter(in.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "ID\tSTATE\tREASON\tREPOSITORY\tFLAVOR\tBRANCH\tCOMMIT\tCREATED")
		for _, b := range all {
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%.12s\t%s\n", b.ID, b.State, transport.Printable(b.Reason), transport.Printable(b.Repo),
				transport.Printable(b.Flavor), transport.Printable(b.Branch), transport.Printable(b.Commit), b.Created.Format(time.RFC3339))
		}
		return table.Flush()
	})
}
