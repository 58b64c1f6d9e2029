package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gateway"
	"example.com/converge/gitgate/internal/logs"
	"example.com/converge/pkg/cmdline"
)

func program() cmdline.Program {
	return cmdline.Program{
		Name:      "gitgate",
		Usage:     "keeps git repositories in step with their forges, by webhooks",
		ArgsUsage: " ",
		Description: "It reads config.yaml, config.json or config.toml from " + strings.Join(config.Places, ", ") + ", and\n" +
			"updates a repository when its forge says that somebody pushed. Options are stronger\n" +
			"than the file. SIGHUP reads it again; SIGTERM and SIGINT finish what runs and end,\n" +
			"a second one ends at once.",
		Flags:    flags(),
		Commands: []cmdline.Program{runCommand(), syncCommand(), checkCommand()},
		Run:      run,
	}
}

// flags are --config and the keys of the file's top.
func flags() []cli.Flag {
	all := []cli.Flag{configFlag()}
	for _, k := range config.Keys {
		env := []string{k.Variable()}
		switch {
		case k.Switch:
			// Which of the two it is must be told from not being given.
			all = append(all, &cli.BoolFlag{Name: k.Flag(), Usage: k.Usage, DefaultText: k.Default, EnvVars: env})
		case k.List:
			all = append(all, &cli.StringSliceFlag{Name: k.Flag(), Usage: k.Usage, EnvVars: env})
		default:
			all = append(all, &cli.StringFlag{Name: k.Flag(), Usage: k.Usage, DefaultText: k.Default, EnvVars: env})
		}
	}
	return all
}

func configFlag() cli.Flag {
	return &cli.StringFlag{Name: "config", Usage: "the configuration's `FILE`; its ending is its format", EnvVars: []string{"GITGATE_CONFIG"}}
}

// runCommand is gitgate run, which is gitgate.
func runCommand() cmdline.Program {
	return cmdline.Program{Name: "run", Usage: "does what gitgate does without a command", ArgsUsage: " ", Flags: flags(), Run: run}
}

// loader finds and reads the configuration, again and again.
type loader struct {
	path      string
	strict    bool
	overrides []config.Override
}

func newLoader(in *cmdline.Invocation) (*loader, error) {
	l := &loader{path: in.String("config"), strict: true}
	if l.path == "" {
		var err error
		if l.path, l.strict, err = config.Find(config.Places); err != nil {
			return nil, cmdline.Usagef("%w", err)
		}
	}
	for _, e := range in.Effective() {
		at := slices.IndexFunc(config.Keys, func(k config.Key) bool { return k.Flag() == e.Name })
		if at < 0 || e.Source == "" {
			continue
		}
		for _, value := range e.Values {
			if strings.HasPrefix(value, "tcp://") && strings.HasSuffix(e.Source, " GITGATE_PORT") {
				continue // Kubernetes sets it beside a Service called gitgate
			}
			l.overrides = append(l.overrides, config.Override{Key: config.Keys[at].Name, Value: value, Source: e.Source})
		}
	}
	return l, nil
}

func (l *loader) load() (*config.Config, []config.Warning, error) {
	return config.Load(l.path, l.strict, l.overrides)
}

func noArguments(in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("gitgate takes no argument but a command, before its options: run, sync or check-config")
	}
	return nil
}

// run serves.
func run(ctx context.Context, in *cmdline.Invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	l, err := newLoader(in)
	if err != nil {
		return err
	}
	c, warnings, err := l.load()
	if err != nil {
		return mistakes(in, err)
	}
	log, err := logs.Open(c.Logging, in.Stdout)
	if err != nil {
		return err
	}
	defer log.Close()
	logger := log.Logger()
	for _, w := range warnings {
		logger.Warn("configuration: " + w.String())
	}
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	return gateway.Run(ctx, gateway.Options{Config: c, Load: l.load, Logging: log.Use, Reload: reload, Log: logger})
}

