package main

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"example.com/converge/agent/internal/box"
	"example.com/converge/agent/internal/boxconfig"
	"example.com/converge/agent/internal/figures"
	"example.com/converge/agent/internal/guestfile"
	"example.com/converge/container"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
)

// sftpServer is the word after the program's name by which it is an sftp server
// on its standard streams, as a container's programs start it.
const sftpServer = "sftp-server"

// sweepTime bounds the search for containers that were left behind.
const sweepTime = time.Minute

// containerFlags are the options by which sessions run in a container.
func containerFlags() []cli.Flag {
	const category = "Options for containers"
	list := func(name, usage string) cli.Flag {
		return &cli.StringSliceFlag{Name: name, Category: category, Usage: usage}
	}
	text := func(name, usage string) cli.Flag {
		return &cli.StringFlag{Name: name, Category: category, Usage: usage}
	}
	boolean := func(name, usage string) cli.Flag {
		return &cli.BoolFlag{Name: name, Category: category, Usage: usage}
	}
	password := cmdline.SecretFlag("agent", "registry-password", "`PASSWORD` for the registry")
	password.Category = category
	return []cli.Flag{
		&cli.StringFlag{Name: "backend", Category: category, DefaultText: "host",
			Usage: "`WHERE` sessions run: host, or container, as --image, --container and --container-config imply"},
		text("image", "`IMAGE` of which each connection gets a container"),
		text("container", "`NAME` or id of a container that runs already, or label=NAME=VALUE, which one has to have"),
		text("container-mode", "`WHAT` gets a container of the image: connection, the default, or session, which has no forwarding"),
		text("container-config", "`FILE` of YAML with all that can be said of the container; options come before it, and lists add to its own"),
		text("engine", "`URL` of the engine, unix://PATH or tcp://HOST:PORT; $DOCKER_HOST or Docker's socket by default"),
		text("engine-ca", "`FILE` of the certificates that the engine's is signed by, for tcp"),
		text("engine-cert", "`FILE` of the certificate by which the engine knows the agent"),
		text("engine-key", "`FILE` of that certificate's key"),
		list("container-command", "`WORD` of what a shell is in mode session, the program first; the image's command by default"),
		list("container-idle-command", "`WORD` of what keeps the container in mode connection; the guest by default"),
		list("container-subsystem", "`NAME=COMMAND` of an SSH subsystem in the container"),
		text("container-pull", "`WHEN` the image is fetched from its registry: always, missing, the default, or never"),
		text("container-platform", "`OS/ARCH` of the image, such as linux/arm64"),
		text("registry-user", "`NAME` for the image's registry"),
		password,
		text("container-user", "`USER` in the container, a name or number, and after a colon the group"),
		text("container-workdir", "`DIR` in the container where sessions begin"),
		list("container-env", "`NAME=VALUE` of a variable in the container, or NAME for the value that the agent has"),
		list("container-mount", "`MOUNT` as in type=bind,source=DIR,target=DIR,readonly; types are bind, volume, tmpfs and image"),
		list("container-volume", "`SOURCE:TARGET` of a folder or volume in the container, with :ro to be only read"),
		text("container-network", "`NETWORK` of the engine for the container, such as none"),
		text("container-memory", "`SIZE` of the memory that the container may use, such as 512MiB"),
		&cli.Float64Flag{Name: "container-cpus", Category: category, Value: math.NaN(), DefaultText: "all",
			Usage: "`NUMBER` of processors that the container may use, such as 1.5"},
		&cli.IntFlag{Name: "container-pids", Category: category, DefaultText: "4096",
			Usage: "`NUMBER` of processes that there may be in the container; -1 for no limit"},
		list("container-cap-add", "`CAPABILITY` that the container has beside the usual ones, such as SYS_PTRACE"),
		list("container-cap-drop", "`CAPABILITY` that it has not, or ALL, beside AUDIT_WRITE, MKNOD and NET_RAW if they are not added"),
		boolean("container-read-only", "let the container write to volumes alone"),
		boolean("container-unhardened", "leave the engine's defaults: new privileges, any number of processes, its usual capabilities"),
		list("container-timeout", "`NAME=DURATION` to wait for the engine: containerStart, containerStop, commandStart, signal, window or http"),
		text("guest", "`FILE` of this machine to copy into the container as its guest; the agent itself by default"),
		text("guest-path", "`FILE` of the image that is its guest, such as "+container.DefaultAgentPath),
		text("metrics-listen", "`ADDRESS` of this machine's own, such as 127.0.0.1:9100, with figures of the engine for Prometheus"),
		boolean("no-guest", "do without a guest in the container: no signals, no forwarding, and what is left runs on"),
	}
}

