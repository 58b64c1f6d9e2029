package gate

import (
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/limits"
)

// Refusal is why somebody may not look.
type Refusal struct {
	// Status and Text are those of the answer.
	Status int
	Text   string
	// RetryAfter is in seconds; 0 is none.
	RetryAfter int
}

func (r *Refusal) Error() string { return r.Text }

// Answer writes the refusal.
func (r *Refusal) Answer(w http.ResponseWriter) {
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(r.RetryAfter))
	}
	if r.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="converge"`)
	}
	refuse(w, r.Status, r.Text)
}

// Viewer is somebody who may look at the sessions page. Its methods may be
// called concurrently.
type Viewer struct {
	guard *access.Guard
	grant *access.Grant
}

// Look asks whether somebody who shows a credential, as the header
// Authorization has it, may look. The error is a *Refusal. End must be called
// for a Viewer. Whoever guesses is held up as agents and clients are.
func (g *Gate) Look(r *http.Request, authorization string) (*Viewer, error) {
	const role = "viewer"
	addr := g.cfg.AddrOf(r)
	var ticket *limits.Ticket
	if g.cfg.Limits != nil && !addr.IsLoopback() {
		var exceeded *limits.Exceeded
		if ticket, exceeded = g.cfg.Limits.Enter(addr, limits.Data); exceeded != nil {
			g.cfg.Meter.Refused(role, "limit-"+exceeded.Limit)
			if exceeded.First {
				g.log.Warn("a limit was met", "limit", exceeded.Limit, "remote", addr.String())
				g.cfg.Audit.Write(viewerEvent("limited", addr, exceeded.Text, http.StatusTooManyRequests))
			}
			return nil, &Refusal{http.StatusTooManyRequests, exceeded.Text, exceeded.RetryAfter}
		}
		defer ticket.End()
	}
	grant, err := g.cfg.Guard.Admit(r.Context(), access.Request{Role: access.Viewer, Authorization: authorization})
	if err == nil {
		return &Viewer{g.cfg.Guard, grant}, nil
	}
	refusal := &Refusal{Status: http.StatusUnauthorized, Text: err.Error()}
	var denied *access.Denied
	if errors.As(err, &denied) {
		refusal.Status = denied.Status
		err = errors.Join(err, denied.Cause)
	}
	word := guesses[refusal.Status]
	switch {
	case word == "":
		word, refusal.RetryAfter = "failed", 5
	case ticket != nil && authorization != "":
		ticket.Failed()
	}
	if authorization != "" { // otherwise it is only the door that was looked at
		g.cfg.Meter.Refused(role, word)
		g.log.Warn("viewer refused", "remote", addr.String(), "status", refusal.Status, "err", err)
		g.cfg.Audit.Write(viewerEvent("viewer.refused", addr, refusal.Text, refusal.Status))
	}
	return nil, refusal
}

// SignedIn writes down that a viewer has signed in with a browser.
func (g *Gate) SignedIn(r *http.Request, v *Viewer) {
	addr, s := g.cfg.AddrOf(r), v.grant.Subject()
	g.log.Info("viewer signed in", "remote", addr.String(), "subject", s.Name)
	e := viewerEvent("viewer.signed-in", addr, "", 0)
	e.Credential, e.Subject, e.Issuer, e.Rule, e.Claims = s.Credential, s.Name, s.Issuer, s.Rule, s.Claims
	g.cfg.Audit.Write(e)
}

func viewerEvent(name string, addr netip.Addr, result string, status int) audit.Event {
	e := audit.Event{Event: name, Result: result, Status: status}
	if addr.IsValid() {
		e.Remote = addr.String()
	}
	return e
}

// Name is a static token's name, or an OIDC token's subject.
func (v *Viewer) Name() string { return v.grant.Subject().Name }

// Owner tells the viewer's credential from others: an OIDC token's subject has
// one, however many tokens.
func (v *Viewer) Owner() string {
	s := v.grant.Subject()
	return s.Credential + "\x00" + s.Issuer + "\x00" + s.Name
}

// Sees reports whether the viewer may see an agent, now.
func (v *Viewer) Sees(id string) bool { return v.guard.Sees(v.grant, id) }

// Until is when the credential ends by itself; the zero time is never.
func (v *Viewer) Until() time.Time { return v.grant.Until() }

// Follow has end called when the viewer may look no more; see
// access.Guard.Follow.
func (v *Viewer) Follow(end func()) { v.guard.Follow(v.grant, func(string) { end() }) }

// End is to be called once, when the viewer has gone.
func (v *Viewer) End() { v.guard.End(v.grant) }
