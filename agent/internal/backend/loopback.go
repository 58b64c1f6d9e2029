package backend

import (
	"net"
	"net/netip"
	"strconv"
)

// ListenLoopback is Listen for tcp, by a function that listens at one address:
// on loopback, as OpenSSH's server does by default (GatewayPorts no in
// sshd_config(5)).
func ListenLoopback(address string, listen func(netip.AddrPort) (Listener, error)) ([]Listener, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, err
	}
	at := func(ip netip.Addr, port uint16) (Listener, error) { return listen(netip.AddrPortFrom(ip, port)) }
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsLoopback() {
		l, err := at(ip, uint16(port))
		if err != nil {
			return nil, err
		}
		return []Listener{l}, nil
	}
	ip4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	four, err := at(ip4, uint16(port))
	if err != nil {
		if probe, perr := at(ip4, 0); perr == nil {
			// The port is taken, and half of it would only confuse.
			probe.Close()
			return nil, err
		}
		six, err := at(netip.IPv6Loopback(), uint16(port))
		if err != nil {
			return nil, err
		}
		return []Listener{six}, nil
	}
	both := []Listener{four}
	if six, err := at(netip.IPv6Loopback(), Port(four)); err == nil {
		both = append(both, six)
	}
	return both, nil
}

// Port is that of a listener, 0 if it has none.
func Port(l Listener) uint16 {
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return 0
	}
	return at.Port()
}