// containerOptions reads the options of containerFlags; use is whether sessions
// run in a container.
func containerOptions(in *cmdline.Invocation) (o boxconfig.Options, use bool, err error) {
	var given []string
	for _, f := range containerFlags() {
		if name := f.Names()[0]; name != "backend" && in.IsSet(name) {
			given = append(given, name)
		}
	}
	backend := in.String("backend")
	implied := slices.ContainsFunc(given, func(name string) bool { return name == "image" || name == "container" || name == "container-config" })
	use = backend == "container" || backend == "" && implied
	switch {
	case backend != "" && backend != "host" && backend != "container":
		return o, false, cmdline.Usagef("--backend is %q: it must be host or container", backend)
	case backend == "host" && len(given) > 0:
		return o, false, cmdline.Usagef("--backend host and --%s exclude each other: leave one of them out", given[0])
	case !use && len(given) > 0:
		return o, false, cmdline.Usagef("--%s does nothing without a container: give --image or --container, or leave it out", given[0])
	case !use:
		return o, false, nil
	}
	for _, name := range given { // a variable that is not set leaves an option empty
		if name != "container-read-only" && in.OnLine(name) && in.String(name) == "" && len(in.StringSlice(name)) == 0 {
			return o, false, cmdline.Usagef("--%s is empty: give a value, or leave it out", name)
		}
	}
	if address := in.String("metrics-listen"); address != "" {
		if err := figures.CheckAddress(address); err != nil {
			return o, false, cmdline.Usagef("--metrics-listen: %w", err)
		}
	}
	o = boxconfig.Options{
		File: in.String("container-config"), Image: in.String("image"), Container: in.String("container"), Mode: in.String("container-mode"),
		Engine: in.String("engine"), EngineCA: in.String("engine-ca"), EngineCert: in.String("engine-cert"), EngineKey: in.String("engine-key"),
		Command: in.StringSlice("container-command"), Idle: in.StringSlice("container-idle-command"), Shell: in.String("shell"),
		Subsystems: in.StringSlice("container-subsystem"), Pull: in.String("container-pull"), Platform: in.String("container-platform"),
		RegistryUser: in.String("registry-user"),
		User:         in.String("container-user"), Workdir: in.String("container-workdir"), Network: in.String("container-network"),
		Env: in.StringSlice("container-env"), Mounts: in.StringSlice("container-mount"), Volumes: in.StringSlice("container-volume"),
		CPUs: in.Float64("container-cpus"), CapAdd: in.StringSlice("container-cap-add"), CapDrop: in.StringSlice("container-cap-drop"),
		ReadOnly: in.Bool("container-read-only"), Unhardened: in.Bool("container-unhardened"), Timeouts: in.StringSlice("container-timeout"),
		Guest: in.String("guest"), GuestPath: in.String("guest-path"), NoGuest: in.Bool("no-guest"),
	}
	if in.IsSet("container-memory") {
		size, err := cmdline.Bytes[int64](in, "container-memory", 6<<20, math.MaxInt64)
		if err != nil {
			return o, false, err
		}
		o.Memory = size
	}
	if in.IsSet("container-pids") {
		pids := int64(in.Int("container-pids"))
		o.Pids = &pids
	}
	o.RegistryPass, err = cmdline.Secret(in, "registry-password")
	return o, true, err
}

// containers is the back end that runs sessions in them, and what goes with it.
type containers struct {
	*box.Backend
	source             *guestfile.Source
	log                *slog.Logger
	requests, failures container.Count
	figures            *figures.Server // nil if nobody asked for them

	endSweep context.CancelFunc
	sweeping sync.WaitGroup
}

