package forge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"example.com/converge/pkg/apicall"
)

// idle is how many connections to a forge are kept.
const idle = 4

// ErrToken says that the forge does not take the token, or not any more.
var ErrToken = errors.New("the forge does not accept the token")

// Config is where a Client asks.
type Config struct {
	Kind Kind
	// URL is the forge's address, as ParseBase takes it.
	URL string
	// AllowHTTP takes any http URL, too, over which everybody in between sees the
	// token: only for an address that was named by whom the token is of.
	AllowHTTP bool
	// Token is whose name the requests are in; "" is nobody's.
	Token string
	// CAFile names certificates to trust besides the system's; "" is none.
	CAFile string
	// UserAgent names the program.
	UserAgent string
}

// Client asks a forge in the name of one token's owner. Its methods may be called
// concurrently. Their errors name the forge's host and repeat no token; an
// *apicall.Error in them says whether to try again. Close it, or the one that it
// was made from by As.
type Client struct {
	kind   Kind
	base   *url.URL
	header http.Header
	caller apicall.Caller
}

// NewClient makes a Client. Nothing is asked yet.
func NewClient(cfg Config) (*Client, error) {
	base, err := ParseBase(cfg.URL)
	if cfg.AllowHTTP {
		base, err = parseBase(cfg.URL)
	}
	if err != nil {
		return nil, err
	}
	client, err := apicall.NewClient(api(cfg.Kind, base), cfg.CAFile)
	if err != nil {
		return nil, err
	}
	if tr, ok := client.Transport.(*http.Transport); ok {
		tr.DisableKeepAlives = false
		tr.MaxIdleConnsPerHost = idle
	}
	c := &Client{kind: cfg.Kind, base: base, caller: apicall.Caller{Client: client, UserAgent: cfg.UserAgent}}
	return c.As(cfg.Token), nil
}

// As returns a Client in the name of another token's owner, over the same
// connections.
func (c *Client) As(token string) *Client {
	other := *c
	other.header = Header(c.kind, token)
	other.caller.Secrets = nil
	if token != "" {
		other.caller.Secrets = strings.NewReplacer(token, "…")
	}
	return &other
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.caller.Client.CloseIdleConnections() }

// repository is one of this forge.
func (c *Client) repository(path string) (Repository, error) {
	r := Repository{Kind: c.kind, Base: c.base, Path: path}
	if !IsPath(path) {
		return r, fmt.Errorf("ask the forge at %s: this is no path of a repository, such as OWNER/NAME", c.base.Host)
	}
	return r, nil
}

// SetStatus sets a status of a commit of the repository at path. Doing it again
// does no harm.
func (c *Client) SetStatus(ctx context.Context, path, commit string, s Status) error {
	r, err := c.repository(path)
	if err != nil {
		return err
	}
	if !IsCommit(commit) {
		return fmt.Errorf("set a status at %s: it is one of a commit, and this is no full object id", c.base.Host)
	}
	_, err = c.do(ctx, r.Status(commit, s))
	if stuck(c.kind, err) {
		// GitLab moves a status forward only, one step at a time, and refuses to be
		// told what it knows.
		if s.State == Pending || s.State == Running {
			return nil
		}
		first := s
		first.State = Running
		if _, err = c.do(ctx, r.Status(commit, first)); err == nil || stuck(c.kind, err) {
			_, err = c.do(ctx, r.Status(commit, s))
		}
	}
	if err != nil {
		return fmt.Errorf("set a status at %s: %w", c.base.Host, err)
	}
	return nil
}

// stuck reports whether GitLab refused a status for the one that is there.
func stuck(kind Kind, err error) bool {
	var e *apicall.Error
	return kind == GitLab && errors.As(err, &e) && e.Status == http.StatusBadRequest && strings.Contains(e.Error(), "Cannot transition status")
}

// User is the owner of a token.
type User struct {
	// ID does not change; Login is the name by which the forge's webhooks and
	// pages call the user, and may.
	ID, Login string
}

// maxLogin is the longest name of a user, in bytes.
const maxLogin = 255

// User asks who the token's owner is. A token that is not accepted is ErrToken.
//
// https://docs.github.com/en/rest/users/users#get-the-authenticated-user,
// https://docs.gitlab.com/api/users/#retrieve-the-current-user,
// https://docs.gitea.com/api/ (userGetCurrent)
func (c *Client) User(ctx context.Context) (User, error) {
	answer, err := c.do(ctx, Request{Method: http.MethodGet, Path: "/user"})
	if err != nil {
		return User{}, fmt.Errorf("ask %s who you are: %w", c.base.Host, refused(err))
	}
	u, err := decodeUser(c.kind, answer)
	if err != nil {
		return User{}, fmt.Errorf("ask %s who you are: %w", c.base.Host, err)
	}
	return u, nil
}

func decodeUser(kind Kind, answer []byte) (User, error) {
	var said struct {
		ID       json.Number `json:"id"`
		Login    string      `json:"login"`    // GitHub, Gitea
		Username string      `json:"username"` // GitLab
	}
	if json.Unmarshal(answer, &said) != nil {
		return User{}, errors.New("it answered with something else than a user")
	}
	u := User{ID: said.ID.String(), Login: said.Login}
	if kind == GitLab {
		u.Login = said.Username
	}
	if !IsNumber(u.ID) || u.Login == "" || len(u.Login) > maxLogin || apicall.Clip(u.Login, maxLogin) != u.Login {
		return User{}, errors.New("it answered with a user that has no number or no name")
	}
	return u, nil
}

// MayRead asks whether the token's owner may read the code of the repository at
// path. A repository that is not there may not be read; a token that is not
// accepted is ErrToken.
//
// https://docs.github.com/en/rest/repos/repos#get-a-repository and
// https://docs.gitea.com/api/ (repoGet) say it in their field permissions; of
// GitLab's members not all who see a project see its code, so it is asked for
// a branch: https://docs.gitlab.com/api/branches/#list-repository-branches
func (c *Client) MayRead(ctx context.Context, path string) (bool, error) {
	r, err := c.repository(path)
	if err != nil {
		return false, err
	}
	q := Request{Method: http.MethodGet, Path: r.inAPI()}
	if c.kind == GitLab {
		q.Path += "/repository/branches?per_page=1"
	}
	answer, err := c.do(ctx, q)
	var e *apicall.Error
	switch {
	case errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Status == http.StatusForbidden && !e.Retry):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("ask %s what you may read: %w", c.base.Host, refused(err))
	case c.kind == GitLab:
		return true, nil
	}
	may, err := decodePull(answer)
	if err != nil {
		return false, fmt.Errorf("ask %s what you may read: %w", c.base.Host, err)
	}
	return may, nil
}

func decodePull(answer []byte) (bool, error) {
	var said struct {
		Permissions struct {
			Pull bool `json:"pull"`
		} `json:"permissions"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return false, errors.New("it answered with something else than a repository")
	}
	return said.Permissions.Pull, nil
}

// refused makes ErrToken of an answer that is one.
func refused(err error) error {
	var e *apicall.Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized {
		return fmt.Errorf("%w: %w", ErrToken, err)
	}
	return err
}

// do makes a request.
func (c *Client) do(ctx context.Context, q Request) ([]byte, error) {
	call := apicall.Request{Method: q.Method, Address: api(c.kind, c.base) + q.Path, Header: c.header}
	if q.Body != nil {
		body, err := json.Marshal(q.Body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		call.Body, call.Type = body, "application/json"
	}
	return c.caller.Do(ctx, call)
}
