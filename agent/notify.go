package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/actor"
	"example.com/converge/agent/internal/notify"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/files"
)

// maxTemplate is the largest --notify-template, in bytes.
const maxTemplate = 64 << 10

// notifyFlags are the options on who is told.
func notifyFlags() []cli.Flag {
	const category = "Notices"
	token := cmdline.SecretFlag("agent", "notify-token", "`TOKEN` that may write the statuses and comments of --notify")
	token.Category = category
	return []cli.Flag{
		&cli.StringSliceFlag{
			Name: "notify", Category: category, EnvVars: cmdline.EnvVars("agent", "notify"),
			Usage: "tell `WHERE` that the job waits, who comes, and how it ends: FORMAT+URL of a webhook (slack, mattermost, teams, discord, json, template), " +
				"or status or comment on the job's own forge; @FILE reads such lines, which keeps addresses out of the process list",
		},
		&cli.StringFlag{Name: "notify-template", Category: category, Usage: "`FILE` with the text/template of the format template"},
		token,
	}
}

// readNotify reads them; nil tells nobody.
func readNotify(in *cmdline.Invocation, caFile string, log *slog.Logger) (*notify.Notifier, error) {
	targets, err := cmdline.Secrets(in, "notify", notify.FromEnvironment)
	if err != nil {
		return nil, err
	}
	file := in.String("notify-template")
	if len(targets) == 0 {
		// Where the address is a secret of the CI system, jobs of strangers have
		// none: that is no mistake of theirs.
		if file != "" || in.OnLine("notify-token") {
			log.Info("--notify-template and --notify-token do nothing without --notify")
		}
		return nil, nil
	}
	token, err := cmdline.Secret(in, "notify-token")
	if err != nil {
		return nil, err
	}
	text := ""
	if file != "" {
		if text, err = readTemplate(file); err != nil {
			return nil, err
		}
	}
	who := actor.Detect(os.Getenv)
	job := notify.Detect(who.System, os.Getenv)
	forge, address := who.Forge, who.Address
	if forge == "" {
		forge, address = actor.ForgeOf(job.RepositoryURL)
	}
	n, err := notify.New(notify.Config{
		Targets: targets, Template: text, Token: token,
		Forge: string(forge), ForgeURL: cmp.Or(address, forge.Public()), Job: job,
		CAFile: caFile, Logger: log,
	})
	if err != nil {
		return nil, cmdline.Usagef("--notify: %v", err)
	}
	return n, nil
}

func readTemplate(file string) (string, error) {
	text, err := files.Read(file, maxTemplate)
	if err != nil {
		return "", fmt.Errorf("cannot read the template: %w", err)
	}
	return string(text), nil
}
