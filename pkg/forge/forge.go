// Package forge talks to the APIs of forges: GitHub, GitLab, and Gitea or
// Forgejo. It knows where a repository is in them, and makes commit statuses and
// comments; a Client sets a status and asks who the owner of a token is and what
// he may read. It words no message, decides nothing, and does not know what a
// status is about.
//
// Sources: https://docs.github.com/en/rest, https://docs.gitlab.com/api/rest/,
// https://docs.gitea.com/api/, of which each part is named where it is used.
package forge

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Kind is a kind of API.
type Kind string

// The kinds. Forgejo's API is Gitea's, and so is its kind.
const (
	GitHub Kind = "github"
	GitLab Kind = "gitlab"
	Gitea  Kind = "gitea"
)

// ParseKind reads github, gitlab, gitea or forgejo.
func ParseKind(text string) (Kind, error) {
	switch text {
	case "github", "gitlab", "gitea":
		return Kind(text), nil
	case "forgejo":
		return Gitea, nil
	}
	return "", fmt.Errorf("there is no forge of the kind %.20q: it is github, gitlab, gitea or forgejo", text)
}

// Repository is a repository of a forge.
type Repository struct {
	Kind Kind
	// Base is the forge's own address, which may have a path.
	Base *url.URL
	// Path is OWNER/NAME, or GROUP/…/NAME at GitLab.
	Path string
}

// String is the repository's page.
func (r Repository) String() string {
	return strings.TrimRight(r.Base.String(), "/") + "/" + r.Path
}

// API is the root of the forge's API.
func (r Repository) API() string { return api(r.Kind, r.Base) }

func api(kind Kind, at *url.URL) string {
	base := strings.TrimRight(at.String(), "/")
	switch {
	case kind == GitHub && at.Host == "github.com":
		return "https://api.github.com"
	case kind == GitHub && strings.HasSuffix(at.Hostname(), ".ghe.com"):
		return "https://api." + at.Host
	case kind == GitHub:
		return base + "/api/v3"
	case kind == GitLab:
		return base + "/api/v4"
	}
	return base + "/api/v1"
}

