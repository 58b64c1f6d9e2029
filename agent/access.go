package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/actor"
	"example.com/converge/agent/internal/forgekeys"
	"example.com/converge/agent/internal/keys"
	"example.com/converge/agent/internal/session"
	"example.com/converge/pkg/cmdline"
)

// forges are the kinds of forges, in the order of --help.
var forges = []forgekeys.Forge{forgekeys.GitHub, forgekeys.GitLab, forgekeys.Gitea, forgekeys.Sourcehut}

// teams is what each forge calls several users; SourceHut has nothing of the
// kind that could be asked for.
var teams = map[forgekeys.Forge]string{forgekeys.GitHub: "team", forgekeys.GitLab: "group", forgekeys.Gitea: "org"}

// accessFlags are the options on who may log in.
func accessFlags() []cli.Flag {
	const category = "Who may log in"
	list := func(name, usage string) cli.Flag {
		return &cli.StringSliceFlag{Name: name, Category: category, Usage: usage}
	}
	text := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Category: category, Usage: usage}
	}
	boolean := func(name, usage string) cli.Flag {
		return &cli.BoolFlag{Name: name, Category: category, Usage: usage}
	}
	flags := []cli.Flag{
		list("authorized-keys", "`FILE` of keys that may log in, re-read when it changes"),
		list("authorized-key", "a public `KEY` that may log in, such as 'ssh-ed25519 AAAA…'"),
		boolean("actor", "let in who triggered the job, with the keys of the CI system's forge"),
		text("actor-forge", "`FORGE` of who triggered the job, where the CI system does not say: github, gitlab, gitea or sourcehut"),
		boolean("actor-anyone", "let in who triggered the job even if it could be a stranger, such as the author of a fork's pull request"),
	}
	names := map[forgekeys.Forge]string{
		forgekeys.GitHub: "`ORG/TEAM`", forgekeys.GitLab: "`GROUP` or GROUP/SUBGROUP", forgekeys.Gitea: "`ORG`",
	}
	for _, forge := range forges {
		name, title := string(forge), forge.Title()
		flags = append(flags, list(name+"-user", "`NAME` of a "+title+" user whose keys may log in"))
		if team := teams[forge]; team != "" {
			flags = append(flags, list(name+"-"+team, names[forge]+", the members of which may log in with their "+title+" keys"))
			token := cmdline.SecretFlag("agent", name+"-token", "`TOKEN` with which "+title+"'s API is asked")
			token.Category = category
			flags = append(flags, token)
		}
		usage := "`URL` of " + title + ", in place of the job's own one or " + forge.Public()
		if forge.Public() == "" {
			usage = "`URL` of Gitea or Forgejo, in place of the job's own one"
		}
		flags = append(flags, text(name+"-url", usage))
	}
	return append(flags,
		list("keys-url", "https `URL` of public keys that may log in, one a line"),
		&cli.DurationFlag{Name: "keys-refresh", Category: category, Value: forgekeys.DefaultRefresh,
			Usage: "mean `DURATION` between two looks at the keys of forges and URLs"},
		&cli.DurationFlag{Name: "keys-max-age", Category: category, Value: forgekeys.DefaultMaxAge,
			Usage: "`DURATION` for which such keys stay good when they cannot be looked at"},
		list("trusted-user-ca", "`FILE` of public keys, or such a key, that sign the SSH certificates of those who may log in"),
		list("ca-principal", "`NAME` that a certificate must be for, in place of the log-in name"),
		text("revoked-keys", "`FILE` of keys and certificates that may not log in, re-read when it changes"),
		boolean("password", "let in with a random password, printed; the default where none of these is given, unless the log is public or may be"),
	)
}

// access is who may log in.
type access struct {
	keys     *keys.Set
	password string
	// forges is nil where nothing is fetched.
	forges *forgekeys.Store
}

