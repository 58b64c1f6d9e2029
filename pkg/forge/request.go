package forge

import (
	"encoding/json"
	"net/http"

	"example.com/converge/pkg/apicall"
)

// State is what a status says of a commit.
type State string

// The states. What a forge does not know becomes what it knows that is nearest:
// only GitLab tells running from pending, and only it takes an error for a
// failure.
const (
	Pending State = "pending"
	Running State = "running"
	Success State = "success"
	Failure State = "failure"
	Error   State = "error"
)

// Lengths of a description, in characters.
const (
	githubDescription = 140
	otherDescription  = 255
)

// MaxDescription is how many characters the description of a status may have;
// longer ones are cut.
func MaxDescription(kind Kind) int {
	if kind == GitHub {
		return githubDescription
	}
	return otherDescription
}

// Status is a status of a commit.
type Status struct {
	State State
	// Context tells it from other statuses of the commit, which it replaces where
	// they have the same.
	Context string
	// Description is for people.
	Description string
	// Target is the page that it leads to; "" is none.
	Target string
	// Pipeline is the number of GitLab's pipeline that it is shown in; "" is
	// whichever it chooses.
	Pipeline string
}

// Request is one of a forge's API. Path is below the API's root, and Body is
// encoded as JSON unless it is nil.
type Request struct {
	Method, Path string
	Body         map[string]any
}

// Status makes the request that sets a status of a commit.
//
// https://docs.github.com/en/rest/commits/statuses,
// https://docs.gitlab.com/api/commits/#set-commit-pipeline-status,
// https://docs.gitea.com/api/ (repoCreateStatus)
func (r Repository) Status(commit string, s Status) Request {
	body := map[string]any{"description": apicall.Clip(s.Description, MaxDescription(r.Kind))}
	if s.Target != "" {
		body["target_url"] = s.Target
	}
	state := s.State
	if r.Kind == GitLab {
		if state == Failure || state == Error {
			state = "failed"
		}
		body["name"] = s.Context
		if s.Pipeline != "" {
			body["pipeline_id"] = json.Number(s.Pipeline)
		}
	} else {
		if state == Running {
			state = Pending
		}
		body["context"] = s.Context
	}
	body["state"] = string(state)
	return Request{http.MethodPost, r.inAPI() + "/statuses/" + commit, body}
}

// CanComment reports whether there is a place for comments: GitLab and GitHub
// have it for commits, all have it for pull requests.
func (p Page) CanComment() bool { return p.Pull != "" || p.Commit != "" && p.Kind != Gitea }

// AddComment makes the request that comments on a pull request or, where there
// is none, on the commit. CommentID reads its answer.
//
// https://docs.github.com/en/rest/issues/comments,
// https://docs.github.com/en/rest/commits/comments,
// https://docs.gitlab.com/api/notes/#merge-requests,
// https://docs.gitlab.com/api/commits/#post-comment-to-commit,
// https://docs.gitea.com/api/ (issueCreateComment)
func (p Page) AddComment(text string) Request {
	field := "body"
	if p.Kind == GitLab && p.Pull == "" {
		field = "note"
	}
	return Request{http.MethodPost, p.comments(), map[string]any{field: text}}
}

// EditComment makes the request that changes a comment; false where it cannot be
// changed, as GitLab's on commits.
func (p Page) EditComment(id, text string) (Request, bool) {
	body := map[string]any{"body": text}
	switch {
	case p.Kind == GitLab && p.Pull == "":
		return Request{}, false
	case p.Kind == GitLab:
		return Request{http.MethodPut, p.comments() + "/" + id, body}, true
	case p.Pull != "":
		return Request{http.MethodPatch, p.inAPI() + "/issues/comments/" + id, body}, true
	}
	return Request{http.MethodPatch, p.inAPI() + "/comments/" + id, body}, true
}

// comments is where they are added.
func (p Page) comments() string {
	switch {
	case p.Kind == GitLab && p.Pull != "":
		return p.inAPI() + "/merge_requests/" + p.Pull + "/notes"
	case p.Kind == GitLab:
		return p.inAPI() + "/repository/commits/" + p.Commit + "/comments"
	case p.Pull != "":
		return p.inAPI() + "/issues/" + p.Pull + "/comments"
	}
	return p.inAPI() + "/commits/" + p.Commit + "/comments"
}

// CommentID returns the number of a comment from the answer to AddComment; "" if
// the answer has none.
func CommentID(answer []byte) string {
	var made struct {
		ID json.Number `json:"id"`
	}
	if json.Unmarshal(answer, &made) != nil || !IsNumber(made.ID.String()) {
		return ""
	}
	return made.ID.String()
}
