package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/certs"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/gate"
	"example.com/converge/server/internal/hub"
	"example.com/converge/server/internal/ticket"
	"example.com/converge/server/internal/web"
)

const (
	// shutdownWait bounds a graceful end, after the draining.
	shutdownWait = 10 * time.Second
	// longestWindow and longestDrain bound the options.
	longestWindow, longestDrain = time.Hour, time.Hour
)

func program() cmdline.Program {
	flags := []cli.Flag{
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
	flags = append(flags, &cli.StringFlag{Name: "check", Usage: "check the server at `URL` (ws[s]://HOST) instead of serving: register, connect, say a word both ways"})
	flags = append(flags, accessFlags()...)
	flags = append(flags, cmdline.ConnectFlags("server")...) // for --check
	return cmdline.Program{
		Name:      "server",
		Usage:     "the rendezvous of Converge: joins jobs that cannot be reached with the people who must look inside",
		ArgsUsage: " ",
		Description: "With no option it serves on port 8080. Agents register at /agent/ID, clients connect to\n" +
			"/client/ID; / shows how. What passes through is encrypted end to end.\n" +
			"SIGTERM and SIGINT end it in order, a second one at once.",
		Flags: append(flags, cmdline.LogFlags("server")...),
		Run:   run,
	}
}

func run(ctx context.Context, in *cmdline.Invocation) error {
	if len(in.Args) > 0 || len(in.Tail) > 0 {
		return cmdline.Usagef("the server takes no argument, only options")
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
	address := in.String("listen")
	if err := checkAddress(address); err != nil {
		return err
	}
	keepAlive := in.Duration("keepalive")
	if keepAlive < time.Second || keepAlive > time.Hour {
		return cmdline.Usagef("--keepalive is %v: it must be between a second and an hour", keepAlive)
	}
	window, drain := in.Duration("resume-window"), in.Duration("drain")
	if window < 0 || window > longestWindow {
		return cmdline.Usagef("--resume-window is %v: it must be between 0 and an hour", window)
	}
	if drain < 0 || drain > longestDrain {
		return cmdline.Usagef("--drain is %v: it must be between 0 and an hour", drain)
	}
	log, err := cmdline.Logger(in)
	if err != nil {
		return err
	}
	if in.Bool("check-policy") {
		return checkPolicy(in, log)
	}
	origins, err := web.NewOrigins(in.String("public-url"), in.StringSlice("trusted-proxy"))
	if err != nil {
		return cmdline.Usagef("%v", err)
	}
	// A public URL holds for every request, so an empty one tells its path.
	prefix := origins.Of(new(http.Request)).Prefix
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	pages, err := web.New(web.Config{
		Downloads: in.String("downloads"), Static: in.String("static"), Origins: origins, Logger: log,
	})
	if err != nil {
		return err
	}
	var tlsConfig *tls.Config
	cert, key := in.String("tls-cert"), in.String("tls-key")
	if (cert == "") != (key == "") {
		return cmdline.Usagef("--tls-cert and --tls-key go together")
	}
	if cert != "" {
		pair, err := certs.Load(cert, key, log)
		if err != nil {
			return err
		}
		tlsConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: pair.GetCertificate}
	}
	var tickets *ticket.Office
	if file := in.String("state-key"); file != "" {
		secret, err := ticket.LoadKey(file)
		if err != nil {
			return err
		}
		tickets = ticket.New(secret, window)
	}

	allowed, err := front.ParseOrigins(in.StringSlice("allow-origin"))
	if err != nil {
		return cmdline.Usagef("--allow-origin: %v", err)
	}
	keeper, err := newDoorkeeper(in, origins, log)
	if err != nil {
		return err
	}
	defer keeper.close()
	tuneMemory()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return cmdline.ListenError(address, "choose another with --listen", err)
	}
	budget := front.NewBudget(front.FileLimit())
	joiner := hub.New(hub.Config{
		KeepAlive: keepAlive,
		PassOf:    gate.PassOf,
		RemoteOf:  func(r *http.Request) string { return origins.ClientIP(r).String() },
		Opened:    budget.Opened, Closed: budget.Closed,
		Room:         budget.Room,
		ResumeWindow: window, Tickets: tickets,
		Logger: log,
	})
	door := front.New(front.Config{
		Endpoints: keeper.gate.To(joiner), Pages: pages, Origins: allowed,
		HostOf: func(r *http.Request) string { return origins.Of(r).Host },
		Prefix: prefix,
		Budget: budget, TLS: tlsConfig, Logger: log,
	})

	log.Info("serving", "address", listener.Addr().String(), "tls", tlsConfig != nil, "state_key", tickets != nil, "version", cmdline.Version())
	keeper.tell(log)
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error { return door.Serve(listener) })
	group.Go(func() error { return keeper.run(serving) })
	group.Go(func() error {
		<-serving.Done()
		door.Drain()
		log.Info("ending", "drain", drain.String())
		if ctx.Err() != nil { // and not because it cannot go on serving
			// In this time a load balancer notices that the server is not
			// ready, and takes newcomers elsewhere, and then those who are sent
			// away. Only a second signal cuts it short, with the process.
			<-time.After(drain)
		}
		// The signal's context is over; the way out has its own limit.
		out, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		var ends errgroup.Group
		ends.Go(func() error { return door.Shutdown(out) })
		ends.Go(func() error { return joiner.Shutdown(out) })
		// A peer that was cut off is no failure of a server that was told to end.
		if err := ends.Wait(); err != nil {
			log.Warn("ended the hard way", "err", err)
		}
		return nil
	})
	return group.Wait()
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
