package actor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxEvent is the most that is read of an event, in bytes: GitHub delivers none
// of more than 25 MB.
const maxEvent = 32 << 20

// event is the little that is needed of the webhook payload that started a
// workflow. GitHub's and Gitea's agree in it.
type event struct {
	Action     string      `json:"action"`
	Repository *repository `json:"repository"`
	Sender     *account    `json:"sender"`
	// PullRequest is that of the events about one.
	PullRequest *pullRequest `json:"pull_request"`
	// WorkflowRun is the run that a workflow_run follows.
	WorkflowRun *workflowRun `json:"workflow_run"`
}

type account struct {
	Login string `json:"login"`
}

type repository struct {
	FullName string `json:"full_name"`
	// Private is absent where nothing is said.
	Private *bool `json:"private"`
	// Visibility is GitHub's: public, private or internal.
	Visibility string `json:"visibility"`
	// Internal is Gitea's: for those who have an account.
	Internal bool `json:"internal"`
}

type pullRequest struct {
	User *account `json:"user"`
	// AuthorAssociation is GitHub's. It calls private members of an
	// organisation CONTRIBUTOR, like anybody else whose change was merged once.
	AuthorAssociation string `json:"author_association"`
	Head              branch `json:"head"`
	Base              branch `json:"base"`
}

type branch struct {
	// Repo is null when a fork has been deleted.
	Repo *repository `json:"repo"`
}

type workflowRun struct {
	Event          string      `json:"event"`
	HeadRepository *repository `json:"head_repository"`
}

// readEvent reads the event's file.
func readEvent(name string) (*event, error) {
	if name == "" {
		return nil, errors.New("GITHUB_EVENT_PATH is not set")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the event: %w", err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("the event is not a file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxEvent+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the event: %w", err)
	}
	if len(text) > maxEvent {
		return nil, fmt.Errorf("the event has more than %d MiB", maxEvent>>20)
	}
	return parseEvent(text)
}

func parseEvent(text []byte) (*event, error) {
	e := &event{}
	if err := json.Unmarshal(text, e); err != nil {
		return nil, errors.New("the event is not what GitHub would write")
	}
	return e, nil
}

// public reports whether everybody can read the repository, and so its logs.
func (r *repository) public() bool {
	switch {
	case r == nil:
		return false
	case r.Visibility != "":
		return r.Visibility == "public"
	}
	return r.Private != nil && !*r.Private && !r.Internal
}

// closed reports whether the repository is said to be private or internal.
func (r *repository) closed() bool {
	switch {
	case r == nil:
		return false
	case r.Visibility != "":
		return r.Visibility != "public"
	}
	return r.Private != nil && *r.Private || r.Internal
}

// byWriters are the events that nobody can cause but who may change the
// repository. Comments, issues, stars, forks and the like are for anybody who
// can read it.
var byWriters = map[string]bool{
	"branch_protection_rule": true,
	"create":                 true,
	"delete":                 true,
	"deployment":             true,
	"deployment_status":      true,
	"merge_group":            true,
	"push":                   true,
	"registry_package":       true,
	"release":                true,
	"repository_dispatch":    true,
	"schedule":               true,
	"workflow_dispatch":      true,
}

// stranger says why somebody who may not change the repository could have
// caused the event, or "". again tells that somebody else has run it once more,
// which takes somebody who may change the repository; but what he runs may
// be a fork's still.
func (e *event) stranger(name string, again bool) string {
	switch name {
	case "pull_request", "pull_request_target":
		return e.pullRequestStranger(again)
	case "workflow_run":
		run := e.WorkflowRun
		switch {
		case run == nil || run.HeadRepository == nil || e.Repository == nil:
			return "a workflow_run event does not tell which repository it began in"
		case run.HeadRepository.FullName == "" || run.HeadRepository.FullName != e.Repository.FullName:
			return "the run before this one was of a fork"
		case again || byWriters[run.Event] || e.Repository.closed():
			return ""
		}
		return fmt.Sprintf("the run before this one began with the event %q, which anybody can cause", run.Event)
	}
	if again && name != "" || byWriters[name] {
		return ""
	}
	return fmt.Sprintf("the event %q can be caused by anybody who can read the repository", name)
}

// pullRequestStranger is stranger for pull requests. One from a fork is
// anybody's. One between two branches of the repository can be opened by
// anybody who can read them, and only by a writer can its branch be changed.
func (e *event) pullRequestStranger(again bool) string {
	pr := e.PullRequest
	if pr == nil || pr.Base.Repo == nil || pr.Base.Repo.FullName == "" {
		return "the event of a pull request does not tell where it came from"
	}
	if pr.Head.Repo == nil || pr.Head.Repo.FullName != pr.Base.Repo.FullName {
		return "the pull request is from a fork"
	}
	if again || pr.Base.Repo.closed() || e.Repository.closed() || e.Action == "synchronize" || e.Action == "synchronized" {
		return ""
	}
	switch pr.AuthorAssociation {
	case "OWNER", "MEMBER", "COLLABORATOR":
		return ""
	}
	if pr.User != nil && e.Sender != nil && pr.User.Login != "" && e.Sender.Login != "" && pr.User.Login != e.Sender.Login {
		return "" // what others than its author do with a pull request takes a role in the repository
	}
	return "the pull request's author need not be one who may change the repository, which is public"
}
