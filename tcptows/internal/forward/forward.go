// Package forward joins each connection of a listener to a stream of its own.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"example.com/converge/pkg/clientend"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/transport"
)

// The waits after an accept that failed for a reason that passes, such as a
// lack of descriptors, double from the first to the longest.
const (
	firstPause  = 5 * time.Millisecond
	acceptPause = time.Second
)

// Forwarder accepts and joins. Its fields are set before Serve.
type Forwarder struct {
	// Dial opens the far end of one connection, and calls notice, in turn, when
	// that stalls and when it is back.
	Dial func(ctx context.Context, notice func(resume.Notice)) (net.Conn, error)
	// Raw says that the far end need not speak SSH, so a local client cannot
	// be told in SSH's words what went wrong.
	Raw bool
	// Logger must not be nil.
	Logger *slog.Logger
}

// Serve accepts until ctx ends, then closes the listener and all connections
// and waits for them, a second or so where a far end takes nothing any more. An
// error means that it could not go on accepting.
func (f *Forwarder) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	defer cancel() // before the wait
	pause := firstPause
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot go on accepting connections: %w", err)
		case err != nil:
			f.Logger.Warn("cannot accept a connection: trying again", "err", err)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
			}
			pause = min(2*pause, acceptPause)
			continue
		}
		pause = firstPause
		connections.Go(func() { f.handle(ctx, conn) })
	}
}

// notices logs that a connection stalls and that it is back.
func notices(log *slog.Logger) func(resume.Notice) {
	return func(n resume.Notice) {
		if n.State == resume.Stalled {
			why := ""
			if n.Err != nil {
				why = transport.Printable(n.Err.Error())
			}
			log.Warn("connection lost: reconnecting", "window", n.Window, "err", why)
			return
		}
		log.Info("connected again")
	}
}

// handle joins one connection.
func (f *Forwarder) handle(ctx context.Context, local net.Conn) {
	defer local.Close()
	// Whatever waits for local below ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = local.Close() })
	defer stop()
	log := f.Logger.With("local", local.RemoteAddr().String())
	remote, err := f.Dial(ctx, notices(log))
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		log.Error("cannot connect", "err", err)
		if !f.Raw {
			sayInSSH(local, err.Error())
		}
		return
	}
	log.Info("connected")
	err = clientend.Join(ctx, remote, clientend.Local{In: local, Out: local})
	drain(local)
	if err != nil {
		log.Warn("connection ended", "err", err)
		return
	}
	log.Info("connection ended")
}
