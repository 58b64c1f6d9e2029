// Package forward is the guest's mode forward-server: it listens or dials where it
// runs, inside a container, for a front end outside, which it talks to over its
// standard streams in the language of package mux.
//
// It ends when the front end does, and by itself when there is nothing left to
// forward. It knows nothing of SSH.
package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"example.com/converge/container/guest/mux"
	"example.com/converge/container/guest/wire"
)

const (
	// dialTimeout is how long dialing may take.
	dialTimeout = 30 * time.Second
	// maxConns is how many connections there may be at once.
	maxConns = 1024
	// retry is how long accepting rests when the machine has no descriptor left.
	retry = 100 * time.Millisecond
)

// Serve serves one front end over in and out, until in ends, or the front end wants
// no more connections and the last one is over. It closes in, and returns nil after
// either. A read of in that cannot be interrupted, as that of a process's standard
// input, is left behind: exit then. logger may be nil.
func Serve(ctx context.Context, in io.ReadCloser, out io.Writer, logger mux.Logger) error {
	if logger == nil {
		logger = mux.Discard{}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &server{ctx: ctx, log: logger, more: true, changed: make(chan struct{}, 1), conns: map[net.Conn]struct{}{}}
	type answer struct {
		session *mux.Session
		err     error
	}
	answered := make(chan answer, 1)
	var decided atomic.Bool // by the setup that came, or the end that did
	go func() {
		session, err := mux.Answer(in, out, mux.Config{Incoming: s.incoming, NoMore: s.noMore, Logger: logger},
			func(setup wire.Setup) (uint64, error) {
				if !decided.CompareAndSwap(false, true) {
					return 0, context.Canceled
				}
				return s.prepare(setup)
			})
		answered <- answer{session, err}
	}()
	var a answer
	select {
	case a = <-answered:
	case <-ctx.Done():
		if decided.CompareAndSwap(false, true) {
			_ = in.Close()
			return nil
		}
		a = <-answered
	}
	session, err := a.session, a.err
	if err != nil {
		s.stopListening()
		_ = in.Close()
		if errors.Is(err, io.EOF) { // nobody asked for anything
			return nil
		}
		return fmt.Errorf("set up forwarding: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- session.Run() }()
	if s.listener != nil {
		s.workers.Go(func() { s.accept(session) })
	}
	for {
		select {
		case err = <-ended:
		case <-ctx.Done():
		case <-s.changed:
			if s.busy() {
				continue
			}
		}
		break
	}
	cancel()
	s.stopListening()
	session.Close()
	_ = in.Close()
	lingering := time.AfterFunc(endLinger, s.closeAll)
	s.workers.Wait()
	lingering.Stop()
	if err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return nil
}

// server is one run.
type server struct {
	ctx      context.Context
	log      mux.Logger
	setup    wire.Setup
	listener net.Listener // nil where we dial
	port     uint64       // that it listens on, if it does on one
	workers  sync.WaitGroup
	changed  chan struct{} // has a token when busy may have another answer

	mu     sync.Mutex
	more   bool // connections may begin
	active int  // connections, and those about to be
	conns  map[net.Conn]struct{}
}

// prepare does what the front end's setup says. The front end is told that it
// succeeded once somebody can connect.
func (s *server) prepare(setup wire.Setup) (port uint64, err error) {
	s.setup = setup
	switch setup.ConnectionType {
	case wire.ConnectionPortDial, wire.ConnectionSocketDial:
		return 0, nil
	case wire.ConnectionX11:
		if err := addCookie(s.ctx, setup); err != nil {
			return 0, err
		}
		s.setup.Protocol, s.setup.BindHost, s.setup.BindPort = wire.ProtocolTCP, "127.0.0.1", x11Port
	case wire.ConnectionPortForward:
	case wire.ConnectionSocketForward:
		if setup.Protocol == "" {
			s.setup.Protocol = wire.ProtocolUnix
		}
	default:
		return 0, fmt.Errorf("connection type %d is not known: use 0 to 4", setup.ConnectionType)
	}
	network, address, err := target(s.setup.Protocol, s.setup.BindHost, s.setup.BindPort)
	if err != nil {
		return 0, err
	}
	if network == wire.ProtocolUnix {
		s.listener, err = listenUnix(address)
	} else {
		s.listener, err = net.Listen(network, address)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot listen on %s: %w", address, err)
	}
	if bound, ok := s.listener.Addr().(*net.TCPAddr); ok {
		s.port = uint64(bound.Port)
	}
	s.log.Debug("listening", "address", s.listener.Addr())
	return s.port, nil
}

// target is what package net takes for an address of the wire's.
func target(protocol, host string, port uint64) (network, address string, err error) {
	switch protocol {
	case wire.ProtocolUnix:
		if host == "" {
			return "", "", errors.New("a unix socket needs a path")
		}
		return protocol, host, nil
	case wire.ProtocolTCP, "":
		if port > math.MaxUint16 {
			return "", "", fmt.Errorf("port %d is beyond 65535", port)
		}
		if host == "*" { // RFC 4254 section 7.1 writes it as the empty string
			host = ""
		}
		// In brackets it is written in URLs, and JoinHostPort adds some.
		if inner, ok := strings.CutPrefix(host, "["); ok {
			host = strings.TrimSuffix(inner, "]")
		}
		return wire.ProtocolTCP, net.JoinHostPort(host, strconv.FormatUint(port, 10)), nil
	}
	return "", "", fmt.Errorf("protocol %q is not known: use tcp or unix", protocol)
}

// accept opens a connection to the front end for each that comes.
func (s *server) accept(session *mux.Session) {
	defer s.stopListening()
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			s.log.Warn("cannot accept a connection", "error", err)
			select {
			case <-time.After(retry):
				continue
			case <-s.ctx.Done():
				return
			}
		}
		if !s.begin() {
			_ = conn.Close()
			continue
		}
		what := wire.New{Protocol: s.setup.Protocol, ConnectedAddress: s.setup.BindHost, ConnectedPort: s.port}
		if peer, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			what.OriginatorAddress, what.OriginatorPort = peer.IP.String(), uint64(peer.Port)
		}
		stream, err := session.Open(what)
		if err != nil {
			s.finish()
			_ = conn.Close()
			return
		}
		s.workers.Go(func() {
			defer s.finish()
			s.join(stream, conn)
		})
		if s.setup.SingleConnection {
			return
		}
	}
}