// openContainers returns the back end that the options ask for; nil is the host.
// The caller must close it.
func openContainers(ctx context.Context, in *cmdline.Invocation, server rendezvous.Server, connect transport.Options, log *slog.Logger) (*containers, error) {
	options, use, err := containerOptions(in)
	if err != nil || !use {
		return nil, err
	}
	cfg, err := options.Config(os.LookupEnv)
	if err != nil {
		return nil, err
	}
	c := &containers{log: log}
	if err := c.findGuest(&cfg, server, connect); err != nil {
		return nil, err
	}
	if c.Backend, err = box.New(cfg, log, &c.requests, &c.failures); err != nil {
		return nil, err
	}
	for _, warning := range boxconfig.Warnings(&cfg) {
		log.Warn(warning)
	}
	log.Info("sessions run in a container", "in", c.Name())
	if err := c.show(ctx, in.String("metrics-listen")); err != nil {
		return nil, err
	}
	c.sweep(ctx)
	return c, nil
}

// show shows figures at an address, if there is one.
func (c *containers) show(ctx context.Context, address string) (err error) {
	if address == "" {
		return nil
	}
	c.figures, err = figures.Listen(ctx, address, []figures.Figure{
		{Name: "backend_requests", Help: "What the container engine was asked.", Value: c.requests.Value},
		{Name: "backend_failures", Help: "What it did not do.", Value: c.failures.Value},
		{Name: "containers_open", Help: "Containers that were made and are not yet removed.", Gauge: true, Value: container.Open},
	}, c.log)
	if err == nil {
		c.log.Info("figures are shown", "at", "http://"+c.figures.Address+"/metrics")
	}
	return err
}

// findGuest says what is copied into containers.
func (c *containers) findGuest(cfg *container.Config, server rendezvous.Server, connect transport.Options) error {
	e := &cfg.Execution
	carries := true // an sftp server, too
	switch {
	case e.DisableAgent:
		return nil
	case e.GuestFile != "":
		err := guestfile.Check(e.GuestFile, "linux", "")
		switch {
		case errors.Is(err, guestfile.ErrDynamic):
			c.log.Warn("the guest may not run in every container", "file", e.GuestFile, "reason", "it "+err.Error())
		case err != nil:
			return cmdline.Usagef("the guest %s %w", e.GuestFile, err)
		}
		carries = guestfile.IsAgent(e.GuestFile)
	default:
		tr, err := connect.Transport(server.String())
		if err != nil {
			return err
		}
		c.source = guestfile.New(guestfile.Config{
			Docs:   "http" + strings.TrimPrefix(server.String(), "ws") + "/docs/",
			Client: tr, Header: connect.Header, Logger: c.log,
		})
		e.Guest = c.source.Guest
	}
	if carries && e.GuestSFTP == nil {
		e.GuestSFTP = []string{sftpServer}
	}
	return nil
}

// sweep says, beside all else, if nobody can come in as things are, and removes what
// an agent that was killed has left behind.
func (c *containers) sweep(ctx context.Context) {
	ctx, c.endSweep = context.WithTimeout(context.WithoutCancel(ctx), sweepTime)
	c.sweeping.Go(func() {
		if err := c.Check(ctx); err != nil {
			c.log.Warn("nobody can come in as things are now", "err", err)
		}
		removed, err := c.Sweep(ctx)
		switch {
		case err != nil && !errors.Is(err, context.Canceled):
			c.log.Warn("cannot look for containers that were left behind", "err", err)
		case removed > 0:
			c.log.Info("removed containers that were left behind", "count", removed)
		}
	})
}

// close ends what goes on beside sessions, and says what there was.
func (c *containers) close() {
	if c == nil {
		return
	}
	c.endSweep()
	c.sweeping.Wait()
	if c.figures != nil {
		_ = c.figures.Close()
	}
	if c.source != nil {
		if err := c.source.Close(); err != nil {
			c.log.Warn("cannot remove what was downloaded", "err", err)
		}
	}
	c.log.Info("the container back end ends", "backend_requests", c.requests.Value(), "backend_failures", c.failures.Value(), "containers_open", container.Open())
}
