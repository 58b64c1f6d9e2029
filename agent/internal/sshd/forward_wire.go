package sshd

import (
	"strings"

	"golang.org/x/crypto/ssh"
)

// Limits of what a client asks to be forwarded.
const (
	// maxHost is the longest name of a host, in bytes: that of DNS, with its
	// final dot.
	maxHost = 255
	// maxPort is the highest port.
	maxPort = 1<<16 - 1
	// maxSocketPath is the longest path of a Unix socket that is tried, in
	// bytes; the platforms have about 100.
	maxSocketPath = 1024
)

// address is a TCP address as a client writes it.
type address struct {
	host string
	port uint16
}

// newAddress checks the parts of an address. The host may be empty.
func newAddress(host string, port uint32) (address, error) {
	if len(host) > maxHost || strings.IndexFunc(host, notPrintable) >= 0 || port > maxPort {
		return address{}, errMalformed
	}
	return address{host, uint16(port)}, nil
}

// parseDirectTCP reads where a direct-tcpip channel goes (RFC 4254 §7.2).
// Where it comes from is the client's to say, and of no use here.
func parseDirectTCP(data []byte) (address, error) {
	var m struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}
	if ssh.Unmarshal(data, &m) != nil || m.Host == "" || m.Port == 0 {
		return address{}, errMalformed
	}
	return newAddress(m.Host, m.Port)
}

// parseBind reads a tcpip-forward or cancel-tcpip-forward (RFC 4254 §7.1).
func parseBind(payload []byte) (address, error) {
	var m struct {
		Host string
		Port uint32
	}
	if ssh.Unmarshal(payload, &m) != nil {
		return address{}, errMalformed
	}
	return newAddress(m.Host, m.Port)
}

// parseDirectSocket reads where a direct-streamlocal@openssh.com channel goes
// (OpenSSH's PROTOCOL, section 2.4).
func parseDirectSocket(data []byte) (string, error) {
	var m struct {
		Path         string
		Reserved     string
		ReservedPort uint32
	}
	if ssh.Unmarshal(data, &m) != nil {
		return "", errMalformed
	}
	return checkSocket(m.Path)
}

// parseSocket reads a streamlocal-forward@openssh.com or its cancel.
func parseSocket(payload []byte) (string, error) {
	path, err := parseString(payload)
	if err != nil {
		return "", err
	}
	return checkSocket(path)
}

// checkSocket refuses what cannot be a path.
func checkSocket(path string) (string, error) {
	if path == "" || len(path) > maxSocketPath || strings.IndexByte(path, 0) >= 0 {
		return "", errMalformed
	}
	return path, nil
}

// forwardedTCP is the data of a forwarded-tcpip channel (RFC 4254 §7.2): the
// address as the client asked for it, which is how it knows the forward.
func forwardedTCP(bound address, from address) []byte {
	return ssh.Marshal(struct {
		Host       string
		Port       uint32
		Origin     string
		OriginPort uint32
	}{bound.host, uint32(bound.port), from.host, uint32(from.port)})
}

// forwardedSocket is the data of a forwarded-streamlocal@openssh.com channel.
func forwardedSocket(path string) []byte {
	return ssh.Marshal(struct{ Path, Reserved string }{path, ""})
}
