package web

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/signin"
	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/forge"
	"example.com/converge/pkg/pagetime"
)

// view is one build, as templates take it. Its texts come from strangers.
type view struct {
	frame
	ID, Page, Path string
	Repo, RepoPage string
	Commit, Short  string
	CommitPage     string
	Branch, Flavor string
	Job, Sender    string
	Pull, PullPage string
	Origin         string // of a fork
	Manual         bool
	Trusted        bool
	Approved       string
	Rerun, RerunOf string
	State, Reason  string
	Live           bool
	Created        pagetime.Time
	Took           string
	Allocation     string
	Session        *session
	Can            []action
	CommandLine    bool // actions are there only
}

// session is a debug session.
type session struct {
	Line, URL string
	Until     pagetime.Time
	Clock     string
	Open      bool
}

// action is a form.
type action struct{ Name, Label, Hint string }

// view makes what a person sees of a build that he may see. act asks whether he
// may act on it.
func (w *Web) view(ctx context.Context, b build.Build, p *signin.Person, act bool) view {
	now := w.now()
	v := view{
		frame: w.frame(p, page(b.ID)),
		ID:    shown(b.ID), Page: w.prefix + page(b.ID), Path: w.prefix + "/builds/" + url.PathEscape(b.ID),
		Repo: shown(bare(b.Repo)), Commit: shown(b.Commit), Short: shown(b.Commit[:min(len(b.Commit), 10)]), Branch: shown(b.Branch), Flavor: shown(b.Flavor),
		Job: shown(b.Job), Sender: shown(b.Sender), Manual: b.Kind == build.Manual, Trusted: b.Trusted, Approved: shown(b.ApprovedBy),
		State: string(b.State), Reason: shown(b.Reason), Live: b.State.Live(), Created: ago(b.Created, now), Allocation: shown(b.Allocation),
		CommandLine: w.door == nil,
	}
	if v.Reason == v.State {
		v.Reason = ""
	}
	if b.Pull > 0 {
		v.Pull = strconv.Itoa(b.Pull)
	}
	if b.Origin != b.Repo {
		v.Origin = shown(bare(b.Origin))
	}
	if b.RerunOf != "" {
		v.RerunOf, v.Rerun = shown(b.RerunOf), w.prefix+page(b.RerunOf)
	}
	switch {
	case b.Started.IsZero():
	case b.Ended.IsZero():
		v.Took = "for " + pagetime.Span(now.Sub(b.Started))
	default:
		v.Took = "took " + exactSpan(b.Ended.Sub(b.Started))
	}
	if at, err := w.place(ctx, b.Repo); err == nil && at != nil {
		v.Repo, v.RepoPage = at.Path, at.String()
		if forge.IsCommit(b.Commit) {
			v.CommitPage = at.CommitPage(b.Commit)
		}
		if v.Pull != "" {
			v.PullPage = at.PullPage(v.Pull)
		}
	}
	if s := b.Debug; s != nil {
		v.Session = &session{Line: s.Line, URL: webAddress(s.URL), Until: pagetime.Until(s.Until, now), Clock: s.Until.UTC().Format("15:04 MST"), Open: !s.Closed && now.Before(s.Until)}
	}
	if act && p != nil {
		v.Can = w.can(ctx, b, p)
	}
	return v
}

// can are the actions that a person has on a build. Whoever does them asks again.
func (w *Web) can(ctx context.Context, b build.Build, p *signin.Person) []action {
	trusted, err := w.opt.Guard.Trusted(ctx, b.Repo, acting(p))
	if err != nil {
		w.log.Warn("it cannot be told who is trusted", "err", err)
	}
	switch {
	case !trusted || err != nil:
		return nil
	case b.State == build.Waiting:
		return []action{
			{"approve", "Approve this commit", "It is built with the repository's secrets. Read the change first."},
			{"cancel", "Do not build", ""},
		}
	case b.State.Live():
		return []action{{"cancel", "Cancel", ""}}
	case b.Debug != nil && !b.Debug.Closed && w.now().Before(b.Debug.Until):
		return []action{{"cancel", "End the session", ""}, {"rerun", "Run again", ""}}
	}
	return []action{{"rerun", "Run again", ""}}
}

// shown bounds and cleans what a stranger can put on a page.
func shown(text string) string { return apicall.Clip(text, 200) }

// bare is a URL without a name and password in it.
func bare(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = nil
	return u.String()
}

// webAddress is an address that a link may lead to, or "".
func webAddress(text string) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return ""
	}
	return text
}

// ago says how long it has been; none where it has not.
func ago(t, now time.Time) pagetime.Time {
	if t.IsZero() {
		return pagetime.Time{}
	}
	p := pagetime.Since(t, now)
	p.Said += " ago"
	return p
}

// exactSpan says a duration that is over.
func exactSpan(d time.Duration) string {
	seconds := max(0, int(d.Round(time.Second)/time.Second))
	switch {
	case seconds < 60:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%d min %02d s", seconds/60, seconds%60)
	}
	return fmt.Sprintf("%d h %02d min", seconds/3600, seconds/60%60)
}
