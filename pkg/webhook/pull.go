package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// PullRequest is a pull or merge request that was opened or changed.
type PullRequest struct {
	// Number is what people call it by.
	Number int
	// Action is the forge's own name of what happened to it.
	Action string
	// Moved says that there is a commit to look at: it was opened, opened again,
	// or pushed to.
	Moved bool
	// Closed says that it was closed, merged or not.
	Closed bool
	// Branch is the short name of the branch that asks, Commit the object id of
	// its head.
	Branch, Commit string
	// Base is the repository that is asked, Head the one that the code is in.
	Base, Head Repository
	// Fork says that Head is another repository than Base, or is not known to be
	// the same.
	Fork bool
	// Sender is the login of who did it, or "".
	Sender string
}

// githubPull is the part that counts of what GitHub, Gitea and Forgejo send.
type githubPull struct {
	Action string `json:"action"`
	Number int    `json:"number"`
	Pull   *struct {
		Number int `json:"number"`
		Head   struct {
			Ref  string            `json:"ref"`
			SHA  string            `json:"sha"`
			Repo *githubRepository `json:"repo"`
		} `json:"head"`
	} `json:"pull_request"`
	Repository *githubRepository `json:"repository"`
	Sender     githubUser        `json:"sender"`
}

func pullGitHub(body []byte) (Event, error) {
	var p githubPull
	if err := unmarshal(body, &p); err != nil {
		return Event{}, err
	}
	switch {
	case p.Repository == nil:
		return Event{}, errNoRepository
	case p.Pull == nil:
		return Event{}, errors.New("the payload is no pull request, although its header says so")
	}
	pull := PullRequest{
		Number: p.Number, Action: p.Action, Branch: p.Pull.Head.Ref, Commit: p.Pull.Head.SHA,
		Base: p.Repository.repository(), Sender: p.Sender.Login,
	}
	if pull.Number == 0 {
		pull.Number = p.Pull.Number
	}
	if p.Pull.Head.Repo != nil { // null where the fork was deleted
		pull.Head = p.Pull.Head.Repo.repository()
	}
	switch p.Action {
	case "opened", "reopened", "synchronize", "synchronized":
		pull.Moved = true
	case "closed":
		pull.Closed = true
	}
	return pulled(pull)
}

// gitlabMerge is the part that counts of a merge request.
type gitlabMerge struct {
	Project *gitlabProject `json:"project"`
	User    struct {
		Name string `json:"username"`
	} `json:"user"`
	Request *struct {
		Number int            `json:"iid"`
		Action string         `json:"action"`
		OldRev string         `json:"oldrev"`
		Branch string         `json:"source_branch"`
		Source *gitlabProject `json:"source"`
		Last   struct {
			ID string `json:"id"`
		} `json:"last_commit"`
	} `json:"object_attributes"`
}

func pullGitLab(body []byte) (Event, error) {
	var p gitlabMerge
	if err := unmarshal(body, &p); err != nil {
		return Event{}, err
	}
	switch {
	case p.Project == nil:
		return Event{}, errNoRepository
	case p.Request == nil:
		return Event{}, errors.New("the payload is no merge request, although its header says so")
	}
	r := p.Request
	pull := PullRequest{
		Number: r.Number, Action: r.Action, Branch: r.Branch, Commit: r.Last.ID,
		Base: p.Project.repository(), Sender: p.User.Name,
		// An update without oldrev changed the title or the like.
		Closed: r.Action == "close" || r.Action == "merge",
		Moved:  r.Action == "open" || r.Action == "reopen" || r.Action == "update" && r.OldRev != "",
	}
	if r.Source != nil {
		pull.Head = r.Source.repository()
	}
	return pulled(pull)
}

// pulled checks what all forges say.
func pulled(p PullRequest) (Event, error) {
	var err error
	if p.Base, err = checked(p.Base); err != nil {
		return Event{}, err
	}
	if p.Sender, err = login(p.Sender); err != nil {
		return Event{}, err
	}
	p.Fork = true
	if head, err := checked(p.Head); err == nil {
		p.Head = head
		a, errA := ParseRemote(p.Base.CloneURL)
		b, errB := ParseRemote(p.Head.CloneURL)
		p.Fork = errA != nil || errB != nil || a != b
	}
	if !p.Moved {
		return Event{PullRequest: &p}, nil
	}
	switch {
	case !isID(p.Commit) || orNone(p.Commit) == "":
		return Event{}, errors.New("the payload has no object id of the pull request's head")
	case p.Branch == "" || len(p.Branch) > maxRef || hasControl(p.Branch):
		return Event{}, errors.New("the payload has no branch of the pull request's head")
	case p.Number < 1:
		return Event{}, errors.New("the payload has no number of the pull request")
	}
	return Event{PullRequest: &p}, nil
}

// ByShape makes a Delivery of a body that came without any forge's event header,
// as from a script: what it holds decides whether it is a push or a pull request
// of Gitea's form. The error is ErrUnknownSender where it is neither.
func ByShape(header http.Header, text []byte) (*Delivery, error) {
	var p struct {
		Ref   *string         `json:"ref"`
		After *string         `json:"after"`
		Pull  json.RawMessage `json:"pull_request"`
	}
	if err := unmarshal(text, &p); err != nil {
		return nil, err
	}
	d := &Delivery{Forge: Gitea, header: header}
	switch {
	case p.Pull != nil && string(p.Pull) != "null":
		d.Event = "pull_request"
	case p.Ref != nil && p.After != nil:
		d.Event = "push"
	default:
		return nil, ErrUnknownSender
	}
	return d, nil
}

// JSON takes the JSON out of a body by what it begins with, whatever its content
// type says: an object, or a form with the object in its field payload.
func JSON(body []byte) ([]byte, error) {
	text := strings.TrimLeft(string(body[:min(len(body), 64)]), " \t\r\n")
	if !strings.HasPrefix(text, "{") && (strings.HasPrefix(text, "payload=") || strings.Contains(text, "&payload=")) {
		form, err := url.ParseQuery(string(body))
		if err != nil || len(form["payload"]) != 1 {
			return nil, errors.New("the form of the webhook has no field payload: choose application/json at the forge")
		}
		return []byte(form.Get("payload")), nil
	}
	return body, nil
}

// Peek reads which repository a payload is about, of whichever forge and event,
// before anybody has verified it: only to find the secret to verify it with. The
// error says that it is no JSON, or that there is no clone URL in it.
func Peek(text []byte) (Repository, error) {
	var p struct {
		Repository *githubRepository `json:"repository"`
		Project    *gitlabProject    `json:"project"`
	}
	if err := unmarshal(text, &p); err != nil {
		return Repository{}, err
	}
	var r Repository
	switch {
	case p.Project != nil && p.Project.HTTP != "":
		r = p.Project.repository()
	case p.Repository != nil:
		r = p.Repository.repository()
	}
	if r.CloneURL == "" {
		return Repository{}, fmt.Errorf("%w: there is no clone URL in it", errNoRepository)
	}
	r, err := checked(r)
	if err == nil && r.CloneURL == "" {
		err = errNoRepository
	}
	return r, err
}
