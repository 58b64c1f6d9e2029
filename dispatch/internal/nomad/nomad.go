// Package nomad is all that dispatch knows of Nomad's HTTP API: it dispatches a
// parameterized job, lists and watches what was dispatched by blocking queries,
// judges how a build stands, reads logs, and stops. It does not know webhooks,
// forges or pages.
package nomad

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
	"example.com/converge/pkg/transport"
)

// What the contract with a builder's job names.
const (
	Group = "runner"
	Task  = "executor"
	// MaxPayload is Nomad's limit of a dispatch's payload, in bytes
	// (DispatchPayloadSizeLimit).
	MaxPayload = 16 << 10
)

const (
	// timeout bounds a question that does not wait.
	timeout = 30 * time.Second
	// wait is how long a blocking query waits; Nomad adds a sixteenth at most.
	wait = 2 * time.Minute
	// infix stands between a job's id and the rest of its children's.
	infix = "/dispatch-"
)

// Errors that callers tell apart.
var (
	// ErrAway is Nomad that cannot be reached, has no leader, or is overloaded.
	ErrAway = errors.New("the Nomad server cannot be reached at this moment")
	// ErrNoJob is a job that is not registered in the namespace.
	ErrNoJob = errors.New("there is no such job in Nomad: run it with nomad job run")
	// ErrContract is a job that cannot be dispatched as builders are.
	ErrContract = errors.New("the job is no builder")
	// ErrPayload is secrets that are larger than a payload may be.
	ErrPayload = errors.New("the secrets are larger than the 16384 bytes that Nomad takes: put less into inject")
	// ErrNotStarted is a log of a task that has none yet.
	ErrNotStarted = errors.New("the task has not started")
	// ErrNoLog is a log that is gone, or an allocation that is.
	ErrNoLog = errors.New("the log is not at Nomad any more")
)

// Client asks one Nomad. Its methods may be called concurrently. Close it.
type Client struct {
	api       *api.Client
	http      *http.Client
	host      string
	namespace string
	secret    string
}

// New makes a Client. Nothing is asked yet.
func New(s settings.Nomad) (*Client, error) {
	u, err := url.Parse(s.Address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("read the address of Nomad: it must be an http or https URL")
	}
	config, err := repos.TLS("Nomad", s.CACert, s.ClientCert, s.ClientKey)
	if err != nil {
		return nil, err
	}
	c := &Client{host: u.Host, namespace: s.Namespace, secret: s.Token, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig: config, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: timeout,
		},
		// The token is for the place that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	c.api, err = api.NewClient(&api.Config{Address: s.Address, Namespace: s.Namespace, Region: s.Region, SecretID: s.Token, HttpClient: c.http})
	if err != nil {
		return nil, fmt.Errorf("use the address of Nomad: %w", err)
	}
	return c, nil
}

// Close closes the connections that are not in use.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Name says where it asks.
func (c *Client) Name() string { return "Nomad at " + c.host + ", namespace " + c.namespace }

// Contract is what a job permits.
type Contract struct {
	Required, Optional []string
	// Payload is optional, required or forbidden.
	Payload string
	// Problems are what keeps the job from being a builder, and Advice what makes
	// it a bad one.
	Problems, Advice []string
}

// Permits reports whether a key of the meta may be sent.
func (c *Contract) Permits(key string) bool {
	return slices.Contains(c.Required, key) || slices.Contains(c.Optional, key)
}

// Keys are the meta that every builder gets.
var Keys = []string{"REPO_URL", "COMMIT", "BRANCH", "FLAVOR"}

// Contract reads a job. The error is ErrNoJob or ErrAway.
func (c *Client) Contract(ctx context.Context, job string) (*Contract, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	j, _, err := c.api.Jobs().Info(job, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return nil, c.mistake("read the job "+job, err)
	}
	k := &Contract{}
	problem := func(format string, a ...any) { k.Problems = append(k.Problems, fmt.Sprintf(format, a...)) }
	advise := func(format string, a ...any) { k.Advice = append(k.Advice, fmt.Sprintf(format, a...)) }
	if j.ParameterizedJob == nil {
		problem("it has no block parameterized")
		return k, nil
	}
	k.Required, k.Optional, k.Payload = j.ParameterizedJob.MetaRequired, j.ParameterizedJob.MetaOptional, j.ParameterizedJob.Payload
	for _, key := range k.Required {
		if !slices.Contains(Keys, key) {
			problem("it requires the meta %s, which dispatch does not send", key)
		}
	}
	for _, key := range Keys {
		if !k.Permits(key) {
			problem("it permits no meta %s: add it to meta_required", key)
		}
	}
	switch k.Payload {
	case "forbidden":
		advise("it forbids a payload, so that no build gets secrets")
	case "required":
		problem("it requires a payload, which the builds of untrusted senders have not: make it optional")
	}
	if j.Stop != nil && *j.Stop {
		problem("it is stopped: run it again")
	}
	at := slices.IndexFunc(j.TaskGroups, func(g *api.TaskGroup) bool { return g.Name != nil && *g.Name == Group })
	if at < 0 {
		problem("it has no group %s", Group)
		return k, nil
	}
	group := j.TaskGroups[at]
	if !slices.ContainsFunc(group.Tasks, func(t *api.Task) bool { return t.Name == Task }) {
		problem("its group %s has no task %s", Group, Task)
	}
	if p := group.RestartPolicy; p == nil || p.Attempts == nil || *p.Attempts != 0 || p.Mode == nil || *p.Mode != "fail" {
		advise(`a failed build is run again: set restart { attempts = 0 mode = "fail" }`)
	}
	if p := group.ReschedulePolicy; p == nil || p.Attempts == nil || *p.Attempts != 0 || p.Unlimited != nil && *p.Unlimited {
		advise("a failed build is placed again: set reschedule { attempts = 0 unlimited = false }")
	}
	return k, nil
}

