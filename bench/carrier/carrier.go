// Package carrier holds the ways in which clients' streams travel, so that one
// SSH server and one raw far end can be measured behind each of them: plain
// TCP, Converge's own rendezvous, nhooyr's NetConn with a websocket for each
// client, and yamux on the agent's websocket. It must not know what is spoken
// on the streams nor how anything is measured.
//
// It is not internal because a program that is built into the agent's module,
// and for that reason can use the agent's SSH server, imports it as well.
package carrier

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"example.com/converge/pkg/frame"
)

// Kind names a way in which streams come to the far end.
type Kind string

// The ways. TCP listens; the others call out to a relay.
const (
	TCP      Kind = "tcp"
	Converge Kind = "converge"
	Nhooyr   Kind = "nhooyr"
	Yamux    Kind = "yamux"
)

// Paths of the relays of this module. A client's is Converge's own, so that
// every client program takes it.
const (
	AgentPath  = "/agent/"
	ClientPath = "/client/"
	DataPath   = "/data/"
)

// Chunk is how much the ends write at a time, in bytes, and the buffer of the
// copying relays: what io.Copy and sftp use.
const Chunk = 32 << 10

// End is the far end of a carrier.
type End struct {
	Kind Kind
	// Address is HOST:PORT: of TCP where to listen, else the relay's.
	Address string
	// ID is the name to register under; TCP has none.
	ID string
	// Ready is called once, when clients can come, with the address.
	Ready func(address string)
	// Handle is called in a goroutine of its own for each client. The
	// connection is closed when it returns.
	Handle func(net.Conn)
}

// Serve brings clients in until ctx ends, which is no error. It closes their
// connections then and waits for the Handle calls.
func (e End) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var err error
	switch e.Kind {
	case TCP:
		err = e.serveTCP(ctx)
	case Converge:
		err = e.serveConverge(ctx)
	case Nhooyr:
		err = e.serveNhooyr(ctx)
	case Yamux:
		err = e.serveYamux(ctx)
	default:
		return fmt.Errorf("no carrier is called %q: use tcp, converge, nhooyr or yamux", e.Kind)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// handle runs Handle on a connection that ends with ctx.
func (e End) handle(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close()
	e.Handle(conn)
}

func (e End) serveTCP(ctx context.Context) error {
	listener, err := net.Listen("tcp", e.Address)
	if err != nil {
		return err
	}
	defer listener.Close()
	e.Ready(listener.Addr().String())
	return e.accept(ctx, listener)
}

// accept serves a listener, which it closes when ctx ends.
func (e End) accept(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		clients.Go(func() { e.handle(ctx, conn) })
	}
}

// DialWS opens a client's stream to the agent id over websocket, as wsproxy
// does. address is HOST:PORT. ctx bounds the handshake.
func DialWS(ctx context.Context, address, id string) (net.Conn, error) {
	return frame.Dial(ctx, "ws://"+address+ClientPath+id, plainTransport(), nil, frame.Options{})
}

// plainTransport dials directly and keeps nothing open. No proxy: what is
// measured is on this machine.
func plainTransport() *http.Transport { return &http.Transport{DisableKeepAlives: true} }
