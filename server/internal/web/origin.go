package web

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const (
	// fallbackHost stands for a host that a request did not give or gave in a
	// form that must not be repeated. It names no address of this machine: that
	// would tell a stranger what lies behind a proxy.
	fallbackHost = "localhost"

	maxHostLength   = 253 // RFC 1035 §2.3.4, in its text form
	maxPrefixLength = 256
)

var (
	// hostName is stricter than RFC 3986 §3.2.2, which allows nearly anything:
	// what passes can stand in HTML, in a URL and in a shell word. The
	// underscore is no host name character, but container networks use it.
	hostName = regexp.MustCompile(`^[a-z0-9_](?:[a-z0-9_-]*)(?:\.[a-z0-9_][a-z0-9_-]*)*\.?$`)

	// prefixSegment holds the unreserved characters of RFC 3986 §2.3: these
	// need no escaping in a path and mean nothing to ssh's percent expansion.
	prefixSegment = regexp.MustCompile(`^[A-Za-z0-9._~-]+$`)
)

// Origin is how a requester addresses this server: what stands before the
// server's own paths in a URL. Its fields are validated by whoever makes it, so
// that they can be printed in pages and in command lines.
type Origin struct {
	Secure bool   // https and wss instead of http and ws
	Host   string // host or host:port; an IPv6 address is in brackets
	Prefix string // "" or a path with a leading and no trailing slash
}

// HTTP returns the URL of the server's root without a trailing slash, such as
// https://host/prefix.
func (o Origin) HTTP() string { return o.url("http") }

// WS returns the websocket URL of the server's root without a trailing slash,
// such as wss://host/prefix.
func (o Origin) WS() string { return o.url("ws") }

func (o Origin) url(scheme string) string {
	if o.Secure {
		scheme += "s"
	}
	return scheme + "://" + o.Host + o.Prefix
}

// Origins tells how a requester addresses this server and from where. The nil
// value knows no public URL and trusts no proxy. It is immutable and may be
// used concurrently.
type Origins struct {
	public  *Origin
	trusted []netip.Prefix
}

// NewOrigins makes an Origins. publicURL, if not empty, is the http or https
// URL under which everybody reaches the server; it wins over what requests
// say. trustedProxies lists addresses (10.1.2.3, ::1) and ranges (10.0.0.0/8)
// of reverse proxies whose X-Forwarded-For, -Proto, -Host and -Prefix headers
// count. Such a proxy must set these headers, or drop what the requester sent.
func NewOrigins(publicURL string, trustedProxies []string) (*Origins, error) {
	o := &Origins{}
	if publicURL != "" {
		p, err := parsePublicURL(publicURL)
		if err != nil {
			return nil, err
		}
		o.public = &p
	}
	for _, s := range trustedProxies {
		p, err := parseRange(strings.TrimSpace(s))
		if err != nil {
			return nil, err
		}
		o.trusted = append(o.trusted, p)
	}
	return o, nil
}

func parsePublicURL(s string) (Origin, error) {
	named := strconv.Quote(s)
	if strings.Contains(s, "@") {
		named = "given" // there may be a password in it
	}
	bad := func(what string) (Origin, error) {
		return Origin{}, fmt.Errorf("read the public URL %s: %s", named, what)
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("it is not a URL; give one such as https://converge.example.org")
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return bad("start it with http:// or https://")
	}
	if u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(s, "#") {
		return bad("leave out user, query and fragment")
	}
	host, ok := cleanHost(u.Host)
	if !ok {
		return bad("its host must be a name or an address, with a port from 1 to 65535 if any")
	}
	prefix, ok := cleanPrefix(u.EscapedPath())
	if !ok {
		return bad("its path may have only letters, digits and . _ ~ - between single slashes")
	}
	return Origin{Secure: u.Scheme == "https", Host: host, Prefix: prefix}, nil
}

