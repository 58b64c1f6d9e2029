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
	// Dial opens the far end of one connection, and tells what becomes of it:
	// see clientend.Target.
	Dial func(ctx context.Context, on *clientend.Events) (net.Conn, error)
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

// journal logs what becomes of one connection, with the ids of its session, by
// which the server's and the agent's logs have it too.
type journal struct {
	log *slog.Logger

	mu             sync.Mutex
	session, first string // of the present connection; "" where there are none
}

// logger is log with the ids.
func (j *journal) logger() *slog.Logger {
	j.mu.Lock()
	defer j.mu.Unlock()
	log := j.log
	if j.session != "" {
		log = log.With("session", j.session)
	}
	if j.first != "" {
		log = log.With("first", j.first)
	}
	return log
}

func (j *journal) events() *clientend.Events {
	return &clientend.Events{
		Session: func(id, first string) {
			j.mu.Lock()
			j.session, j.first = id, first
			j.mu.Unlock()
			if first != "" {
				j.logger().Info("going on over a new connection")
			}
		},
		Notice: func(n resume.Notice) {
			if n.State == resume.Stalled {
				why := ""
				if n.Err != nil {
					why = transport.Printable(n.Err.Error())
				}
				j.logger().Warn("connection lost: reconnecting", "window", n.Window, "err", why)
				return
			}
			j.logger().Info("connected again")
		},
	}
}

// handle joins one connection.
func (f *Forwarder) handle(ctx context.Context, local net.Conn) {
	defer local.Close()
	// Whatever waits for local below ends with ctx.
	stop := context.AfterFunc(ctx, func() { _ = local.Close() })
	defer stop()
	j := &journal{log: f.Logger.With("local", local.RemoteAddr().String())}
	remote, err := f.Dial(ctx, j.events())
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		j.logger().Error("cannot connect", "err", err)
		if !f.Raw {
			sayInSSH(local, err.Error())
		}
		return
	}
	j.logger().Info("connected")
	err = clientend.Join(ctx, remote, clientend.Local{In: local, Out: local})
	drain(local)
	if err != nil {
		j.logger().Warn("connection ended", "err", err)
		return
	}
	j.logger().Info("connection ended")
}