// checkAccess refuses options that would do nothing, and mistakes in those
// that need no file to be noticed.
func checkAccess(in *cmdline.Invocation) error {
	if _, err := keys.NewSet(nil, in.StringSlice("authorized-key"), nil); err != nil {
		return cmdline.Usagef("--authorized-key: %v; a file of keys is for --authorized-keys", err)
	}
	forge := forgekeys.Forge(in.String("actor-forge"))
	switch {
	case !in.Bool("actor") && (forge != "" || in.Bool("actor-anyone")):
		return cmdline.Usagef("--actor-forge and --actor-anyone do nothing without --actor: give it, or leave them out")
	case forge != "" && !slices.Contains(forges, forge):
		return cmdline.Usagef("--actor-forge is %q: give github, gitlab, gitea or sourcehut", forge)
	case in.Duration("keys-refresh") < forgekeys.MinRefresh:
		return cmdline.Usagef("--keys-refresh is %s: give %s or more", in.Duration("keys-refresh"), forgekeys.MinRefresh)
	case in.Duration("keys-max-age") < in.Duration("keys-refresh"):
		return cmdline.Usagef("--keys-max-age is less than --keys-refresh: keys would come and go; give a longer one")
	case len(in.StringSlice("ca-principal")) > 0 && len(in.StringSlice("trusted-user-ca")) == 0:
		return cmdline.Usagef("--ca-principal does nothing without --trusted-user-ca: give it, or leave the principal out")
	case slices.Contains(in.StringSlice("ca-principal"), ""), slices.Contains(in.StringSlice("trusted-user-ca"), ""):
		return cmdline.Usagef("--ca-principal and --trusted-user-ca must not be empty")
	case in.OnLine("revoked-keys") && in.String("revoked-keys") == "": // a variable that is not set
		return cmdline.Usagef("--revoked-keys is empty: nobody would be refused; name a file, or leave it out")
	}
	return nil
}

// readAccess reads the options of accessFlags. It asks nobody over the network
// yet.
func readAccess(in *cmdline.Invocation, caFile string, log *slog.Logger) (access, error) {
	job := actor.Detect(os.Getenv)
	var a access
	sources, err := keySources(in, job)
	if err != nil {
		return a, err
	}
	cfg := keys.Config{
		Files: in.StringSlice("authorized-keys"), Literals: in.StringSlice("authorized-key"),
		Authorities: in.StringSlice("trusted-user-ca"), Principals: in.StringSlice("ca-principal"),
		Revoked: in.String("revoked-keys"), Logger: log,
	}
	if len(sources) > 0 {
		if a.forges, err = forgekeys.New(forgekeys.Config{
			Sources: sources, CAFile: caFile, Logger: log,
			Refresh: in.Duration("keys-refresh"), MaxAge: in.Duration("keys-max-age"),
		}); err != nil {
			return a, err
		}
		cfg.Sources = []keys.Source{a.forges}
	}
	if a.keys, err = keys.New(cfg); err != nil {
		return a, err
	}
	none := len(cfg.Files)+len(cfg.Literals)+len(cfg.Authorities)+len(sources) == 0
	switch {
	case in.Bool("password"):
		switch {
		case job.Public != "":
			log.Warn("everybody can read this job's log, and the password in it", "reason", job.System+" says that "+job.Public)
		case job.Unsaid != "":
			log.Warn("perhaps everybody can read this job's log, and the password in it", "reason", job.System+" does not tell "+job.Unsaid)
		}
		a.password = newPassword()
	case none && job.Public != "":
		return a, cmdline.Usagef("everybody can read this job's log, and a password in it: %s says that %s; "+
			"let somebody in by key, such as with --actor, or say --password", job.System, job.Public)
	case none && job.Unsaid != "": // in a container, for one, that has the job's variables and not its files
		return a, cmdline.Usagef("perhaps everybody can read this job's log, and a password in it: %s does not tell %s; "+
			"let somebody in by key, such as with --actor, or say --password", job.System, job.Unsaid)
	case none:
		a.password = newPassword()
	case a.keys.Empty(): // a password in place of keys that were asked for would open another door
		return a, errors.New("no key of --authorized-key is accepted: give one that is, or leave the option out for a password")
	}
	return a, nil
}