// mistakes prints them one a line, where there is more than one, and makes the
// error of the rest.
func mistakes(in *cmdline.Invocation, err error) error {
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) < 2 {
		return cmdline.Usagef("%w", err)
	}
	all := joined.Unwrap()
	head, _, _ := strings.Cut(err.Error(), "\n")
	head = strings.TrimSuffix(head, all[0].Error())
	for _, one := range all {
		fmt.Fprintf(in.Stderr, "gitgate: %s%s\n", head, one)
	}
	return cmdline.Usagef("the configuration has %d mistakes", len(all))
}

// syncCommand is gitgate sync.
func syncCommand() cmdline.Program {
	return cmdline.Program{
		Name: "sync", ArgsUsage: "NAME...",
		Usage: "brings repositories up to date once, without a webhook, and ends",
		Description: "NAME is a repository's name, path or directory. A gitgate that serves at the same\n" +
			"time is waited for. The exit status is 1 where one could not be brought up to date.",
		Flags: append([]cli.Flag{&cli.BoolFlag{Name: "all", Usage: "all repositories of the configuration"}}, flags()...),
		Run:   syncNow,
	}
}

func syncNow(ctx context.Context, in *cmdline.Invocation) error {
	names := slices.Concat(in.Args, in.Tail)
	if len(names) == 0 != in.Bool("all") {
		return cmdline.Usagef("give the NAME of a repository, or --all")
	}
	l, err := newLoader(in)
	if err != nil {
		return err
	}
	c, warnings, err := l.load()
	if err != nil {
		return mistakes(in, err)
	}
	var repos []*config.Repo
	for _, name := range names {
		at := slices.IndexFunc(c.Repos, func(r *config.Repo) bool {
			return r.Name == name || r.Path == name || r.Directory == filepath.Clean(name)
		})
		if at < 0 {
			known := make([]string, len(c.Repos))
			for i, r := range c.Repos {
				known[i] = r.Name
			}
			return cmdline.Usagef("there is no repository %q in %s, which has %s", name, c.File, strings.Join(known, ", "))
		}
		repos = append(repos, c.Repos[at])
	}
	if in.Bool("all") {
		repos = c.Repos
	}
	log, err := logs.Open(c.Logging, in.Stdout)
	if err != nil {
		return err
	}
	defer log.Close()
	for _, w := range warnings {
		log.Logger().Warn("configuration: " + w.String())
	}
	if failed := gateway.SyncAll(ctx, c, repos, log.Logger()); failed > 0 {
		return fmt.Errorf("%d of %d repositories could not be brought up to date", failed, len(repos))
	}
	return nil
}

// checkCommand is gitgate check-config.
func checkCommand() cmdline.Program {
	return cmdline.Program{
		Name: "check-config", ArgsUsage: " ",
		Usage: "says what is wrong with the configuration, and with the files that it names, and ends",
		Flags: flags(),
		Run:   checkConfig,
	}
}

func checkConfig(_ context.Context, in *cmdline.Invocation) error {
	if err := noArguments(in); err != nil {
		return err
	}
	l, err := newLoader(in)
	if err != nil {
		return err
	}
	c, warnings, err := l.load()
	for _, w := range warnings {
		if w.Text != config.ReadableByOthers {
			fmt.Fprintf(in.Stderr, "gitgate: warning: %s: %s\n", l.path, w)
		}
	}
	if err != nil {
		return mistakes(in, err)
	}
	wrong := c.CheckFiles()
	for _, w := range warnings {
		if w.Text == config.ReadableByOthers {
			wrong = append(wrong, errors.New(w.Text))
		}
	}
	for _, err := range wrong {
		fmt.Fprintf(in.Stderr, "gitgate: %s: %s\n", l.path, err)
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s cannot be used as it is", l.path)
	}
	_, err = fmt.Fprintf(in.Stdout, "ok: %s, %d repositories\n", l.path, len(c.Repos))
	return err
}
