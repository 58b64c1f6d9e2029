package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/outbox"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/cmdline"
	"example.com/converge/pkg/forge"
)

// told is a status in the outbox. Its forge and token are looked up when it is
// sent: no secret is in the outbox, and a token that was renewed is used.
type told struct {
	Repo, Commit                 string
	State                        forge.State
	Context, Description, Target string
}

// key is the same for those of which the newest counts.
func (s told) key() string { return strings.Join([]string{"status", s.Repo, s.Commit, s.Context}, " ") }

// forgeStates are the states as forges have them.
var forgeStates = map[build.State]forge.State{
	build.Waiting: forge.Pending, build.Queued: forge.Pending, build.Running: forge.Pending,
	build.Success: forge.Success, build.Failure: forge.Failure, build.Error: forge.Error,
}

// describe is a build's line beside the commit.
func describe(b build.Build) string {
	text := b.Reason
	switch {
	case b.State == build.Waiting:
		text = "waiting for a trusted sender to approve this commit"
	case b.Debug != nil && b.Debug.Closed:
		text += ", debug session ended"
	case b.Debug != nil:
		text += ", debug session open until " + b.Debug.Until.UTC().Format("15:04") + " UTC"
	}
	return text
}

// Page is a build's page.
func (e *Engine) Page(id string) string {
	return e.o.Settings.PublicURL.String() + "/build?job=" + url.QueryEscape(id)
}

// tell gives a build's status to the outbox, if it is another than before. The
// lock is held.
func (e *Engine) tell(x *entry) {
	r := &x.rec
	if e.o.Detached || r.Became != "" {
		return
	}
	s := told{
		Repo: r.Repo, Commit: r.Commit, State: forgeStates[r.State], Context: e.context(r.Flavor), Description: describe(r.Build), Target: e.Page(r.ID),
	}
	now := string(s.State) + " " + s.Description
	if now == r.Told || e.hides(*r) {
		return
	}
	if err := e.statuses.Add(s.key(), s); err != nil {
		e.log.Error("a status cannot be kept, and is lost", "build", r.ID, "err", err)
		return
	}
	r.Told = now
}

// hides reports whether another build speaks for the commit: a newer one, as where
// one that holds a session open was run again; for one of a pull request the push of
// the commit that had the secrets; and for one that waits, or has, any of the
// repository itself. Who opens a pull request must not change what is said of what
// was pushed. The lock is held.
func (e *Engine) hides(r archive.Record) bool {
	waits := func(r archive.Record) bool { return strings.HasPrefix(r.ID, waitPrefix) }
	for _, x := range e.builds {
		o := x.rec
		if o.Repo != r.Repo || o.Commit != r.Commit || o.Flavor != r.Flavor {
			continue
		}
		if waits(r) && o.Origin == r.Repo || outranks(o, r) ||
			!waits(r) && !waits(o) && !outranks(r, o) && o.Created.After(r.Created) {
			return true
		}
	}
	return false
}

// outranks reports whether a build is of a push that had the secrets, and the other
// of a pull request that had not.
func outranks(r, o archive.Record) bool {
	return r.Origin == r.Repo && r.Kind == build.Push && r.Trusted && o.Kind == build.PullRequest && !o.Trusted
}

func (e *Engine) context(flavor string) string { return e.o.Settings.StatusContext + " " + flavor }

// Tell sets the status of a commit for which there is no build, as where one
// could not be dispatched.
func (e *Engine) Tell(repo, commit, flavor string, state build.State, description string) {
	if e.o.Detached {
		return
	}
	s := told{Repo: repo, Commit: commit, State: forgeStates[state], Context: e.context(flavor), Description: description, Target: e.o.Settings.PublicURL.String() + "/builds"}
	if err := e.statuses.Add(s.key(), s); err != nil {
		e.log.Error("a status cannot be kept, and is lost", "repo", repo, "commit", commit, "err", err)
	}
}

// sendStatus is the outbox's.
func (e *Engine) sendStatus(ctx context.Context, _ string, body []byte) outbox.Result {
	var s told
	if err := json.Unmarshal(body, &s); err != nil {
		e.log.Error("a status of the outbox cannot be read, and is lost", "err", err)
		return outbox.Result{Done: true}
	}
	repo, err := e.o.Repos.Get(ctx, s.Repo)
	var bad *repos.BadValue
	switch {
	case errors.Is(err, repos.ErrAway):
		return outbox.Result{}
	case errors.As(err, &bad): // somebody is writing it
		e.log.Warn("a status is not sent yet: its repository's configuration must be mended", "repo", s.Repo, "err", err)
		return outbox.Result{}
	case err != nil:
		e.log.Warn("a status is not sent: its repository has no configuration any more", "repo", s.Repo, "err", err)
		return outbox.Result{Done: true}
	case repo.Forge.URL == "":
		return outbox.Result{Done: true}
	}
	err = e.forges.set(ctx, repo, s)
	var said *apicall.Error
	switch {
	case err == nil:
		e.o.Meter.Status("sent")
		return outbox.Result{Done: true}
	// A token that has run out is renewed, and a certificate, too: then what waits
	// is sent.
	case errors.As(err, &said) && (said.Retry || said.Status == 0 || said.Status == http.StatusUnauthorized):
		e.o.Meter.Status("retried")
		e.log.Warn("a status could not be set: it is tried again", "repo", s.Repo, "commit", s.Commit, "err", err)
		return outbox.Result{After: said.After}
	case ctx.Err() != nil:
		return outbox.Result{}
	}
	e.o.Meter.Status("refused")
	e.log.Error("a status cannot be set: check the forge's url and token in the repository's configuration", "repo", s.Repo, "commit", s.Commit, "err", err)
	return outbox.Result{Done: true}
}

// forges are the clients of forges that are in use.
type forges struct {
	mu  sync.Mutex
	all map[repos.Forge]*forge.Client
}

// maxForges is how many are kept: a token that is renewed makes another one.
const maxForges = 64

func newForges() *forges { return &forges{all: map[repos.Forge]*forge.Client{}} }

func (f *forges) client(at repos.Forge) (*forge.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.all[at]; c != nil {
		return c, nil
	}
	c, err := forge.NewClient(forge.Config{Kind: at.Kind, URL: at.URL, AllowHTTP: true, Token: at.Token, UserAgent: "converge-dispatch/" + cmdline.Version()})
	if err != nil {
		return nil, err
	}
	for old, other := range f.all {
		if len(f.all) < maxForges {
			break
		}
		other.Close()
		delete(f.all, old)
	}
	f.all[at] = c
	return c, nil
}

func (f *forges) set(ctx context.Context, repo *repos.Repo, s told) error {
	c, err := f.client(repo.Forge)
	if err != nil {
		return err
	}
	where, err := forge.Locate(repo.Forge.Kind, repo.Forge.URL, s.Repo)
	if err != nil {
		return fmt.Errorf("find the repository at its forge: %w", err)
	}
	return c.SetStatus(ctx, where.Path, s.Commit, forge.Status{State: s.State, Context: s.Context, Description: s.Description, Target: s.Target})
}

func (f *forges) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for at, c := range f.all {
		c.Close()
		delete(f.all, at)
	}
}
