package main

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/limits"
)

// accessFlags are the options about who may use the server, and how much.
func accessFlags() []cli.Flag {
	const who, most, told = "Who may use the server", "Limits; 0 is none", "Who used it"
	limit := func(name string, value int, usage string) cli.Flag {
		return &cli.IntFlag{Name: name, Category: most, Value: value, Usage: usage}
	}
	d := limits.Default
	return []cli.Flag{
		&cli.StringFlag{Name: "tokens", Category: who, Usage: "`FILE` of static tokens for agents and clients; re-read when it changes"},
		&cli.StringFlag{Name: "policy", Category: who, Usage: "YAML `FILE` that says which OIDC tokens are let in, under which ids; re-read when it changes"},
		&cli.StringSliceFlag{Name: "anonymous", Category: who, Usage: "`ROLE`, agent or client, that needs no token in spite of --tokens and --policy"},
		&cli.StringSliceFlag{Name: "allow-origin", Category: who, Usage: "`ORIGIN` of web pages that may connect besides the server's own, such as https://example.org"},
		&cli.StringFlag{Name: "make-token", Category: who, Usage: "print a new token and its line for --tokens, with this `NAME`, and end"},
		&cli.StringFlag{Name: "role", Category: who, Value: "agent", Usage: "`ROLE` of --make-token: agent, client, viewer, or several with commas between"},
		&cli.StringSliceFlag{Name: "ids", Category: who, Usage: "`PATTERN` of the ids of --make-token, such as team/**; all by default"},
		&cli.BoolFlag{Name: "sessions", Category: who, Usage: "show /sessions, who is here now, to those who have a token with the role viewer"},
		&cli.BoolFlag{Name: "check-policy", Category: who, Usage: "read --tokens and --policy, say what is wrong with them, and end"},
		&cli.StringFlag{Name: "audit-log", Category: told, Usage: "`FILE` to which who came and what became of it is added as lines of JSON, - for the standard output"},
		&cli.StringFlag{Name: "debug-listen", Category: told, Usage: "`ADDRESS` of a second listener with /metrics, /debug/pprof/ and what server status asks for, such as 127.0.0.1:6060"},
		&cli.BoolFlag{Name: "debug-public", Category: told, Usage: "let others than this machine reach --debug-listen"},
		limit("max-connections", d.Connections, "`NUMBER` of agents and clients of an address (IPv6: of a /64)"),
		limit("max-handshakes", d.Handshakes, "`NUMBER` of them that are not registered or connected yet"),
		limit("max-registrations", d.Registrations, "`NUMBER` of registrations of an address a minute"),
		limit("max-failures", d.Failures, "`NUMBER` of wrong tokens and ids of an address a minute"),
		limit("max-id-clients", d.IDClients, "`NUMBER` of clients of an id"),
		limit("max-id-connects", d.IDConnects, "`NUMBER` of clients that come to an id a minute"),
		limit("max-id-registrations", d.IDRegistrations, "`NUMBER` of registrations of an id a minute"),
	}
}

// makeToken is what runs with --make-token.
func makeToken(in *cmdline.Invocation) error {
	roles, err := access.ParseRoles(in.String("role"))
	if err != nil {
		return cmdline.Usagef("--role: %v", err)
	}
	token, line, err := access.MakeToken(in.String("make-token"), roles, in.StringSlice("ids"))
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	fmt.Fprintln(in.Stderr, "The token, which is shown this once, and its line for the file of --tokens:")
	_, err = fmt.Fprintf(in.Stdout, "%s\n%s\n", token, line)
	return err
}

// notEmpty refuses an empty --tokens or --policy: it is a variable that is not
// set, and not somebody who wants a server that is open to all.
func notEmpty(in *cmdline.Invocation) error {
	for _, e := range in.Effective() {
		if (e.Name == "tokens" || e.Name == "policy") && e.Source != "" && in.String(e.Name) == "" {
			return cmdline.Usagef("--%s is empty (%s): name a file, or leave the option out; a server with neither --tokens nor --policy is open to everybody", e.Name, e.Source)
		}
	}
	return nil
}

// openGuard reads the files of access. former is the guard in place, or nil;
// reloaded, which may be nil, is told of each reload.
func openGuard(in *cmdline.Invocation, former *access.Guard, reloaded func(error), log *slog.Logger) (*access.Guard, error) {
	if err := notEmpty(in); err != nil {
		return nil, err
	}
	cfg := access.Config{
		Tokens: in.String("tokens"), Policy: in.String("policy"), Former: former, Reloaded: reloaded, Logger: log,
	}
	for _, word := range in.StringSlice("anonymous") {
		roles, err := access.ParseRoles(word)
		if err != nil {
			return nil, cmdline.Usagef("--anonymous: %v", err)
		}
		if slices.Contains(roles, access.Viewer) {
			return nil, cmdline.Usagef("--anonymous is %q: viewers always need a token", word)
		}
		cfg.Anonymous = append(cfg.Anonymous, roles...)
	}
	if len(cfg.Anonymous) > 0 && cfg.Tokens == "" && cfg.Policy == "" {
		return nil, cmdline.Usagef("--anonymous goes with --tokens or --policy: without them everybody may do everything")
	}
	return access.Open(cfg)
}

// checkPolicy is what runs with --check-policy. Warnings are in the log.
func checkPolicy(in *cmdline.Invocation, log *slog.Logger) error {
	if err := notEmpty(in); err != nil {
		return err
	}
	if in.String("tokens") == "" && in.String("policy") == "" {
		return cmdline.Usagef("--check-policy goes with --tokens or --policy")
	}
	guard, err := openGuard(in, nil, nil, log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.Stdout, "ok: %s\n", guard.Describe())
	return err
}

// limitOptions are the options about numbers.
var limitOptions = []string{
	"max-connections", "max-handshakes", "max-registrations", "max-failures",
	"max-id-clients", "max-id-connects", "max-id-registrations",
}

// readLimits reads the options about numbers.
func readLimits(in *cmdline.Invocation) (limits.Config, error) {
	var cfg limits.Config
	for name, field := range map[string]*int{
		"max-connections": &cfg.Connections, "max-handshakes": &cfg.Handshakes,
		"max-registrations": &cfg.Registrations, "max-failures": &cfg.Failures,
		"max-id-clients": &cfg.IDClients, "max-id-connects": &cfg.IDConnects, "max-id-registrations": &cfg.IDRegistrations,
	} {
		if *field = in.Int(name); *field < 0 {
			return cfg, cmdline.Usagef("--%s is %d: it must not be negative; 0 is no limit", name, *field)
		}
	}
	return cfg, nil
}