// keySources are those whose keys are fetched.
func keySources(in *cmdline.Invocation, job actor.Job) ([]forgekeys.Source, error) {
	var sources []forgekeys.Source
	add := func(option string, source forgekeys.Source, err error) error {
		if err != nil {
			return cmdline.Usagef("--%s: %v", option, err)
		}
		if !slices.ContainsFunc(sources, func(s forgekeys.Source) bool { return s.String() == source.String() }) {
			sources = append(sources, source)
		}
		return nil
	}
	var actorForge forgekeys.Forge
	var who string
	if in.Bool("actor") {
		var err error
		if actorForge, who, err = job.Who(forgekeys.Forge(in.String("actor-forge")), in.Bool("actor-anyone")); err != nil {
			return nil, err
		}
	}
	for _, forge := range forges {
		var members []string
		if team := teams[forge]; team != "" {
			members = in.StringSlice(string(forge) + "-" + team)
		}
		users := in.StringSlice(string(forge) + "-user")
		if len(members)+len(users) == 0 && forge != actorForge {
			continue
		}
		server, err := forgeServer(in, forge, job, forge == actorForge)
		if err != nil {
			return nil, err
		}
		if forge == actorForge {
			source, err := server.User(who)
			if err := add("actor", source, err); err != nil {
				return nil, err
			}
		}
		for _, name := range users {
			source, err := server.User(name)
			if err := add(string(forge)+"-user", source, err); err != nil {
				return nil, err
			}
		}
		for _, name := range members {
			source, err := server.Team(name)
			if err := add(string(forge)+"-"+teams[forge], source, err); err != nil {
				return nil, err
			}
		}
	}
	for _, address := range in.StringSlice("keys-url") {
		source, err := forgekeys.URL(address)
		if err := add("keys-url", source, err); err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// forgeServer is the forge that names belong to: the one that is named, else
// the one that the job runs on if it is of that kind, else the public one. ofActor
// tells that the job's triggerer has an account there.
func forgeServer(in *cmdline.Invocation, forge forgekeys.Forge, job actor.Job, ofActor bool) (forgekeys.Server, error) {
	option := string(forge) + "-url"
	address, origin := in.String(option), "--"+option
	if address == "" && (job.Forge == forge || job.Forge == "" && ofActor) {
		address, origin = job.Address, "the forge of this job; give another one with --"+option
	}
	if address == "" {
		address = forge.Public()
	}
	if address == "" {
		return forgekeys.Server{}, cmdline.Usagef("there is no %s that everybody means: say which one, with --%s", forge.Title(), option)
	}
	token := ""
	if teams[forge] != "" {
		var err error
		if token, err = cmdline.Secret(in, string(forge)+"-token"); err != nil {
			return forgekeys.Server{}, err
		}
	}
	server, err := forgekeys.NewServer(forge, address, token)
	if err != nil {
		return server, cmdline.Usagef("%v (%s)", err, strings.TrimSpace(origin))
	}
	return server, nil
}

// run is session.Run once the keys have been fetched; they are kept fresh
// until it ends.
func (a access) run(ctx context.Context, cfg session.Config) (int, error) {
	if a.forges == nil {
		return session.Run(ctx, cfg)
	}
	if err := a.forges.Load(ctx); err != nil {
		if ctx.Err() != nil {
			return 0, nil // a signal: nobody is let in any more
		}
		return 0, fmt.Errorf("nobody is let in: %w", err)
	}
	fresh, stop := context.WithCancel(context.WithoutCancel(ctx))
	var refreshing sync.WaitGroup
	refreshing.Go(func() { a.forges.Run(fresh) })
	defer refreshing.Wait()
	defer stop()
	return session.Run(ctx, cfg)
}
