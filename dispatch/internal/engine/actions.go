package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"
	"unicode"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/transport"
)

// HookToken implements build.Guard.
func (e *Engine) HookToken(ctx context.Context, repo, token string) (bool, error) {
	c, err := e.o.Repos.Get(ctx, repo)
	if err != nil && !errors.Is(err, repos.ErrUnknown) {
		return false, away(err)
	}
	return c.TokenIs(token), nil
}

// away puts build.ErrAway into an error of one of those that are asked.
func away(err error) error {
	if errors.Is(err, repos.ErrAway) || errors.Is(err, nomad.ErrAway) {
		return fmt.Errorf("%w: %w", build.ErrAway, err)
	}
	return err
}

// Trusted implements build.Guard.
func (e *Engine) Trusted(ctx context.Context, repo string, who build.Who) (bool, error) {
	if who.Local {
		return true, nil
	}
	c, err := e.o.Repos.Get(ctx, repo)
	switch {
	case errors.Is(err, repos.ErrUnknown):
		return false, nil
	case err != nil:
		return false, away(err)
	}
	return sameForge(c.Forge.URL, who.Forge) && c.IsTrusted(who.Login), nil
}

// sameForge tells whether two URLs are of one forge: a login of another one is
// somebody else.
func sameForge(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	return errX == nil && errY == nil && x.Host != "" && strings.EqualFold(x.Host, y.Host) &&
		strings.TrimRight(x.Path, "/") == strings.TrimRight(y.Path, "/")
}

// permit finds a build that somebody may change.
func (e *Engine) permit(ctx context.Context, who build.Who, id string) (archive.Record, error) {
	r, err := e.record(ctx, id)
	if err != nil {
		return r, err
	}
	ok, err := e.Trusted(ctx, r.Repo, who)
	switch {
	case err != nil:
		return r, err
	case !ok:
		return r, build.ErrRefused
	}
	return r, nil
}

// Cancel implements build.Actions. A build that has failed and holds a debug
// session open is live, too.
func (e *Engine) Cancel(ctx context.Context, who build.Who, id string) error {
	r, err := e.permit(ctx, who, id)
	if err != nil {
		return err
	}
	if r.State == build.Waiting {
		e.mu.Lock()
		defer e.mu.Unlock()
		x := e.builds[r.ID]
		if x == nil || x.rec.State != build.Waiting || x.rec.Became != "" {
			return build.ErrState
		}
		if e.o.Detached {
			return e.askToDismiss(r.ID)
		}
		e.dismiss(x, nomad.ReasonCancelled)
		return nil
	}
	if r.Over {
		return build.ErrState
	}
	e.log.Info("build is cancelled", "build", r.ID, "by", name(who))
	return away(e.o.Nomad.Stop(ctx, r.ID))
}

func name(who build.Who) string {
	if who.Local {
		return "the command line"
	}
	return who.Login
}

// Rerun implements build.Actions.
func (e *Engine) Rerun(ctx context.Context, who build.Who, id string) (string, error) {
	r, err := e.permit(ctx, who, id)
	switch {
	case err != nil:
		return "", err
	case r.State == build.Waiting || r.Job == "":
		return "", build.ErrState
	}
	return e.again(ctx, r, who, r.Trusted, r.ApprovedBy, id)
}

// Approve implements build.Actions.
func (e *Engine) Approve(ctx context.Context, who build.Who, id string) (string, error) {
	r, err := e.permit(ctx, who, id)
	switch {
	case err != nil:
		return "", err
	case r.State != build.Waiting || r.Became != "":
		return "", build.ErrState
	}
	return e.again(ctx, r, who, true, name(who), "")
}

// again dispatches what is known already.
func (e *Engine) again(ctx context.Context, r archive.Record, who build.Who, secrets bool, approvedBy, rerunOf string) (string, error) {
	repo, err := e.o.Repos.Get(ctx, r.Repo)
	if err != nil {
		return "", away(err)
	}
	w := Want{
		Repo: repo, Origin: r.Origin, Commit: r.Commit, Branch: r.Branch, Flavor: r.Flavor, Sender: r.Sender, Kind: r.Kind, Pull: r.Pull,
		Fork: r.Origin != r.Repo, Secrets: &secrets, ApprovedBy: approvedBy, RerunOf: rerunOf,
	}
	if rerunOf == "" { // approving twice is approving once
		w.Token = "approve " + r.ID
	}
	b, err := e.Launch(ctx, w)
	if err != nil {
		return "", away(err)
	}
	e.log.Info("build is dispatched", "build", b.ID, "by", name(who), "rerun_of", rerunOf, "approved", rerunOf == "")
	return b.ID, nil
}

// LoadWaiting reads builds that wait from the state folder, for a command beside
// the program that serves.
func (e *Engine) LoadWaiting() error {
	all, err := e.kept.All()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range all {
		if r.State == build.Waiting && r.Became == "" {
			e.builds[r.ID] = &entry{rec: r, changed: make(chan struct{})}
		}
	}
	return nil
}

// Limits of what a builder reports.
const (
	maxLine = 4 << 10
)

// Report implements build.Debug.
func (e *Engine) Report(ctx context.Context, id, token string, report build.Report) error {
	r, err := e.record(ctx, id)
	if err != nil {
		return err
	}
	// Compared also where there is no nonce, so that the time does not tell.
	if !equal(e.debugToken(r.Nonce), token) || r.Nonce == "" || len(e.key) == 0 {
		return build.ErrToken
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.builds[r.ID]
	if x == nil {
		return build.ErrUnknown
	}
	if x.rec.Over {
		return build.ErrState
	}
	now := x.rec.Reported
	switch {
	case report.State == build.ReportFailed && now == "":
	case report.State == build.ReportOpen && now != build.ReportClosed:
		// A second time where the agent had to take another id. The first report may
		// have come while nobody was here.
		s := report.Session
		if err := checkSession(&s, e.o.Settings.Debug.For); err != nil {
			return fmt.Errorf("%w: %w", build.ErrState, err)
		}
		x.rec.Debug = &s
	case report.State == build.ReportClosed && (now == build.ReportOpen || now == build.ReportFailed):
		if x.rec.Debug != nil {
			s := *x.rec.Debug
			s.Closed = true
			x.rec.Debug = &s
		}
	case now == report.State || now == build.ReportClosed:
		return build.ErrToken // used before
	default:
		return build.ErrState
	}
	if now == "" {
		x.rec.State, x.rec.Exit, x.rec.Reason, x.rec.Ended = build.Failure, report.Exit, fmt.Sprintf("exit %d", report.Exit), time.Now().UTC()
	}
	x.rec.Reported = report.State
	e.update(x)
	e.o.Meter.Debug(report.State)
	e.log.Info("debug session", "build", r.ID, "state", report.State)
	return nil
}

// checkSession makes what a builder says fit for a page and a status. most is how
// long a session lasts.
func checkSession(s *build.Session, most time.Duration) error {
	s.Closed = false
	if s.Line == "" || len(s.Line) > maxLine || !strings.HasPrefix(s.Line, "ssh ") || strings.ContainsFunc(s.Line, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return errors.New("the line is no ssh command")
	}
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || len(s.URL) > maxLine || transport.Printable(s.URL) != s.URL {
			return errors.New("the URL is no http or https one")
		}
	}
	// The builder's clock may be wrong: a session that has just begun has not ended,
	// and none lasts longer than it was told.
	if now := time.Now(); s.Until.Before(now) || s.Until.After(now.Add(most)) {
		s.Until = now.Add(most)
	}
	s.Until = s.Until.UTC().Truncate(time.Second)
	return nil
}