// Dispatch starts a build and returns the dispatched job's id. A second call with
// the same token, "" for none, returns the first one's: so a question whose
// answer was lost can be asked again. Two at the same moment, as after a halt of
// Nomad's, may both be dispatched: it compares before it writes. The error is ErrNoJob, ErrContract,
// ErrPayload or ErrAway, or Nomad's own sentence.
func (c *Client) Dispatch(ctx context.Context, job string, meta map[string]string, payload []byte, token string) (string, error) {
	if len(payload) > MaxPayload {
		return "", ErrPayload
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	options := (&api.WriteOptions{IdempotencyToken: token}).WithContext(ctx)
	answer, _, err := c.api.Jobs().DispatchOpts(&api.DispatchOptions{JobID: job, Meta: meta, Payload: payload}, options)
	if err != nil {
		return "", c.mistake("dispatch the job "+job, err)
	}
	if answer.DispatchedJobID == "" {
		return "", fmt.Errorf("dispatch the job %s: Nomad named no dispatched job", job)
	}
	return answer.DispatchedJobID, nil
}

// Stop ends a build, and keeps it to be looked at.
func (c *Client) Stop(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, _, err := c.api.Jobs().Deregister(id, false, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return c.mistake("stop "+id, err)
	}
	return nil
}

// Check asks for the leader.
func (c *Client) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var leader string
	if _, err := c.api.Raw().Query("/v1/status/leader", &leader, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return c.mistake("ask for the leader", err)
	}
	if leader == "" {
		return fmt.Errorf("%w: it has no leader", ErrAway)
	}
	return nil
}

// Log opens a log at an offset of bytes. With follow it does not end by itself,
// not even where the task has: cancel ctx. The error is ErrNotStarted, ErrNoLog or
// ErrAway.
func (c *Client) Log(ctx context.Context, allocation string, log build.Stream, offset int64, follow bool) (io.ReadCloser, error) {
	q := &api.QueryOptions{Params: map[string]string{
		"task": Task, "type": string(log), "origin": "start", "plain": "true",
		"offset": strconv.FormatInt(offset, 10), "follow": strconv.FormatBool(follow),
	}}
	r, err := c.api.Raw().Response("/v1/client/fs/logs/"+url.PathEscape(allocation), q.WithContext(ctx))
	if err == nil {
		return r, nil
	}
	var said api.UnexpectedResponseError
	if errors.As(err, &said) && (said.StatusCode() == http.StatusNotFound || said.StatusCode() == http.StatusInternalServerError) {
		body := strings.ToLower(said.Body())
		is := func(what string) bool { return strings.Contains(body, what) }
		switch {
		case is("not started"):
			return nil, ErrNotStarted
		case is("unknown allocation"), is("not found"), is("no such file"):
			return nil, ErrNoLog
		}
	}
	return nil, c.mistake("read the log", err)
}

// mistake makes a sentence of an error, with the error that callers know in it.
func (c *Client) mistake(what string, err error) error {
	var said api.UnexpectedResponseError
	if !errors.As(err, &said) || !said.HasStatusCode() {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%s: %w", what, err)
		}
		return fmt.Errorf("%s: %w: %w", what, ErrAway, transport.Explain(c.host, err))
	}
	body := c.clean(said.Body())
	switch code := said.StatusCode(); {
	case strings.Contains(body, "exceeds maximum size"):
		return fmt.Errorf("%s: %w", what, ErrPayload)
	case strings.Contains(body, "did not provide required meta keys"), strings.Contains(body, "unpermitted metadata keys"),
		strings.Contains(body, "not a parameterized job"), strings.Contains(body, "isn't parameterized"), strings.Contains(body, "payload is not allowed"),
		strings.Contains(body, "Payload is not provided"), strings.Contains(body, "payload is required"):
		return fmt.Errorf("%s: %w: %s", what, ErrContract, body)
	case strings.Contains(body, "No path to node"): // with 404, while a machine is away
		return fmt.Errorf("%s: %w: it answered %d %s", what, ErrAway, code, body)
	case code == http.StatusNotFound, strings.Contains(body, "parameterized job not found"), strings.Contains(body, "job not found"):
		return fmt.Errorf("%s: %w", what, ErrNoJob)
	case code == http.StatusForbidden, code == http.StatusUnauthorized:
		return fmt.Errorf("%s: Nomad refuses the token: give NOMAD_TOKEN the capabilities dispatch-job, read-job, list-jobs, read-logs and submit-job", what)
	case code >= 500, code == http.StatusTooManyRequests:
		return fmt.Errorf("%s: %w: it answered %d %s", what, ErrAway, code, body)
	default:
		return fmt.Errorf("%s: Nomad answered %d %s", what, code, body)
	}
}

// clean makes a body fit for one line, without the token.
func (c *Client) clean(body string) string {
	body = strings.Join(strings.Fields(body), " ")
	if c.secret != "" {
		body = strings.ReplaceAll(body, c.secret, "…")
	}
	if runes := []rune(body); len(runes) > 200 {
		body = string(runes[:199]) + "…"
	}
	return transport.Printable(body)
}