// Header is what goes with every request; token "" is nobody's.
func Header(kind Kind, token string) http.Header {
	h := http.Header{"Accept": {"application/json"}}
	if kind == GitHub {
		h.Set("Accept", "application/vnd.github+json")
		h.Set("X-GitHub-Api-Version", "2022-11-28")
	}
	switch {
	case token == "":
	case kind == Gitea:
		h.Set("Authorization", "token "+token)
	default:
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}

// inAPI is the repository's path below API.
func (r Repository) inAPI() string {
	if r.Kind == GitLab {
		return "/projects/" + url.PathEscape(r.Path)
	}
	return "/repos/" + r.Path
}

var (
	pathForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+){1,20}$`)
	commitForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)
	numberForm = regexp.MustCompile(`^[1-9][0-9]{0,17}$`)
)

// maxPath is the longest path of a repository, in bytes.
const maxPath = 1024

// IsPath reports whether a text is the path of a repository, such as OWNER/NAME,
// that leads nowhere else when it is put into an address.
func IsPath(text string) bool {
	if len(text) > maxPath || !pathForm.MatchString(text) {
		return false
	}
	for part := range strings.SplitSeq(text, "/") {
		if part == "." || part == ".." {
			return false
		}
	}
	return true
}

// IsCommit reports whether a text is a full object id of git.
func IsCommit(text string) bool { return commitForm.MatchString(text) }

// IsNumber reports whether a text is the number of a pull request, a pipeline or
// a comment.
func IsNumber(text string) bool { return numberForm.MatchString(text) }

// ParseBase reads the address of a forge. It is https, or http on a loopback
// address: a token goes there. The error repeats the host at most.
func ParseBase(text string) (*url.URL, error) {
	u, err := parseBase(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "https" && !Loopback(u.Hostname()) {
		return nil, fmt.Errorf("the address of the forge at %s is not an https one, and tokens are sent there: give https://%s", u.Host, u.Host)
	}
	return u, nil
}

// parseBase takes http, too.
func parseBase(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the address of a forge is no plain URL: give one such as https://git.example.com")
	}
	return u, nil
}

// Loopback reports whether a host is this machine by its name or number.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Locate finds the repository that a URL as git takes it leads to, at the forge
// with the address base, https or http. base "" takes the host of clone, which must
// then be such a URL. Where base is given clone may have another host, as a forge's ssh
// often has. The errors do not repeat clone, which may hold a password.
func Locate(kind Kind, base, clone string) (Repository, error) {
	r := Repository{Kind: kind}
	u, err := url.Parse(clone)
	remote := err == nil && u.Host != "" && u.Path != ""
	where := ""
	if remote {
		where = u.Path
	} else if _, after, ok := strings.Cut(clone, ":"); ok && !strings.Contains(clone, "://") { // git@host:path
		where = after
	}
	switch {
	case base != "":
		if r.Base, err = parseBase(base); err != nil {
			return r, err
		}
	case remote && (u.Scheme == "https" || u.Scheme == "http"):
		if r.Base, err = parseBase(u.Scheme + "://" + u.Host); err != nil {
			return r, err
		}
	default:
		return r, errors.New("the forge's address cannot be told from the URL of the repository, which is no https one: name the forge's address, such as https://git.example.com")
	}
	if remote && strings.EqualFold(u.Host, r.Base.Host) { // a forge below a path
		if rest, ok := strings.CutPrefix(where, strings.TrimRight(r.Base.Path, "/")+"/"); ok {
			where = rest
		}
	}
	r.Path = strings.TrimSuffix(strings.Trim(where, "/"), ".git")
	if parts := strings.Split(r.Path, "/"); kind != GitLab && base == "" && len(parts) > 2 { // the rest is the forge's
		r.Base.Path = "/" + strings.Join(parts[:len(parts)-2], "/")
		r.Path = strings.Join(parts[len(parts)-2:], "/")
	}
	if !IsPath(r.Path) || kind != GitLab && strings.Count(r.Path, "/") != 1 {
		return r, fmt.Errorf("the URL of the repository does not end in OWNER/NAME as one of the forge at %s should: check it, and the forge's address", r.Base.Host)
	}
	return r, nil
}

// The forms of the pages that ParsePage reads, for messages.
const (
	GitHubPages = "https://github.com/OWNER/NAME/commit/SHA or …/pull/7"
	GitLabPages = "https://gitlab.com/GROUP/NAME/-/commit/SHA or …/-/merge_requests/7"
	GiteaPages  = "https://git.example.com/OWNER/NAME/commit/SHA or …/pulls/7"
)

// Page is a commit or a pull request of a repository.
type Page struct {
	Repository
	// Commit is a full object id, or "".
	Commit string
	// Pull is the number of a pull or merge request, or "".
	Pull string
}

// ParsePage takes apart the address of a commit's or pull request's page, as
// people copy it.
func ParsePage(kind Kind, page *url.URL) (Page, error) {
	p := Page{Repository: Repository{Kind: kind}}
	marks, example := []string{"/commit/", "/pull/"}, GitHubPages
	switch kind {
	case GitLab:
		marks, example = []string{"/-/commit/", "/-/merge_requests/"}, GitLabPages
	case Gitea:
		marks, example = []string{"/commit/", "/pulls/"}, GiteaPages
	}
	for i, mark := range marks {
		at := strings.LastIndex(page.Path, mark)
		if at < 0 {
			continue
		}
		front, last := strings.Trim(page.Path[:at], "/"), strings.Trim(page.Path[at+len(mark):], "/")
		if kind != GitLab { // below a path of the forge itself
			parts := strings.Split(front, "/")
			if len(parts) < 2 {
				break
			}
			p.Path = strings.Join(parts[len(parts)-2:], "/")
		} else {
			p.Path = front
		}
		p.Base = &url.URL{Scheme: page.Scheme, Host: page.Host, Path: "/" + strings.Trim(strings.TrimSuffix(front, p.Path), "/")}
		if i == 0 {
			p.Commit = last
		} else {
			p.Pull = last
		}
		break
	}
	if !IsPath(p.Path) || !IsCommit(p.Commit) && !IsNumber(p.Pull) {
		return p, fmt.Errorf("this is not the address of a commit or of a pull request: give one such as %s", example)
	}
	return p, nil
}

// CommitPage is the address of the page of one of the repository's commits.
func (r Repository) CommitPage(commit string) string {
	if r.Kind == GitLab {
		return r.String() + "/-/commit/" + commit
	}
	return r.String() + "/commit/" + commit
}

// PullPage is the address of the page of a pull or merge request.
func (r Repository) PullPage(number string) string {
	switch r.Kind {
	case GitLab:
		return r.String() + "/-/merge_requests/" + number
	case GitHub:
		return r.String() + "/pull/" + number
	}
	return r.String() + "/pulls/" + number
}
