package notify

import (
	"fmt"

	"example.com/converge/pkg/forge"
)

// place is where a session is told of on a forge.
type place struct {
	forge.Page
	pipeline string // GitLab's, or ""
}

// status is a commit status with a context of its own for each session: pending,
// or running, while the session lasts, and then success, since it is no verdict
// on the commit.
type status struct{ place }

func (s status) message(n Notice) (*message, error) {
	told := forge.Status{State: forge.Pending, Context: "converge: " + n.Access.ID, Target: n.Job.URL, Pipeline: s.pipeline}
	switch n.Event {
	case Waiting:
		told.Description = n.line()
		if told.Description == "" || len(told.Description) > forge.MaxDescription(s.Kind) {
			told.Description = "Waits for somebody to log in: the line is in the job's log."
		}
	case Connected:
		told.Description = n.headline(plain)
	case Ended:
		told.State, told.Description = forge.Success, n.Sentence
	default:
		return nil, nil
	}
	// GitLab refuses to be told the state that it knows, and the way from
	// pending to success.
	if s.Kind == forge.GitLab && n.Event == Connected {
		return nil, nil
	}
	if s.Kind == forge.GitLab && n.Event == Waiting {
		told.State = forge.Running
	}
	return messageOf(s.Status(s.Commit, told)), nil
}

func (status) answered([]byte) {}

// messageOf makes a message of what the forge's API wants.
func messageOf(r forge.Request) *message {
	return &message{method: r.Method, path: r.Path, object: object(r.Body)}
}

// comment is one comment on a pull request or, where there is none, on the
// commit: the line, which is taken out again when the session is over. GitLab's
// comments on commits cannot be changed, and Gitea has none.
type comment struct {
	place
	id string // once it is there
}

func (c *comment) message(n Notice) (*message, error) {
	switch {
	case n.Event == Waiting && c.id == "":
		return messageOf(c.AddComment(n.markdown())), nil
	case n.Event == Waiting || n.Event == Ended && c.id != "": // a new id, or the end
		if edit, ok := c.EditComment(c.id, n.markdown()); ok {
			return messageOf(edit), nil
		}
	}
	return nil, nil
}

// answered learns the number of the comment.
func (c *comment) answered(text []byte) {
	if id := forge.CommentID(text); id != "" {
		c.id = id
	}
}

// service returns how notices go there: as a status or as a comment.
func (p place) service(how string) (service, error) {
	if how == "status" {
		if p.Commit == "" {
			return nil, fmt.Errorf("%w: a status is one of a commit, and none is known; name its page, such as github-status+%s", errMissing, forge.GitHubPages)
		}
		return status{p}, nil
	}
	switch {
	case p.CanComment():
		return &comment{place: p}, nil
	case p.Kind == forge.Gitea:
		return nil, fmt.Errorf("%w: comments are for pull requests at Gitea and Forgejo, and this is none; use status", errMissing)
	}
	return nil, fmt.Errorf("%w: neither a pull request nor a commit is known to comment on; name its page, such as github-comment+%s", errMissing, forge.GitHubPages)
}
