// Package forgekeys fetches the public keys of the users and teams of a forge,
// and of any URL, and keeps them fresh while the agent runs. It knows the few
// pages and API calls of GitHub, GitLab, Gitea, Forgejo and SourceHut that
// serve for it; it must know nothing of SSH connections, of CI systems and of
// the command line.
package forgekeys

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Forge is a kind of forge.
type Forge string

// The kinds of forges. Gitea stands for Forgejo too: what is asked of them is
// the same.
const (
	GitHub    Forge = "github"
	GitLab    Forge = "gitlab"
	Gitea     Forge = "gitea"
	Sourcehut Forge = "sourcehut"
)

// Title is the forge's name as people write it.
func (f Forge) Title() string {
	switch f {
	case GitHub:
		return "GitHub"
	case GitLab:
		return "GitLab"
	case Gitea:
		return "Gitea"
	case Sourcehut:
		return "SourceHut"
	}
	return string(f)
}

// Public is the address of the forge that everybody means by its name, or ""
// where there is none.
func (f Forge) Public() string {
	switch f {
	case GitHub:
		return "https://github.com"
	case GitLab:
		return "https://gitlab.com"
	case Sourcehut:
		return "https://meta.sr.ht"
	}
	return ""
}

// Server is one forge.
type Server struct {
	Forge Forge
	base  *url.URL
	token string
}

// NewServer checks the address of a forge, which is an https URL, perhaps with
// a path. token, if not "", goes into the Authorization header of requests to
// that address and to no other.
func NewServer(forge Forge, address, token string) (Server, error) {
	base, err := parseAddress(address)
	if err != nil {
		return Server{}, err
	}
	if base.RawQuery != "" {
		return Server{}, fmt.Errorf("%s has a query: give the address of the forge alone", clean(base))
	}
	base.Path = strings.TrimRight(base.Path, "/")
	base.RawPath = ""
	return Server{Forge: forge, base: base, token: token}, nil
}

// parseAddress takes https URLs alone: whoever can change the answer of another
// lets himself in. The error does not repeat what could be a password.
func parseAddress(address string) (*url.URL, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("this is no URL: give one such as https://git.example.com")
	case u.Scheme != "https":
		return nil, fmt.Errorf("%s is not an https URL: keys are fetched over verified TLS only", clean(u))
	case u.Host == "" || u.Hostname() == "":
		return nil, errors.New("this URL has no host: give one such as https://git.example.com")
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user name or password in it: leave them out", clean(u))
	case u.Fragment != "":
		return nil, fmt.Errorf("%s has a fragment: leave it out", clean(u))
	}
	return u, nil
}

// clean is a URL without what could be a secret.
func clean(u *url.URL) string {
	c := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return c.String()
}

// kind is what a Source names.
type kind int

const (
	user kind = iota
	team
	page
)

// Source is what keys are fetched for: a user, a team, or a URL.
type Source struct {
	server Server
	kind   kind
	name   string   // of the user or team
	page   *url.URL // of a URL
}

var (
	userName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)
	teamName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,99}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$`)
	groupName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,20}$`)
)

// User is a user of a forge.
func (s Server) User(name string) (Source, error) {
	if s.Forge == Sourcehut {
		name = strings.TrimPrefix(name, "~")
	}
	if !userName.MatchString(name) {
		return Source{}, fmt.Errorf("%q is no name of a %s user: give one login, such as octocat", name, s.Forge.Title())
	}
	return Source{server: s, kind: user, name: name}, nil
}

// Team is a team of GitHub (ORG/TEAM, the team's slug), a group of GitLab
// (GROUP or GROUP/SUBGROUP), or an organisation of Gitea. GitHub and GitLab
// want a token for it.
func (s Server) Team(name string) (Source, error) {
	var ok bool
	example := ""
	switch s.Forge {
	case GitHub:
		ok, example = teamName.MatchString(name), "ORG/TEAM"
	case GitLab:
		ok, example = groupName.MatchString(name) && len(name) <= 255, "GROUP or GROUP/SUBGROUP"
	case Gitea:
		ok, example = userName.MatchString(name), "ORG"
	}
	if !ok {
		return Source{}, fmt.Errorf("%q is no name of a %s: give %s", name, s.teamWord(), example)
	}
	if s.Forge == GitHub && s.token == "" {
		return Source{}, fmt.Errorf("GitHub tells the members of %s only to somebody with a token: give one with read:org as --github-token @FILE", name)
	}
	return Source{server: s, kind: team, name: name}, nil
}

// URL is a page of public keys, one a line.
func URL(address string) (Source, error) {
	u, err := parseAddress(address)
	if err != nil {
		return Source{}, err
	}
	return Source{kind: page, page: u}, nil
}

func (s Server) teamWord() string {
	switch s.Forge {
	case GitHub:
		return "GitHub team"
	case GitLab:
		return "GitLab group"
	}
	return s.Forge.Title() + " organisation"
}

// String names the source for people: it holds no secret.
func (s Source) String() string {
	switch s.kind {
	case user:
		return fmt.Sprintf("the %s user %s at %s", s.server.Forge.Title(), s.name, clean(s.server.base))
	case team:
		return fmt.Sprintf("the %s %s at %s", s.server.teamWord(), s.name, clean(s.server.base))
	}
	return clean(s.page)
}

// address is where the source's host is.
func (s Source) address() *url.URL {
	if s.kind == page {
		return s.page
	}
	return s.server.base
}

// api is the root of the forge's API.
func (s Server) api() string {
	host := s.base.Hostname()
	switch {
	case s.Forge == GitHub && s.base.Host == "github.com":
		return "https://api.github.com"
	case s.Forge == GitHub && strings.HasSuffix(host, ".ghe.com"):
		return "https://api." + s.base.Host
	case s.Forge == GitHub:
		return s.base.String() + "/api/v3"
	case s.Forge == GitLab:
		return s.base.String() + "/api/v4"
	}
	return s.base.String() + "/api/v1"
}

// keysPage is where everybody finds the keys of a user, one a line.
func (s Server) keysPage(name string) string {
	if s.Forge == Sourcehut {
		name = "~" + name
	}
	return s.base.String() + "/" + name + ".keys"
}

// keysAPI is where the API has them.
func (s Server) keysAPI(name string) string {
	return s.api() + "/users/" + url.PathEscape(name) + "/keys"
}

// membersAPI is where the API lists the members of a team.
func (s Server) membersAPI(name string) string {
	switch s.Forge {
	case GitHub:
		org, slug, _ := strings.Cut(name, "/")
		return s.api() + "/orgs/" + url.PathEscape(org) + "/teams/" + url.PathEscape(slug) + "/members"
	case GitLab:
		return s.api() + "/groups/" + url.PathEscape(name) + "/members/all"
	}
	members := "members"
	if s.token == "" {
		members = "public_members" // all that a stranger may see
	}
	return s.api() + "/orgs/" + url.PathEscape(name) + "/" + members
}

// authorization is the value of the header that carries the token.
func (s Server) authorization() string {
	switch {
	case s.token == "":
		return ""
	case s.Forge == Gitea:
		return "token " + s.token
	}
	return "Bearer " + s.token
}
