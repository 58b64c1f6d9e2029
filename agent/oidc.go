package main

import (
	"net/http"
	"os"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/credential"
	"example.com/converge/pkg/cmdline"
)

// oidcFlags are the options by which an agent shows what job it is.
func oidcFlags() []cli.Flag {
	const category = "Connection options"
	token := cmdline.SecretFlag("agent", "oidc-token", "OIDC `TOKEN` of this job's CI system, in place of --token")
	token.Category = category
	return []cli.Flag{
		token,
		&cli.StringFlag{
			Name: "oidc-audience", Category: category,
			Usage:   "ask GitHub Actions for an OIDC token for this `AUDIENCE`, which the server's policy names",
			EnvVars: cmdline.EnvVars("agent", "oidc-audience"),
		},
	}
}

// oidcSource reads them; nil is none. header is what goes with every handshake.
func oidcSource(in *cmdline.Invocation, header http.Header) (credential.Source, error) {
	audience := in.String("oidc-audience")
	token, err := cmdline.Secret(in, "oidc-token")
	switch {
	case err != nil:
		return nil, err
	case token == "" && audience == "":
		return nil, nil
	case token != "" && audience != "":
		return nil, cmdline.Usagef("--oidc-token and --oidc-audience exclude each other: give one of them")
	case header.Get("Authorization") != "":
		return nil, cmdline.Usagef("an OIDC token and --token, or a header Authorization, exclude each other: give one of them")
	case token != "":
		return credential.Given(in.String("oidc-token"), token), nil
	}
	source, err := credential.GitHub(audience, os.Getenv)
	if err != nil {
		return nil, cmdline.Usagef("%v", err)
	}
	return source, nil
}
