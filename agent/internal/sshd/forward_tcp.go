package sshd

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"
)

// dialTCP connects to the target of a direct-tcpip channel. It is the user
// who connects: whatever a process of the job could reach is allowed.
func dialTCP(c *conn, ctx gssh.Context, data []byte) (duplex, error) {
	to, err := parseDirectTCP(data)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: c.server.dialTimeout}
	nc, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(to.host, strconv.Itoa(int(to.port))))
	if err != nil {
		return nil, err
	}
	return nc.(*net.TCPConn), nil
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
		nets, port, err := listenTCP(bound.host, bound.port)
		bound.port = port
		return &listener{nets: nets}, boundName(bound), err
	}
	answer := func() {
		var payload []byte
		if asked == 0 {
			// Only then has the answer a port (RFC 4254 §7.1).
			payload = ssh.Marshal(struct{ Port uint32 }{uint32(bound.port)})
		}
		answerNow(req, payload)
	}
	serve := func(nc duplex) {
		var from address
		if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
			from = address{a.IP.String(), uint16(a.Port)}
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
	answer func(), serve func(duplex)) (bool, []byte) {
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

// listenTCP listens on loopback, as OpenSSH's server does by default
// (GatewayPorts no in sshd_config(5)): at the loopback address that the client
// named, or else at those of both families. It returns the port that it got.
func listenTCP(host string, port uint16) ([]net.Listener, uint16, error) {
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		l, got, err := listenAt(ip, port)
		return []net.Listener{l}, got, err
	}
	four, got, err := listenAt(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
	if err != nil {
		if probe, _, perr := listenAt(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0); perr == nil {
			// The port is taken, and half of it would only confuse.
			probe.Close()
			return nil, 0, err
		}
		six, got, err := listenAt(netip.IPv6Loopback(), port)
		return []net.Listener{six}, got, err
	}
	nets := []net.Listener{four}
	if six, _, err := listenAt(netip.IPv6Loopback(), got); err == nil {
		nets = append(nets, six)
	}
	return nets, got, nil
}

func listenAt(ip netip.Addr, port uint16) (*net.TCPListener, uint16, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port)))
	if err != nil {
		return nil, 0, err
	}
	return l, uint16(l.Addr().(*net.TCPAddr).Port), nil
}
