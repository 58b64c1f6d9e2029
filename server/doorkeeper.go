package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/gate"
	"example.com/converge/server/internal/limits"
)

// doorkeeper is all that decides who may use the server, and tells who did.
type doorkeeper struct {
	gate    *gate.Gate
	guard   *access.Guard
	limits  *limits.Limits
	trail   *audit.Log   // nil for none
	meter   *debug.Meter // nil for none, as the next two
	debug   *debug.Server
	figures net.Listener
	hup     chan os.Signal
	reload  func(context.Context) // at SIGHUP
}

// newDoorkeeper opens what p says. It ends with run, or with close if that is
// not called.
func newDoorkeeper(in *cmdline.Invocation, p *prepared, status func() debug.Status, log *slog.Logger) (*doorkeeper, error) {
	d := &doorkeeper{guard: p.guard, limits: limits.New(p.most)}
	var err error
	if p.auditLog != "" {
		var out io.Writer
		if p.auditLog == "-" {
			out = in.Stdout
		}
		if d.trail, err = audit.Open(p.auditLog, out, log); err != nil {
			return nil, err
		}
	}
	p.reloaded = func(err error) { d.tellReload("access.", err) }
	cfg := gate.Config{
		Guard: d.guard, Limits: d.limits, Audit: d.trail, AddrOf: p.origins.ClientIP, Logger: log,
	}
	if p.debugAddress != "" {
		d.meter = debug.NewMeter()
		cfg.Meter = d.meter
		d.debug = debug.New(d.meter, status, in.Bool("debug-public"), log)
		if d.figures, err = net.Listen("tcp", p.debugAddress); err != nil {
			d.close()
			return nil, cmdline.ListenError(p.debugAddress, "choose another with --debug-listen", err)
		}
	}
	d.gate = gate.New(cfg)
	// Who has nothing to be read again ends with the terminal, as ever.
	if in.String("config")+in.String("tokens")+in.String("policy")+in.String("audit-log")+in.String("tls-cert") != "" {
		d.hup = make(chan os.Signal, 1)
		signal.Notify(d.hup, syscall.SIGHUP)
	}
	return d, nil
}

// tellReload writes down that files were read again, or why not.
func (d *doorkeeper) tellReload(what string, err error) {
	e := audit.Event{Event: what + "reloaded"}
	if err != nil {
		e.Event, e.Result = what+"not-reloaded", err.Error()
	}
	d.trail.Write(e)
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

// run follows files and signals, and serves the figures, until ctx ends, which
// is to be when nobody is connected any more.
func (d *doorkeeper) run(ctx context.Context) error {
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { d.guard.Run(running); return nil })
	group.Go(func() error {
		for {
			select {
			case <-d.hup:
				d.trail.Reopen()
				d.reload(running)
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
