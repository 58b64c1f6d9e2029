package notify

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// forge is a place on a forge: a commit or a pull request of a repository.
type forge struct {
	kind       string // github, gitlab or gitea
	base       *url.URL
	repository string
	commit     string
	pull       string // its number, or ""
	pipeline   string // GitLab's, or ""
}

// api is the root of the forge's API.
func (f forge) api() string {
	base := strings.TrimRight(f.base.String(), "/")
	switch {
	case f.kind == "github" && f.base.Host == "github.com":
		return "https://api.github.com"
	case f.kind == "github" && strings.HasSuffix(f.base.Hostname(), ".ghe.com"):
		return "https://api." + f.base.Host
	case f.kind == "github":
		return base + "/api/v3"
	case f.kind == "gitlab":
		return base + "/api/v4"
	}
	return base + "/api/v1"
}

// header is what goes with every request.
func (f forge) header(token string) http.Header {
	h := http.Header{"Accept": {"application/json"}}
	switch f.kind {
	case "github":
		h.Set("Accept", "application/vnd.github+json")
		h.Set("X-GitHub-Api-Version", "2022-11-28")
		h.Set("Authorization", "Bearer "+token)
	case "gitlab":
		h.Set("Authorization", "Bearer "+token)
	default:
		h.Set("Authorization", "token "+token)
	}
	return h
}

// repo is the repository's path in the API.
func (f forge) repo() string {
	if f.kind == "gitlab" {
		return "/projects/" + url.PathEscape(f.repository)
	}
	return "/repos/" + f.repository
}

// status is a commit status with a context of its own for each session: pending,
// or running, while the session lasts, and then success, since it is no verdict
// on the commit.
//
// https://docs.github.com/en/rest/commits/statuses,
// https://docs.gitlab.com/api/commits/#set-commit-pipeline-status,
// https://docs.gitea.com/api/ (repoCreateStatus)
type status struct{ forge }

// Lengths of a description, in characters.
const (
	githubDescription = 140
	otherDescription  = 255
)

func (s status) message(n Notice) (*message, error) {
	most := otherDescription
	if s.kind == "github" {
		most = githubDescription
	}
	state, text := "pending", ""
	switch n.Event {
	case Waiting:
		text = n.line()
		if text == "" || len(text) > most {
			text = "Waits for somebody to log in: the line is in the job's log."
		}
	case Connected:
		text = n.headline(plain)
	case Ended:
		state, text = "success", n.Sentence
	default:
		return nil, nil
	}
	body := object{"state": state, "description": clip(text, most)}
	if n.Job.URL != "" {
		body["target_url"] = n.Job.URL
	}
	name := "converge: " + n.Access.ID
	if s.kind != "gitlab" {
		body["context"] = name
		return &message{method: http.MethodPost, path: s.repo() + "/statuses/" + s.commit, object: body}, nil
	}
	// GitLab refuses to be told the state that it knows, and the way from
	// pending to success.
	if n.Event == Connected {
		return nil, nil
	}
	if n.Event == Waiting {
		body["state"] = "running"
	}
	body["name"] = name
	if s.pipeline != "" {
		body["pipeline_id"] = json.Number(s.pipeline)
	}
	return &message{method: http.MethodPost, path: s.repo() + "/statuses/" + s.commit, object: body}, nil
}

func (status) answered([]byte) {}

// comment is one comment on a pull request or, where there is none, on the
// commit: the line, which is taken out again when the session is over. GitLab's
// comments on commits cannot be changed, and Gitea has none.
//
// https://docs.github.com/en/rest/issues/comments,
// https://docs.github.com/en/rest/commits/comments,
// https://docs.gitlab.com/api/notes/#merge-requests,
// https://docs.gitlab.com/api/commits/#post-comment-to-commit,
// https://docs.gitea.com/api/ (issueCreateComment)
type comment struct {
	forge
	id string // once it is there
}

func (c *comment) message(n Notice) (*message, error) {
	field := "body"
	if c.kind == "gitlab" && c.pull == "" {
		field = "note"
	}
	switch {
	case n.Event == Waiting && c.id == "":
		return &message{method: http.MethodPost, path: c.list(), object: object{field: n.markdown()}}, nil
	case n.Event == Waiting || n.Event == Ended && c.id != "": // a new id, or the end
		if path, method := c.one(); path != "" {
			return &message{method: method, path: path, object: object{field: n.markdown()}}, nil
		}
	}
	return nil, nil
}

