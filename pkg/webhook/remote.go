package webhook

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// Remote is which repository a URL leads to, however it is written: two are of
// one repository where they are equal. Protocol, user, password, port, a final
// .git and the case of letters do not count, for they differ between the ways to
// one repository. Ports do not for that reason: ssh and https have different
// ones.
type Remote struct {
	// Host is in small letters, "" for a path of this machine.
	Host string
	// Path has no slash at its ends; on a host it is in small letters, as
	// forges take it.
	Path string
}

// String is host and path.
func (r Remote) String() string {
	if r.Host == "" {
		return r.Path
	}
	return r.Host + "/" + r.Path
}

// otherNames are the hosts by which forges are reached through port 443.
var otherNames = map[string]string{
	"ssh.github.com": "github.com", "altssh.gitlab.com": "gitlab.com", "altssh.bitbucket.org": "bitbucket.org",
}

var errRemote = errors.New("it is no URL of a repository: give one such as git@HOST:PATH.git, ssh://HOST/PATH or https://HOST/PATH")

// ParseRemote reads the URL of a repository as git does (gitprotocol, GIT URLS
// of git-clone(1)): ssh, https, http, git and file URLs, HOST:PATH as scp has it,
// and paths. It refuses what git would take for an option or for a helper
// program (HELPER::ADDRESS). The error does not repeat the URL, in which a
// password may be.
func ParseRemote(text string) (Remote, error) {
	if text == "" || text[0] == '-' || len(text) > maxURL || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return Remote{}, errRemote
	}
	if i := strings.Index(text, "::"); i >= 0 && !strings.ContainsAny(text[:i], "/[") {
		return Remote{}, errors.New("it names a helper program of git's (HELPER::ADDRESS), which is not allowed")
	}
	if strings.Contains(text, "://") {
		return parseURL(text)
	}
	colon, slash := strings.IndexByte(text, ':'), strings.IndexByte(text, '/')
	if colon > 0 && (slash < 0 || colon < slash) && !isDrive(text) {
		return parseSCP(text)
	}
	if !path.IsAbs(text) && !isDrive(text) {
		return Remote{}, errRemote
	}
	return local(text)
}

// isDrive reports whether a path begins with a drive of Windows.
func isDrive(s string) bool {
	return len(s) > 2 && s[1] == ':' && (s[2] == '\\' || s[2] == '/')
}

func parseURL(text string) (Remote, error) {
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.Fragment != "" {
		return Remote{}, errRemote
	}
	switch strings.ToLower(u.Scheme) {
	case "file":
		if u.Host != "" && u.Host != "localhost" {
			return Remote{}, errRemote
		}
		return local(u.Path)
	case "ssh", "git+ssh", "ssh+git", "https", "http", "git":
		return onHost(u.Hostname(), u.Path)
	}
	return Remote{}, fmt.Errorf("the protocol %.20q is not allowed: give an ssh, https, http, git or file URL", u.Scheme)
}

// parseSCP reads [USER@]HOST:PATH, where HOST may be [HOST:PORT].
func parseSCP(text string) (Remote, error) {
	if _, rest, ok := strings.Cut(text, "@"); ok && strings.IndexByte(text, '@') < strings.IndexByte(text, ':') {
		text = rest
	}
	host, where := "", ""
	if strings.HasPrefix(text, "[") {
		end := strings.IndexByte(text, ']')
		if end < 0 || !strings.HasPrefix(text[end+1:], ":") {
			return Remote{}, errRemote
		}
		host, where = text[1:end], text[end+2:]
		if strings.Count(host, ":") == 1 { // and no IPv6 address
			host, _, _ = strings.Cut(host, ":")
		}
	} else {
		host, where, _ = strings.Cut(text, ":")
	}
	return onHost(host, where)
}

func onHost(host, where string) (Remote, error) {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if other, ok := otherNames[host]; ok {
		host = other
	}
	// ssh would take a host with a dash in front for an option.
	if host == "" || host[0] == '-' || strings.ContainsAny(host, "/\\@") {
		return Remote{}, errRemote
	}
	where = clean(where)
	if where == "" {
		return Remote{}, errRemote
	}
	return Remote{Host: host, Path: strings.ToLower(where)}, nil
}

func local(where string) (Remote, error) {
	where = strings.ReplaceAll(where, "\\", "/")
	if where = clean(where); where == "" {
		return Remote{}, errRemote
	}
	return Remote{Path: where}, nil
}

func clean(where string) string {
	where = strings.Trim(path.Clean("/"+where), "/")
	where = strings.TrimSuffix(where, "/.git")
	return strings.TrimSuffix(where, ".git")
}
