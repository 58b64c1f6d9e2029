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
)

// clock is a time as a page has it: exact for programs, and as it is said.
type clock struct{ Exact, Said string }

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
	Created        clock
	Took           string
	Allocation     string
	Session        *session
	Can            []action
	CommandLine    bool // actions are there only
}

// session is a debug session.
type session struct {
	Line, URL string
	Until     clock
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
		v.Took = "for " + span(now.Sub(b.Started))
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
		v.Session = &session{Line: s.Line, URL: webAddress(s.URL), Until: ahead(s.Until, now), Clock: s.Until.UTC().Format("15:04 MST"), Open: !s.Closed && now.Before(s.Until)}
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

func exact(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func ago(t, now time.Time) clock {
	if t.IsZero() {
		return clock{}
	}
	return clock{exact(t), span(now.Sub(t)) + " ago"}
}

func ahead(t, now time.Time) clock {
	if d := t.Sub(now); d > 0 {
		return clock{exact(t), "in " + span(d)}
	}
	return clock{exact(t), "now"}
}

// span says a duration that is still running roughly: a page that says little
// changes seldom.
func span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "a moment"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/(10*time.Second))*10)
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d", int(d/time.Hour), int(d/time.Minute)%60)
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
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