// list is where comments are added.
func (c *comment) list() string {
	switch {
	case c.kind == "gitlab" && c.pull != "":
		return c.repo() + "/merge_requests/" + c.pull + "/notes"
	case c.kind == "gitlab":
		return c.repo() + "/repository/commits/" + c.commit + "/comments"
	case c.pull != "":
		return c.repo() + "/issues/" + c.pull + "/comments"
	}
	return c.repo() + "/commits/" + c.commit + "/comments"
}

// one is where our comment is changed; "" where it cannot be.
func (c *comment) one() (path, method string) {
	switch {
	case c.kind == "gitlab" && c.pull == "":
		return "", ""
	case c.kind == "gitlab":
		return c.list() + "/" + c.id, http.MethodPut
	case c.pull != "":
		return c.repo() + "/issues/comments/" + c.id, http.MethodPatch
	}
	return c.repo() + "/comments/" + c.id, http.MethodPatch
}

// answered learns the number of the comment.
func (c *comment) answered(text []byte) {
	if id := decodeID(text); id != "" {
		c.id = id
	}
}

// decodeID returns the number of what was made; "" if the answer has none.
func decodeID(text []byte) string {
	var answer struct {
		ID json.Number `json:"id"`
	}
	if json.Unmarshal(text, &answer) != nil || !numberForm.MatchString(answer.ID.String()) {
		return ""
	}
	return answer.ID.String()
}

// Pages of commits and of pull requests, as people copy their addresses.
const (
	githubPages = "https://github.com/OWNER/NAME/commit/SHA or …/pull/7"
	gitlabPages = "https://gitlab.com/GROUP/NAME/-/commit/SHA or …/-/merge_requests/7"
	giteaPages  = "https://git.example.com/OWNER/NAME/commit/SHA or …/pulls/7"
)

// parsePage takes such an address apart.
func parsePage(kind string, page *url.URL) (forge, error) {
	f := forge{kind: kind}
	marks, example := []string{"/commit/", "/pull/"}, githubPages
	switch kind {
	case "gitlab":
		marks, example = []string{"/-/commit/", "/-/merge_requests/"}, gitlabPages
	case "gitea":
		marks, example = []string{"/commit/", "/pulls/"}, giteaPages
	}
	for i, mark := range marks {
		at := strings.LastIndex(page.Path, mark)
		if at < 0 {
			continue
		}
		front, last := strings.Trim(page.Path[:at], "/"), strings.Trim(page.Path[at+len(mark):], "/")
		if kind != "gitlab" { // below a path of the forge itself
			parts := strings.Split(front, "/")
			if len(parts) < 2 {
				break
			}
			f.repository = strings.Join(parts[len(parts)-2:], "/")
		} else {
			f.repository = front
		}
		f.base = &url.URL{Scheme: page.Scheme, Host: page.Host, Path: "/" + strings.Trim(strings.TrimSuffix(front, f.repository), "/")}
		if i == 0 {
			f.commit = last
		} else {
			f.pull = last
		}
		break
	}
	if !repositoryForm.MatchString(f.repository) || !commitForm.MatchString(f.commit) && !numberForm.MatchString(f.pull) {
		return f, fmt.Errorf("this is not the address of a commit or of a pull request: give one such as %s", example)
	}
	return f, nil
}

// service returns how notices go there: as a status or as a comment.
func (f forge) service(how string) (service, error) {
	if how == "status" {
		if f.commit == "" {
			return nil, fmt.Errorf("%w: a status is one of a commit, and none is known; name its page, such as github-status+%s", errMissing, githubPages)
		}
		return status{f}, nil
	}
	switch {
	case f.pull == "" && f.kind == "gitea":
		return nil, fmt.Errorf("%w: comments are for pull requests at Gitea and Forgejo, and this is none; use status", errMissing)
	case f.pull == "" && f.commit == "":
		return nil, fmt.Errorf("%w: neither a pull request nor a commit is known to comment on; name its page, such as github-comment+%s", errMissing, githubPages)
	}
	return &comment{forge: f}, nil
}
