// Package box runs users' programs in containers, by the library container: a
// container for each connection or session, or one that runs already. The agent's
// own executable, or another guest, is copied there, so that any image serves.
//
// It must not know SSH. Where containers differ from the agent's machine: programs
// have the container's environment, not the job's; terminal modes and sizes in
// pixels cannot be set; a program that is left is killed two seconds after it was
// hung up on, and all end with their container. The file .hold, by which a session
// is kept, is the agent's: it lies where the agent runs, and programs in a container
// cannot touch it unless a mount brings its folder there.
package box

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/container"
)

// lastEffort is how long the end of a place may take when the owner waits for
// nothing any more: to kill what runs and to remove containers. What is left then
// is swept by the next agent.
const lastEffort = 2 * time.Second

// Backend makes places in containers.
type Backend struct {
	cfg                container.Config
	log                *slog.Logger
	requests, failures container.Counter
}

var _ backend.Backend = (*Backend)(nil)

// New returns the back end. The error says in a sentence what does not fit together
// in the configuration; the engine is not asked anything. The logger may be nil, and
// so may the counters, of requests to the engine and of those that failed.
func New(cfg container.Config, log *slog.Logger, requests, failures container.Counter) (*Backend, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Backend{cfg: cfg, log: log, requests: requests, failures: failures}, nil
}

// Check says what keeps sessions from beginning, if the engine knows that already.
func (b *Backend) Check(ctx context.Context) error { return container.Check(ctx, b.cfg) }

// Sweep removes the containers of agents that were killed before they could, and
// returns how many it removed.
func (b *Backend) Sweep(ctx context.Context) (int, error) {
	return container.Sweep(ctx, b.cfg, b.log)
}

// Name names the image, or the container.
func (b *Backend) Name() string {
	e := &b.cfg.Execution
	if label, ok := strings.CutPrefix(e.Existing, "label="); ok {
		return "the container with label " + label
	}
	if e.Existing != "" {
		return "the container " + e.Existing
	}
	return "a container of " + cmp.Or(e.Image, e.Container.Image)
}

// Shell is the configuration's; without it it differs by image.
func (b *Backend) Shell() string {
	if line := b.cfg.Execution.ShellCommand; len(line) > 0 {
		return line[0]
	}
	return ""
}

// Terminals are the engine's to make.
func (*Backend) Terminals() error { return nil }

// Subsystem knows those of the configuration.
func (b *Backend) Subsystem(name string) bool {
	_, ok := b.cfg.Execution.Subsystems[name]
	return ok && name != "sftp"
}

// Begin makes or finds the container.
func (b *Backend) Begin(peer backend.Peer, owner backend.Owner) backend.Place {
	p := &place{backend: b, owner: owner, ready: make(chan struct{})}
	cfg := b.cfg
	if _, given := cfg.Execution.Subsystems["sftp"]; peer.ReadOnlyFiles && given {
		p.noFiles = fmt.Errorf("sftp is read-only here, of which the configured sftp server does not know: %w", backend.ErrUnsupported)
	} else {
		cfg.Execution.ReadOnlySFTP = peer.ReadOnlyFiles
	}
	var client net.TCPAddr
	if at, err := netip.ParseAddrPort(peer.Remote); err == nil {
		client = *net.TCPAddrFromAddrPort(at)
	}
	if p.handler, p.err = container.New(client, peer.ID, cfg, b.log, b.requests, b.failures); p.err != nil {
		close(p.ready)
		return p
	}
	owner.Go(func() {
		defer close(p.ready)
		p.connection, p.err = p.handler.OnHandshakeSuccess(peer.User)
	})
	return p
}

// place is the container of a connection, or those of its sessions.
type place struct {
	backend *Backend
	owner   backend.Owner
	// handler is nil if the configuration was refused.
	handler *container.Handler
	noFiles error
	// channels counts sessions.
	channels atomic.Uint64

	// ready is closed when the rest is known.
	ready      chan struct{}
	connection *container.Connection
	err        error
}

// wait waits for the container.
func (p *place) wait(ctx context.Context) (*container.Connection, error) {
	select {
	case <-p.ready:
		return p.connection, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the container is not there yet: %w", context.Cause(ctx))
	}
}

// End removes the container, and with it whatever runs; in one that is not ours, what
// the connection has left is killed.
func (p *place) End() {
	if p.handler == nil {
		return
	}
	done := make(chan struct{})
	p.owner.Go(func() {
		select {
		case <-p.owner.Kill:
			p.handler.Hurry(lastEffort)
		case <-done:
		}
	})
	p.handler.OnDisconnect()
	close(done)
}

// failure is what a user is told. It has the engine's own words: who is let in here
// is let in to find out why something failed, and may do anything in the container.
func failure(err error) error {
	return fmt.Errorf("%s %w", container.UserMessage, err)
}
