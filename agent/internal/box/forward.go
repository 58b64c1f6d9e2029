package box

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"example.com/converge/agent/internal/backend"
	"example.com/converge/container"
)

// conn is a connection of the container's.
type conn struct{ duplex }

// duplex is as much as the library's connections can do.
type duplex interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
}

func (c conn) StopReading() { _ = c.CloseRead() }

// Dial connects in the container's network, or to a socket in it.
func (p *place) Dial(ctx context.Context, network, address string) (backend.Conn, error) {
	c, err := p.wait(ctx)
	if err != nil {
		return nil, failure(err)
	}
	if network == "unix" {
		address = relative(address)
	}
	nc, err := c.Dial(ctx, network, address)
	if err != nil {
		return nil, reason(err)
	}
	return conn{nc.(duplex)}, nil
}

// relative makes a path that is no name in Linux's abstract namespace. It starts
// where the container's programs do.
func relative(path string) string {
	if strings.HasPrefix(path, "/") {
		return path
	}
	return "./" + path
}

// reason is an error without what was tried, which whoever tried knows.
func reason(err error) error {
	if tried := new(container.Error); errors.As(err, &tried) {
		err = tried.Err
	}
	if errors.Is(err, container.ErrUnsupported) {
		return unsupported{err}
	}
	return err
}

// unsupported is a container.ErrUnsupported that is a backend.ErrUnsupported.
type unsupported struct{ error }

func (e unsupported) Is(target error) bool { return target == backend.ErrUnsupported }

func (e unsupported) Unwrap() error { return e.error }

// Listen listens in the container.
func (p *place) Listen(ctx context.Context, network, address string) ([]backend.Listener, error) {
	c, err := p.wait(ctx)
	if err != nil {
		return nil, failure(err)
	}
	switch network {
	case "tcp":
		return backend.ListenLoopback(address, func(at netip.AddrPort) (backend.Listener, error) {
			return listen(ctx, c, "tcp", at.String())
		})
	case "unix":
		l, err := listen(ctx, c, "unix", relative(address))
		if err != nil {
			return nil, err
		}
		return []backend.Listener{l}, nil
	}
	return nil, fmt.Errorf("network %q: %w", network, backend.ErrUnsupported)
}

// agentFolders are where an image may have a folder that programs may write to;
// engines make the last one in every container.
var agentFolders = []string{"/tmp", "/run", "/dev/shm"}

// ListenAgent listens at a path that nobody can guess, to which only the user of
// the container's programs, and root, can connect.
func (p *place) ListenAgent(ctx context.Context) (backend.Listener, string, error) {
	c, err := p.wait(ctx)
	if err != nil {
		return nil, "", failure(err)
	}
	random := make([]byte, 10)
	_, _ = rand.Read(random) // never fails
	var errs []error
	for _, folder := range agentFolders {
		path := folder + "/converge-agent-" + hex.EncodeToString(random)
		l, err := listen(ctx, c, "unix", path)
		if err == nil {
			return l, path, nil
		}
		errs = append(errs, err)
		if errors.Is(err, backend.ErrUnsupported) {
			break
		}
	}
	return nil, "", errors.Join(errs...)
}

func listen(ctx context.Context, c *container.Connection, network, address string) (backend.Listener, error) {
	l, err := c.Listen(ctx, network, address)
	if err != nil {
		return nil, reason(err)
	}
	return listener{l}, nil
}

// listener listens in the container.
type listener struct{ net.Listener }

func (l listener) Accept() (backend.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{nc.(duplex)}, nil
}