// incoming dials what the front end has opened.
func (s *server) incoming(stream *mux.Stream) {
	if s.listener != nil {
		_ = stream.Reject("connections are opened from the other side only")
		return
	}
	if !s.begin() {
		_ = stream.Reject("no more connections are taken")
		return
	}
	s.workers.Go(func() {
		defer s.finish()
		conn, err := s.dial(stream.What())
		if err != nil {
			s.log.Info("cannot connect", "error", err)
			_ = stream.Reject(err.Error())
			return
		}
		if err := stream.Accept(); err != nil { // the front end has lost interest
			_ = conn.Close()
			return
		}
		s.join(stream, conn)
	})
}

func (s *server) dial(what wire.New) (net.Conn, error) {
	protocol := what.Protocol
	if protocol == "" && s.setup.ConnectionType == wire.ConnectionSocketDial {
		protocol = wire.ProtocolUnix
	}
	network, address, err := target(protocol, what.ConnectedAddress, what.ConnectedPort)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	return dialer.DialContext(s.ctx, network, address)
}

// begin counts a connection in, unless there may be no more.
func (s *server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.more || s.active >= maxConns {
		return false
	}
	s.active++
	return true
}

func (s *server) finish() {
	s.mu.Lock()
	s.active--
	s.mu.Unlock()
	s.wake()
}

// noMore is the front end's word; the connections that are there stay.
func (s *server) noMore() {
	if s.listener != nil {
		s.stopListening()
		return
	}
	s.end()
}

func (s *server) stopListening() {
	if s.listener != nil {
		_ = s.listener.Close()
	}
	s.end()
}

func (s *server) end() {
	s.mu.Lock()
	s.more = false
	s.mu.Unlock()
	s.wake()
}

func (s *server) wake() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// busy reports whether there is, or may be, something to forward.
func (s *server) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.more || s.active > 0
}
