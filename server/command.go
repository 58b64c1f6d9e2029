package main

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
)

const (
	// longestWindow and longestDrain bound the options.
	longestWindow, longestDrain = time.Hour, time.Hour
)

func program() cmdline.Program {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "config", Usage: "YAML `FILE` with these options, without their dashes; the command line and the environment are stronger"},
		&cli.BoolFlag{Name: "print-config", Usage: "print what holds in the end as such a file, with where each value is from, and end"},
		&cli.StringFlag{Name: "listen", Value: ":8080", Usage: "`ADDRESS` to listen on, HOST:PORT; port 0 takes a free one"},
		&cli.StringFlag{Name: "public-url", Usage: "the `URL` under which people reach this server, where a proxy in front does not say so"},
		&cli.StringSliceFlag{Name: "trusted-proxy", Usage: "`ADDRESS` or network of a proxy whose X-Forwarded headers are believed"},
		&cli.StringFlag{Name: "downloads", Usage: "`DIR` with the programs to offer, named TOOL-OS-ARCH[.exe]"},
		&cli.StringFlag{Name: "static", Usage: "`DIR` with pages to serve in place of the built-in ones"},
		&cli.StringFlag{Name: "tls-cert", Usage: "PEM `FILE` with the certificate chain; re-read when it changes"},
		&cli.StringFlag{Name: "tls-key", Usage: "PEM `FILE` with the certificate's key"},
		&cli.DurationFlag{Name: "keepalive", Value: 20 * time.Second, Usage: "mean `INTERVAL` of pings; a peer silent for three is gone"},
		&cli.StringFlag{Name: "state-key", Usage: "`FILE` with a secret by which this server, after a restart, and all others that have it know their agents again"},
		&cli.StringFlag{Name: "make-state-key", Usage: "make the `FILE` for --state-key, which must not exist, instead of serving"},
		&cli.DurationFlag{Name: "resume-window", Value: 5 * time.Minute, Usage: "keep an id for this `TIME` for an agent that has lost its connection; 0 keeps none"},
		&cli.DurationFlag{Name: "drain", Usage: "when told to end, say not ready and refuse newcomers for this `TIME` before all connections are closed; give a load balancer some seconds"},
	}
	flags = append(flags, &cli.StringFlag{Name: "check", Usage: "check the server at `URL` (ws[s]://HOST) instead of serving: register, connect, say a word both ways; self asks the one with the same options on this machine whether it lives"})
	flags = append(flags, accessFlags()...)
	flags = append(flags, cmdline.ConnectFlags("server")...) // for --check
	return cmdline.Program{
		Name:      "server",
		Usage:     "the rendezvous of Converge: joins jobs that cannot be reached with the people who must look inside",
		ArgsUsage: " ",
		Description: "With no option it serves on port 8080. Agents register at /agent/ID, clients connect to\n" +
			"/client/ID; / shows how. What passes through is encrypted end to end.\n" +
			"SIGTERM and SIGINT end it in order, a second one at once.",
		Flags:    append(flags, cmdline.LogFlags("server")...),
		Commands: []cmdline.Program{checkConfig(), status()},
		Settings: fromFile(),
		Run:      run,
	}
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("the server takes no argument, only options")
	}
	if in.Bool("print-config") {
		return printConfig(in)
	}
	if in.String("check") != "" {
		return check(ctx, in)
	}
	if file := in.String("make-state-key"); file != "" {
		return makeStateKey(file, in)
	}
	if in.String("make-token") != "" {
		return makeToken(in)
	}
	if in.String("token") != "" {
		return cmdline.Usagef("--token goes with --check: the file with the tokens to let in is --tokens FILE")
	}
	level := new(slog.LevelVar)
	log, err := cmdline.LoggerAt(in, level)
	if err != nil {
		return err
	}
	if in.Bool("check-policy") {
		return checkPolicy(in, log)
	}
	p, err := prepare(in, nil, log)
	if err != nil {
		return err
	}
	return serve(ctx, in, p, level, log)
}

// checkAddress refuses what net.Listen would misread: it takes an address
// without a port for any free port.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil && port != "" {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil || port == "" {
		return cmdline.Usagef("the address %q of --listen is not HOST:PORT, such as 127.0.0.1:8080, or :8080 for all addresses", address)
	}
	return nil
}

// ownPaths are the first segments of the server's own paths.
var ownPaths = []string{"agent", "assets", "client", "data", "docs", "healthz", "metrics", "readyz", "sessions"}

// checkPrefix refuses a path of the public URL under which a request could
// mean two things: whether the proxy in front cuts the prefix off is unknown,
// and agents and clients find the server's root by /agent/ and /client/.
func checkPrefix(prefix string) error {
	for i, segment := range strings.Split(strings.TrimPrefix(prefix, "/"), "/") {
		if segment == "agent" || segment == "client" || i == 0 && slices.Contains(ownPaths, segment) {
			return cmdline.Usagef("the path of --public-url has the segment %q, which the server's own paths begin with: choose another", segment)
		}
	}
	return nil
}
