package hook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/webhook"
)

// newToken names a delivery: by the forge's own id, so that one that comes again
// is the same, or by chance.
func newToken(d delivery) string {
	if from, err := webhook.Identify(d.Header); err == nil && from.ID != "" {
		// The id is not covered by the signature; the payload is.
		return webhook.Digest(fmt.Appendf(nil, "%s\n%s\n%s\n%s", from.Forge, from.ID, d.Flavor, webhook.Digest(d.Body)))
	}
	return rand.Text()
}

func ignored(format string, a ...any) answer {
	return say(http.StatusOK, "ignored: "+format, a...)
}

// act decides what a verified webhook leads to. about is the clone URL by which
// repo was found.
func (h *Hook) act(ctx context.Context, repo *repos.Repo, about string, d delivery, from *webhook.Delivery, text []byte) answer {
	event, err := from.DecodeJSON(text)
	if err != nil {
		return say(http.StatusBadRequest, "%v", err)
	}
	// What was verified was whose token this is: the rest must be of the same one.
	if p := event.PullRequest; p != nil && p.Base.CloneURL != about || event.Push != nil && event.Push.Repository.CloneURL != about {
		return say(http.StatusBadRequest, "the payload names two repositories")
	}
	if _, ok := h.o.Launcher.JobFor(d.Flavor); !ok || repo.Flavors != nil && !slices.Contains(repo.Flavors, d.Flavor) {
		return say(http.StatusBadRequest, "the flavor %s is not on the list of those that are built", d.Flavor)
	}
	w := engine.Want{Repo: repo, Flavor: d.Flavor, Token: d.Token, Asked: d.Asked}
	switch {
	case event.Ping:
		return ignored("pong")
	case event.Push != nil:
		p := event.Push
		if p.Deleted {
			return ignored("the branch or tag was deleted")
		}
		w.Kind, w.Commit, w.Before, w.Sender, w.Origin = build.Push, p.After, p.Before, p.Sender, repo.URL
		if w.Branch = p.Branch(); w.Branch == "" {
			w.Branch = p.Tag()
		}
		if w.Branch == "" {
			return ignored("what was pushed is neither a branch nor a tag")
		}
	case event.PullRequest != nil:
		p := event.PullRequest
		if p.Closed {
			h.o.Launcher.Drop(repo.URL, p.Number)
			return ignored("the pull request was closed")
		}
		if !p.Moved {
			return ignored("the pull request has no new commit")
		}
		w.Kind, w.Commit, w.Branch, w.Sender, w.Pull, w.Origin = build.PullRequest, p.Commit, p.Branch, p.Sender, p.Number, repo.URL
		if w.Fork = p.Fork; w.Fork {
			if w.Origin = p.Head.CloneURL; w.Origin == "" {
				return ignored("the fork that the pull request comes from is gone")
			}
		}
	default:
		return ignored("it is neither a push nor a pull request")
	}
	if !w.Fork {
		if id, ok := h.o.Launcher.Same(w); ok {
			return ignored("the same commit is built as %s", id)
		}
	}
	b, err := h.o.Launcher.Launch(ctx, w)
	if err != nil {
		return h.failed(w, err)
	}
	a := say(http.StatusOK, "%s", b.ID)
	if b.State == build.Waiting {
		a = say(http.StatusAccepted, "the pull request comes from a fork: it waits for a trusted sender to approve it at %s", h.o.Launcher.Page(b.ID))
	}
	a.log = []any{"build", b.ID, "commit", b.Commit, "flavor", b.Flavor, "sender", b.Sender, "trusted", b.Trusted}
	return a
}

// failed tells forge and commit why there is no build.
func (h *Hook) failed(w engine.Want, err error) answer {
	tell := func(state build.State, text string) { h.o.Launcher.Tell(w.Repo.URL, w.Commit, w.Flavor, state, text) }
	if errors.Is(err, nomad.ErrAway) || errors.Is(err, context.Canceled) {
		tell(build.Queued, "waiting for Nomad")
		a := say(http.StatusServiceUnavailable, "%v", nomad.ErrAway)
		a.keep, a.log = webhook.MaxBody, []any{"err", err}
		return a
	}
	text := err.Error()
	switch {
	case errors.Is(err, nomad.ErrPayload):
		text = nomad.ErrPayload.Error()
	case errors.Is(err, nomad.ErrNoJob):
		job, _ := h.o.Launcher.JobFor(w.Flavor)
		text = fmt.Sprintf("there is no job %s in Nomad", job)
	}
	tell(build.Error, text)
	return say(http.StatusInternalServerError, "%s", text)
}
