package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/gate"
	"example.com/converge/server/internal/limits"
	"example.com/converge/server/internal/web"
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
		&cli.StringFlag{Name: "role", Category: who, Value: "agent", Usage: "`ROLE` of --make-token: agent, client or agent,client"},
		&cli.StringSliceFlag{Name: "ids", Category: who, Usage: "`PATTERN` of the ids of --make-token, such as team/**; all by default"},
		&cli.BoolFlag{Name: "check-policy", Category: who, Usage: "read --tokens and --policy, say what is wrong with them, and end"},
		&cli.StringFlag{Name: "audit-log", Category: told, Usage: "`FILE` to which who came and what became of it is added as lines of JSON, - for the standard output"},
		&cli.StringFlag{Name: "debug-listen", Category: told, Usage: "`ADDRESS` of a second listener with /metrics and /debug/pprof/, such as 127.0.0.1:6060"},
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

// openGuard reads the files of access.
func openGuard(in *cmdline.Invocation, trail *audit.Log, log *slog.Logger) (*access.Guard, error) {
	cfg := access.Config{Tokens: in.String("tokens"), Policy: in.String("policy"), Logger: log}
	for _, word := range in.StringSlice("anonymous") {
		roles, err := access.ParseRoles(word)
		if err != nil {
			return nil, cmdline.Usagef("--anonymous: %v", err)
		}
		cfg.Anonymous = append(cfg.Anonymous, roles...)
	}
	if len(cfg.Anonymous) > 0 && cfg.Tokens == "" && cfg.Policy == "" {
		return nil, cmdline.Usagef("--anonymous goes with --tokens or --policy: without them everybody may do everything")
	}
	cfg.Reloaded = func(err error) {
		e := audit.Event{Event: "access.reloaded"}
		if err != nil {
			e.Event, e.Result = "access.not-reloaded", err.Error()
		}
		trail.Write(e)
	}
	return access.Open(cfg)
}

// checkPolicy is what runs with --check-policy. Warnings are in the log.
func checkPolicy(in *cmdline.Invocation, log *slog.Logger) error {
	if in.String("tokens") == "" && in.String("policy") == "" {
		return cmdline.Usagef("--check-policy goes with --tokens or --policy")
	}
	guard, err := openGuard(in, nil, log)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(in.Stdout, "ok: %s\n", guard.Describe())
	return err
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

// doorkeeper is all that decides who may use the server, and tells who did.
type doorkeeper struct {
	gate    *gate.Gate
	guard   *access.Guard
	trail   *audit.Log // nil for none
	debug   *debug.Server
	figures net.Listener // of debug; nil for none
	hup     chan os.Signal
}

// newDoorkeeper reads the options. What it opens ends with run, or with close
// if that is not called.
func newDoorkeeper(in *cmdline.Invocation, origins *web.Origins, log *slog.Logger) (*doorkeeper, error) {
	d := &doorkeeper{}
	most, err := readLimits(in)
	if err != nil {
		return nil, err
	}
	if address := in.String("debug-listen"); address != "" {
		if err := debug.CheckAddress(address, in.Bool("debug-public")); err != nil {
			return nil, cmdline.Usagef("%v", err)
		}
	} else if in.Bool("debug-public") {
		return nil, cmdline.Usagef("--debug-public goes with --debug-listen")
	}
	if path := in.String("audit-log"); path != "" {
		var out io.Writer
		if path == "-" {
			out = in.Stdout
		}
		if d.trail, err = audit.Open(path, out, log); err != nil {
			return nil, err
		}
	}
	if d.guard, err = openGuard(in, d.trail, log); err != nil {
		d.close()
		return nil, err
	}
	cfg := gate.Config{
		Guard: d.guard, Limits: limits.New(most), Audit: d.trail, AddrOf: origins.ClientIP, Logger: log,
	}
	if address := in.String("debug-listen"); address != "" {
		meter := debug.NewMeter()
		cfg.Meter = meter
		d.debug = debug.New(meter, in.Bool("debug-public"), log)
		if d.figures, err = net.Listen("tcp", address); err != nil {
			d.close()
			return nil, cmdline.ListenError(address, "choose another with --debug-listen", err)
		}
	}
	d.gate = gate.New(cfg)
	// Who has nothing to be read again ends with the terminal, as ever.
	if in.String("tokens")+in.String("policy")+in.String("audit-log") != "" {
		d.hup = make(chan os.Signal, 1)
		signal.Notify(d.hup, syscall.SIGHUP)
	}
	return d, nil
}

// tell says once who may come in.
func (d *doorkeeper) tell(log *slog.Logger) {
	agents, clients := d.guard.Everybody(access.Agent), d.guard.Everybody(access.Client)
	switch {
	case agents && clients:
		log.Warn("open: whoever reaches this server may register agents and connect to ids; see --tokens and --policy")
	default:
		log.Info("closed", "anonymous_agents", agents, "anonymous_clients", clients, "rules", d.guard.Describe())
	}
	if d.figures != nil {
		log.Info("serving figures", "address", d.figures.Addr().String())
	}
}

// run follows files and signals, and serves the figures, until ctx ends.
func (d *doorkeeper) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { d.guard.Run(running); return nil })
	group.Go(func() error {
		for {
			select {
			case <-d.hup:
				d.trail.Reopen()
				d.guard.Reload()
			case <-running.Done():
				return nil
			}
		}
	})
	if d.figures != nil {
		group.Go(func() error { return d.debug.Serve(d.figures) })
		group.Go(func() error {
			<-running.Done()
			return d.debug.Shutdown(context.WithoutCancel(ctx))
		})
	}
	return group.Wait()
}

// close writes the rest of the audit log. It is to be called when nobody is
// connected any more.
func (d *doorkeeper) close() {
	if d.hup != nil {
		signal.Stop(d.hup)
	}
	if d.figures != nil {
		_ = d.figures.Close()
	}
	d.trail.Close()
}
