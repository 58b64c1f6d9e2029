package sshd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

// dialTCP connects to the target of a direct-tcpip channel. It is the user
// who connects: whatever a process of the place could reach is allowed.
func dialTCP(c *conn, ctx context.Context, data []byte) (backend.Conn, error) {
	to, err := parseDirectTCP(data)
	if err != nil {
		return nil, err
	}
	return c.place.Dial(ctx, "tcp", net.JoinHostPort(to.host, strconv.Itoa(int(to.port))))
}

// startForward serves tcpip-forward.
func startForward(ctx gssh.Context, _ *gssh.Server, req *ssh.Request) (bool, []byte) {
	c := ctx.Value(connKey).(*conn)
	peer, ok := ctx.Value(gssh.ContextKeyConn).(ssh.Conn)
	bound, err := parseBind(req.Payload)
	if err != nil || !ok || !c.forwardsKind(RemoteForwarding) {
		return refuseRequest(ctx, nil, req)
	}
	asked := bound.port
	open := func() (*listener, string, error) {
		nets, err := c.place.Listen(c.alive, "tcp", net.JoinHostPort(bound.host, strconv.Itoa(int(bound.port))))
		if err != nil {
			return nil, "", err
		}
		bound.port = backend.Port(nets[0])
		return &listener{nets: nets}, boundName(bound), nil
	}
	answer := func() {
		var payload []byte
		if asked == 0 {
			// Only then has the answer a port (RFC 4254 §7.1).
			payload = ssh.Marshal(struct{ Port uint32 }{uint32(bound.port)})
		}
		answerNow(req, payload)
	}
	serve := func(nc backend.Conn) {
		var from address
		if a, err := netip.ParseAddrPort(nc.RemoteAddr().String()); err == nil {
			from = address{a.Addr().Unmap().String(), a.Port()}
		}
		c.forwardIn(peer, "forwarded-tcpip", forwardedTCP(bound, from), nc, true)
	}
	return c.startListening(ctx, req, open, answer, serve)
}

// stopForward serves cancel-tcpip-forward.
func stopForward(ctx gssh.Context, _ *gssh.Server, req *ssh.Request) (bool, []byte) {
	bound, err := parseBind(req.Payload)
	if err != nil || !ctx.Value(connKey).(*conn).unlisten(boundName(bound)) {
		return refuseRequest(ctx, nil, req)
	}
	return true, nil
}

// boundName is what a forward is known by: the address as the client asked for
// it and the port that it got.
func boundName(bound address) string { return fmt.Sprintf("tcp %d %s", bound.port, bound.host) }

// startListening listens, tells of it as of a forward, and answers the request
// unless it has been answered already.
func (c *conn) startListening(ctx gssh.Context, req *ssh.Request, open func() (*listener, string, error),
	answer func(), serve func(backend.Conn)) (bool, []byte) {
	id, events := c.info.ID, c.server.events
	_, err := c.listen(func() (*listener, string, error) {
		l, name, err := open()
		if err == nil {
			remove := l.remove
			events.ForwardOpened(id)
			l.remove = func() {
				if remove != nil {
					remove()
				}
				events.ForwardClosed(id)
			}
		}
		return l, name, err
	}, answer, serve)
	if err != nil {
		// The protocol has no room for a reason.
		c.server.log.Info("a remote forward was refused", "id", c.info.ID, "err", err)
		return refuseRequest(ctx, nil, req)
	}
	return true, nil
}

// answerNow says yes to a request whose handler has more to do. The library
// answers after the handler, unless the request wants none.
func answerNow(req *ssh.Request, payload []byte) {
	_ = req.Reply(true, payload)
	req.WantReply = false
}
