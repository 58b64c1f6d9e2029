package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"example.com/converge/agent/internal/backend"
)

// duplex is a connection that can end in one direction.
type duplex interface {
	net.Conn
	CloseWrite() error
}

var (
	_ duplex = (*net.TCPConn)(nil)
	_ duplex = (*net.UnixConn)(nil)
)

// conn is a connection of this machine's.
type conn struct{ duplex }

// StopReading sets a deadline that has passed.
func (c conn) StopReading() { _ = c.SetReadDeadline(time.Unix(1, 0)) }

// Dial connects. It is the user who does: whatever a process of the job could
// reach is allowed.
func (p *place) Dial(ctx context.Context, network, address string) (backend.Conn, error) {
	if network == "unix" {
		address = p.path(address)
	}
	nc, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return conn{nc.(duplex)}, nil
}

// Listen listens.
func (p *place) Listen(_ context.Context, network, address string) ([]backend.Listener, error) {
	switch network {
	case "tcp":
		return backend.ListenLoopback(address, listenTCP)
	case "unix":
		l, err := listenSocket(p.path(address))
		if err != nil {
			return nil, err
		}
		return []backend.Listener{listener{Listener: l}}, nil
	}
	return nil, fmt.Errorf("network %q: %w", network, backend.ErrUnsupported)
}

func listenTCP(at netip.AddrPort) (backend.Listener, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	return listener{Listener: l}, nil
}

// ListenAgent listens in a folder that is nobody else's.
func (p *place) ListenAgent(context.Context) (backend.Listener, string, error) {
	if !hasAgents {
		return nil, "", backend.ErrUnsupported
	}
	dir, err := privateDir()
	if err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, "agent")
	l, err := listenSocket(path)
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, "", err
	}
	return listener{Listener: l, folder: dir}, path, nil
}

// listener listens at one address.
type listener struct {
	net.Listener
	// folder goes with it, unless it is "".
	folder string
}

func (l listener) Accept() (backend.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn{nc.(duplex)}, nil
}

func (l listener) Close() error {
	err := l.Listener.Close()
	if l.folder != "" {
		_ = os.RemoveAll(l.folder)
	}
	return err
}

// privateDir makes a folder that is nobody else's, with a path that is short
// enough for a socket in it.
func privateDir() (string, error) {
	// 104 bytes, with their end, are the least of our platforms.
	const most = 103 - len("/converge-0123456789/agent")
	var errs []error
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if !filepath.IsAbs(parent) || len(parent) > most {
			continue
		}
		dir, err := os.MkdirTemp(parent, "converge-") // 0700
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(append(errs, errors.New("no folder for a socket: set TMPDIR to a short path"))...)
}
