package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of what a payload says.
const (
	maxRef   = 1024 // bytes of a ref's name
	maxURL   = 2048 // bytes of a URL
	maxLogin = 255  // bytes of a user's name
)

// Event is what a verified webhook says.
type Event struct {
	// Ping is a forge that asks whether anybody is there.
	Ping bool
	// Push is nil where the event is none.
	Push *Push
	// PullRequest is nil where the event is none.
	PullRequest *PullRequest
}

// Push is a branch or tag that was moved, made or deleted.
type Push struct {
	// Ref is its full name: refs/heads/… or refs/tags/….
	Ref string
	// Before and After are object ids, in hex, of a tag perhaps the tag object's;
	// "" where there is none. A forge may leave Before out.
	Before, After string
	// Deleted says that the ref is no more; Forced, where the forge tells, that
	// its history was rewritten.
	Deleted, Forced bool
	// Repository is where it happened.
	Repository Repository
	// Sender is the login of who did it, or "".
	Sender string
}

// Repository is what a payload says of a repository.
type Repository struct {
	// Name is the path at the forge, such as group/project.
	Name string
	// CloneURL is the one by which git clones over http or https, or "".
	CloneURL string
	// URLs are those that it can be reached under, of all protocols.
	URLs []string
	// Private, where the forge tells.
	Private bool
}

// Branch returns the branch's name, or "".
func (p *Push) Branch() string { return after(p.Ref, "refs/heads/") }

// Tag returns the tag's name, or "".
func (p *Push) Tag() string { return after(p.Ref, "refs/tags/") }

func after(s, prefix string) string {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return ""
	}
	return rest
}

// Is reports whether one of the repository's URLs is that of a remote.
func (r Repository) Is(remote Remote) bool {
	for _, text := range r.URLs {
		if other, err := ParseRemote(text); err == nil && other == remote {
			return true
		}
	}
	return false
}

// githubPush is the part of it that counts; Gitea and Forgejo send the same,
// without created, deleted and forced.
type githubPush struct {
	Ref        string            `json:"ref"`
	Before     string            `json:"before"`
	After      string            `json:"after"`
	Deleted    bool              `json:"deleted"`
	Forced     bool              `json:"forced"`
	Repository *githubRepository `json:"repository"`
	Sender     githubUser        `json:"sender"`
}

type githubUser struct {
	Login string `json:"login"`
}

type githubRepository struct {
	FullName string `json:"full_name"`
	Private  bool   `json:"private"`
	CloneURL string `json:"clone_url"`
	SSHURL   string `json:"ssh_url"`
	GitURL   string `json:"git_url"`
	HTMLURL  string `json:"html_url"`
}

func decodeGitHub(d *Delivery, body []byte) (Event, error) {
	switch d.Event {
	case "ping":
		return Event{Ping: true}, nil
	case "push":
	case "pull_request":
		return pullGitHub(body)
	default:
		return Event{}, nil
	}
	var p githubPush
	if err := unmarshal(body, &p); err != nil {
		return Event{}, err
	}
	if p.Repository == nil {
		return Event{}, errNoRepository
	}
	return push(githubPushed(p))
}

func githubPushed(p githubPush) Push {
	return Push{
		Ref: p.Ref, Before: p.Before, After: p.After, Deleted: p.Deleted, Forced: p.Forced,
		Repository: p.Repository.repository(), Sender: p.Sender.Login,
	}
}

func (r *githubRepository) repository() Repository {
	return Repository{
		Name: r.FullName, Private: r.Private, CloneURL: r.CloneURL, URLs: []string{r.CloneURL, r.SSHURL, r.GitURL, r.HTMLURL},
	}
}

// gitlabPush is the part that counts of a push, a tag push and a system hook.
type gitlabPush struct {
	Kind    string         `json:"object_kind"`
	Name    string         `json:"event_name"`
	Ref     string         `json:"ref"`
	Before  string         `json:"before"`
	After   string         `json:"after"`
	Project *gitlabProject `json:"project"`
	User    string         `json:"user_username"`
}

type gitlabProject struct {
	Path       string `json:"path_with_namespace"`
	HTTP       string `json:"git_http_url"`
	SSH        string `json:"git_ssh_url"`
	Web        string `json:"web_url"`
	Visibility int    `json:"visibility_level"`
}

// gitlabPublic is the level of a project that everybody sees.
const gitlabPublic = 20

func decodeGitLab(d *Delivery, body []byte) (Event, error) {
	switch d.Event {
	case "Push Hook", "Tag Push Hook", "System Hook":
	case "Merge Request Hook":
		return pullGitLab(body)
	default:
		return Event{}, nil
	}
	var p gitlabPush
	if err := unmarshal(body, &p); err != nil {
		return Event{}, err
	}
	kind := p.Kind
	if kind == "" { // older system hooks
		kind = p.Name
	}
	if kind != "push" && kind != "tag_push" {
		if d.Event == "System Hook" {
			return Event{}, nil
		}
		return Event{}, errors.New("the payload is no push, although its header says so")
	}
	if p.Project == nil {
		return Event{}, errNoRepository
	}
	return push(Push{Ref: p.Ref, Before: p.Before, After: p.After, Repository: p.Project.repository(), Sender: p.User})
}

func (p *gitlabProject) repository() Repository {
	return Repository{
		Name: p.Path, Private: p.Visibility != gitlabPublic, CloneURL: p.HTTP, URLs: []string{p.HTTP, p.SSH, p.Web},
	}
}

var errNoRepository = errors.New("the payload names no repository")

func unmarshal(body []byte, into any) error {
	if !utf8.Valid(body) {
		return errors.New("the payload is no UTF-8")
	}
	if err := json.Unmarshal(body, into); err != nil {
		// The library's error quotes no more than a character or a field's name.
		return fmt.Errorf("the payload is not the JSON of a webhook: %w", err)
	}
	return nil
}

// push checks what all forges say.
func push(said Push) (Event, error) {
	switch {
	case !strings.HasPrefix(said.Ref, "refs/") || len(said.Ref) > maxRef || hasControl(said.Ref):
		return Event{}, errors.New("the payload names no ref that was pushed")
	case !isID(said.After) || said.Before != "" && !isID(said.Before):
		return Event{}, errors.New("the payload has something else than an object id in before or after")
	}
	p := said
	p.Before, p.After = orNone(p.Before), orNone(p.After)
	p.Deleted = p.Deleted || p.After == ""
	var err error
	if p.Repository, err = checked(p.Repository); err != nil {
		return Event{}, err
	}
	if p.Sender, err = login(p.Sender); err != nil {
		return Event{}, err
	}
	return Event{Push: &p}, nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// checked drops URLs that are missing or too long; one must be left.
func checked(r Repository) (Repository, error) {
	var urls []string
	for _, u := range r.URLs {
		if u != "" && len(u) <= maxURL {
			urls = append(urls, u)
		}
	}
	r.URLs = urls
	if len(r.CloneURL) > maxURL || hasControl(r.CloneURL) {
		r.CloneURL = ""
	}
	if len(urls) == 0 {
		return Repository{}, errNoRepository
	}
	return r, nil
}

// login checks a user's name, which may be missing.
func login(name string) (string, error) {
	if len(name) > maxLogin || hasControl(name) {
		return "", errors.New("the payload names a sender that is no login")
	}
	return name, nil
}

// isID reports whether s is a full object id, of SHA-1 or SHA-256.
func isID(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// orNone is "" for the id of zeros, by which forges say that there is none.
func orNone(id string) string {
	if strings.Trim(id, "0") == "" {
		return ""
	}
	return id
}
