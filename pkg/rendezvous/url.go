package rendezvous

import (
	"fmt"
	"net/url"
	"strings"
)

// Paths of the server, below its prefix.
const (
	AgentPath  = "/agent/"
	ClientPath = "/client/"
	DataPath   = "/data"
)

// Headers of an agent's dial-back, with the values of a Dial message.
const (
	ClientHeader = "Converge-Client"
	TokenHeader  = "Converge-Token"
)

// SessionHeader carries the id of a client's session: from the server in every
// answer to a client's handshake that it has looked at, and from a client that
// comes back in its handshake, where it is the id of the stream's first
// connection.
const SessionHeader = "Converge-Session"

// KeyHeader is the header of a registration's handshake in which an agent names
// its run key, unpadded base64url of 32 bytes: where that stands for a
// credential it is believed once the proof has come.
const KeyHeader = "Converge-Key"

// Server is a rendezvous server as its users address it.
type Server struct {
	// Secure is whether wss is spoken.
	Secure bool
	// Host is a host name or address with an optional port.
	Host string
	// Prefix is the path that the server is mounted at: empty, or a slash and
	// segments without one at the end. It holds nothing to escape.
	Prefix string
}

// String returns the server's websocket URL.
func (s Server) String() string {
	scheme := "ws"
	if s.Secure {
		scheme = "wss"
	}
	return scheme + "://" + s.Host + s.Prefix
}

// AgentURL is where an agent registers. The id must be valid.
func (s Server) AgentURL(id string) string { return s.String() + AgentPath + id }

// ClientURL is where a client reaches the agent. The id must be valid.
func (s Server) ClientURL(id string) string { return s.String() + ClientPath + id }

// DataURL is where an agent dials back to.
func (s Server) DataURL() string { return s.String() + DataPath }

// ParseAgentURL splits ws[s]://HOST[/PREFIX]/agent/ID, or the same without
// /agent/ID, in which case the id is empty. The id is what follows the first
// /agent/.
func ParseAgentURL(raw string) (s Server, id string, err error) {
	s, path, err := parse(raw)
	if err != nil {
		return Server{}, "", err
	}
	prefix, id, found := strings.Cut(path, AgentPath)
	switch {
	case found && id != "":
		if err := ValidID(id); err != nil {
			return Server{}, "", fmt.Errorf("cannot use the URL: %w", err)
		}
	case strings.Contains(path, ClientPath):
		return Server{}, "", fmt.Errorf("the URL is a client's: an agent registers at %s://HOST/agent/ID", scheme(s))
	case !found:
		prefix = strings.TrimSuffix(path, "/agent")
	}
	s.Prefix = strings.TrimRight(prefix, "/")
	return s, id, s.checkPrefix()
}

// ParseClientURL splits ws[s]://HOST[/PREFIX]/client/ID. The id is what
// follows the first /client/.
func ParseClientURL(raw string) (s Server, id string, err error) {
	s, path, err := parse(raw)
	if err != nil {
		return Server{}, "", err
	}
	prefix, id, found := strings.Cut(path, ClientPath)
	if !found {
		return Server{}, "", fmt.Errorf("the URL's path must be /client/ID, as the agent printed it")
	}
	if err := ValidID(id); err != nil {
		return Server{}, "", fmt.Errorf("cannot use the URL: %w", err)
	}
	s.Prefix = strings.TrimRight(prefix, "/")
	return s, id, s.checkPrefix()
}

// CheckURL checks what every websocket URL given by a user must satisfy: a ws
// or wss scheme, a host, no user information and no fragment. Secrets do not
// belong in URLs, which end up in process lists and logs.
func CheckURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		// The parser's own text quotes the URL, which may hold a password.
		return nil, fmt.Errorf("the URL cannot be parsed: it must look like ws://HOST/PATH")
	}
	switch {
	case u.Scheme != "ws" && u.Scheme != "wss":
		return nil, fmt.Errorf("the URL's scheme is %q: it must be ws or wss", u.Scheme)
	case u.Hostname() == "":
		return nil, fmt.Errorf("the URL has no host: it must look like %s://HOST/PATH", u.Scheme)
	case u.User != nil:
		return nil, fmt.Errorf("the URL holds a user name or password: use --header @FILE for credentials")
	case u.Fragment != "" || u.RawFragment != "":
		return nil, fmt.Errorf("the URL has a fragment (#…), which this version does not use")
	}
	return u, nil
}

func parse(raw string) (Server, string, error) {
	u, err := CheckURL(raw)
	if err != nil {
		return Server{}, "", err
	}
	if u.RawQuery != "" || u.ForceQuery {
		return Server{}, "", fmt.Errorf("the URL has a query (?…), which a Converge URL has not")
	}
	if !only(u.Host, ".-_:[]") {
		return Server{}, "", fmt.Errorf("the URL's host may hold only letters, digits and . - _ and a port")
	}
	return Server{Secure: u.Scheme == "wss", Host: u.Host}, u.EscapedPath(), nil
}

func scheme(s Server) string {
	if s.Secure {
		return "wss"
	}
	return "ws"
}

// checkPrefix refuses prefixes that proxies and servers would rewrite, or that
// ssh or a shell would when the URL is pasted (a percent sign is ssh's, in a
// ProxyCommand), or in which the id would be looked for in the wrong place.
func (s Server) checkPrefix() error {
	switch {
	case strings.Contains(s.Prefix, "//"):
		return fmt.Errorf("the URL's path has an empty segment (//)")
	case !only(s.Prefix, "/.-_~"):
		return fmt.Errorf("the URL's path may hold only letters, digits and . - _ ~ in parts separated by /")
	}
	for part := range strings.SplitSeq(s.Prefix, "/") {
		switch part {
		case ".", "..", "agent", "client":
			return fmt.Errorf("the URL's path has a segment %q in front of the server's own", part)
		}
	}
	return nil
}

// only reports whether s is of ASCII letters, digits and the characters in
// others.
func only(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune(others, rune(c)) {
			return false
		}
	}
	return true
}