func parseRange(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("read the trusted proxy %q: give an address such as 10.1.2.3 or a range such as 10.0.0.0/8", s)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Of returns the Origin by which r addresses this server. Nothing in it is
// taken over unchecked: a host that is none becomes localhost, a prefix that is
// none becomes empty.
//
// Where a trusted proxy's header holds a list, its last entry counts, since
// that is the one which the proxy itself wrote.
func (o *Origins) Of(r *http.Request) Origin {
	if o != nil && o.public != nil {
		return *o.public
	}
	origin := Origin{Secure: r.TLS != nil}
	host, hostOK := cleanHost(r.Host)
	if o.trusts(peer(r)) {
		switch strings.ToLower(lastValue(r.Header, "X-Forwarded-Proto")) {
		case "https", "wss":
			origin.Secure = true
		case "http", "ws":
			origin.Secure = false
		}
		if h, ok := cleanHost(lastValue(r.Header, "X-Forwarded-Host")); ok {
			host, hostOK = h, true
		}
		if p, ok := cleanPrefix(lastValue(r.Header, "X-Forwarded-Prefix")); ok {
			origin.Prefix = p
		}
	}
	if !hostOK {
		host = fallbackHost
	}
	origin.Host = host
	return origin
}

// ClientIP returns the requester's address: the peer's, or where the peer is a
// trusted proxy the right-most X-Forwarded-For entry that is none. An entry
// that is no address ends the search, and the nearest hop that was understood
// is returned. IPv4 addresses come in their 4-byte form, without a zone. The
// result is the zero Addr if the request has no address, as over a Unix socket.
func (o *Origins) ClientIP(r *http.Request) netip.Addr {
	client := peer(r)
	if !o.trusts(client) {
		return client
	}
	lines := r.Header.Values("X-Forwarded-For")
	for i := len(lines) - 1; i >= 0; i-- {
		rest, more := lines[i], true
		for more {
			var entry string
			rest, entry, more = cutLast(rest)
			hop := parseHop(entry)
			if !hop.IsValid() {
				return client
			}
			client = hop
			if !o.trusts(client) {
				return client
			}
		}
	}
	return client
}

func (o *Origins) trusts(a netip.Addr) bool {
	if o == nil || !a.IsValid() {
		return false
	}
	for _, p := range o.trusted {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// peer is the address at the other end of r's connection.
func peer(r *http.Request) netip.Addr {
	return parseHop(r.RemoteAddr)
}

// parseHop reads an address with or without a port: 10.1.2.3, 10.1.2.3:4,
// ::1, [::1], [::1]:4. It returns the zero Addr for anything else.
func parseHop(s string) netip.Addr {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		s = s[1 : len(s)-1]
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap().WithZone("")
}

// cutLast splits a comma-separated list before its last entry.
func cutLast(list string) (before, last string, more bool) {
	i := strings.LastIndexByte(list, ',')
	if i < 0 {
		return "", strings.TrimSpace(list), false
	}
	return list[:i], strings.TrimSpace(list[i+1:]), true
}

// lastValue returns the last entry of a header that may be a list or repeated.
func lastValue(h http.Header, name string) string {
	lines := h.Values(name)
	if len(lines) == 0 {
		return ""
	}
	_, last, _ := cutLast(lines[len(lines)-1])
	return last
}

// cleanHost validates host[:port] and returns it in lower case.
func cleanHost(s string) (string, bool) {
	host, port := s, ""
	// The colons inside an IPv6 address's brackets begin no port.
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return "", false
		}
		port = ":" + port
	}
	if len(host) > maxHostLength {
		return "", false
	}
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		a, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !a.Is6() || a.Zone() != "" {
			return "", false
		}
		return "[" + a.String() + "]" + port, true
	}
	host = strings.ToLower(host)
	if !hostName.MatchString(host) {
		return "", false
	}
	return host + port, true
}

// cleanPrefix validates a path prefix and gives it a leading and no trailing
// slash; the root is "".
func cleanPrefix(s string) (string, bool) {
	if len(s) > maxPrefixLength {
		return "", false
	}
	s = strings.TrimSuffix(strings.TrimPrefix(s, "/"), "/")
	if s == "" {
		return "", true
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "." || segment == ".." || !prefixSegment.MatchString(segment) {
			return "", false
		}
	}
	return "/" + s, true
}
