package access

import (
	"slices"

	"example.com/converge/server/internal/oidc"
)

// sight is what a viewer may see by some rules, made once: it is asked of every
// agent whenever a page is looked at.
type sight struct {
	rules  *rules
	claims oidc.Claims // of an OIDC token
	all    bool
	ids    []pattern
}

// Sees reports whether a viewer may see an agent, by the rules as they are now.
func (g *Guard) Sees(grant *Grant, id string) bool {
	s := g.sight(grant)
	return s.all || slices.ContainsFunc(s.ids, func(p pattern) bool { return p.matches(id) })
}

// sight returns what a viewer may see. It is not changed any more.
func (g *Guard) sight(grant *Grant) *sight {
	g.mu.Lock()
	defer g.mu.Unlock()
	if grant.sight != nil && grant.sight.rules == g.rules {
		return grant.sight
	}
	s := &sight{rules: g.rules}
	switch grant.kind {
	case byToken:
		t := g.rules.tokens.same(grant.token)
		if t == nil || !slices.Contains(t.roles, Viewer) {
			break
		}
		s.all = len(t.ids) == 0
		for _, ids := range t.ids {
			s.ids = append(s.ids, ids.fixed)
		}
	case byOIDC:
		if grant.sight != nil {
			s.claims = grant.sight.claims
		} else {
			s.claims = grant.identity.Claims()
		}
		for r := range g.rules.policy.met(grant.identity.Issuer, s.claims, Viewer) {
			for _, ids := range r.ids {
				if p, ok := ids.with(s.claims); ok {
					s.ids = append(s.ids, p)
				}
			}
		}
	}
	grant.sight = s
	return s
}
