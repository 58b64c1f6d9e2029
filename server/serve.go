package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/cmdline"
	"example.com/converge/server/internal/debug"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/gate"
	"example.com/converge/server/internal/hub"
)

// shutdownWait bounds a graceful end, after the draining.
const shutdownWait = 10 * time.Second

// serve runs the server until ctx ends.
func serve(ctx context.Context, in *cmdline.Invocation, p *prepared, level *slog.LevelVar, log *slog.Logger) error {
	s := &standing{prepared: p, started: time.Now()}
	keeper, err := newDoorkeeper(in, p, func() debug.Status { return s.status() }, log)
	if err != nil {
		return err
	}
	defer keeper.close()
	tuneMemory()
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return cmdline.ListenError(p.address, "choose another with --listen", err)
	}
	budget := front.NewBudget(front.FileLimit())
	joiner := hub.New(hub.Config{
		KeepAlive: p.keepAlive,
		PassOf:    gate.PassOf,
		RemoteOf:  func(r *http.Request) string { return p.origins.ClientIP(r).String() },
		Opened:    budget.Opened, Closed: budget.Closed,
		Room:         budget.Room,
		ResumeWindow: p.window, Tickets: p.tickets,
		Logger: log,
	})
	pages, err := newSessions(p, keeper, joiner, log)
	if err != nil {
		return err
	}
	door := front.New(front.Config{
		Endpoints: keeper.gate.To(joiner), Pages: p.pages, Sessions: pages.handler(), Origins: p.allowed,
		HostOf: func(r *http.Request) string { return p.origins.Of(r).Host },
		Prefix: p.prefix,
		Budget: budget, TLS: p.tls(), Logger: log,
	})
	changes := newReloader(in, keeper, p, level, log)
	keeper.reload = changes.reload
	s.address, s.keeper, s.joiner, s.budget, s.door, s.changes, s.pages = listener.Addr().String(), keeper, joiner, budget, door, changes, pages
	if keeper.meter != nil {
		keeper.meter.Watch(s.live())
	}

	log.Info("serving", "address", s.address, "tls", p.pair != nil, "state_key", p.tickets != nil, "version", cmdline.Version())
	keeper.tell(log)
	group, serving := errgroup.WithContext(ctx)
	// Who is in during the draining can be revoked still, and who looks at the
	// figures sees that it ends: the doorkeeper goes when the door is shut.
	watching, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	group.Go(func() error { return door.Serve(listener) })
	group.Go(func() error { return keeper.run(watching) })
	group.Go(func() error {
		defer leave()
		<-serving.Done()
		door.Drain()
		log.Info("ending", "drain", p.drain.String())
		if ctx.Err() != nil { // and not because it cannot go on serving
			// In this time a load balancer notices that the server is not
			// ready, and takes newcomers elsewhere, and then those who are sent
			// away. Only a second signal cuts it short, with the process.
			<-time.After(p.drain)
		}
		// The signal's context is over; the way out has its own limit.
		out, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownWait)
		defer cancel()
		var ends errgroup.Group
		pages.close() // they would be waited for
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
