package access

import (
	"crypto/ed25519"
	"crypto/sha256"
	"net/http"
	"time"

	"example.com/converge/server/internal/oidc"
)

// How somebody was let in.
const (
	anonymous = ""
	byToken   = "token"
	byOIDC    = "oidc"
	byKey     = "key"
)

// Grant is that somebody was let in, in a role and for an id.
type Grant struct {
	role Role
	id   string

	kind     string
	token    *token         // of byToken
	identity *oidc.Identity // of byOIDC and byKey
	rule     string         // of the policy
	key      keyHash        // that was proved or, of byKey, must be
	held     bool           // the key's binding counts this grant
	sight    *sight         // of a viewer, by the rules that it was made of; Guard.mu guards it
}

// Unproved reports whether an agent was let in by a run key that it only says it
// has: anybody may say so, until Prove.
func (gr *Grant) Unproved() bool { return gr.kind == byKey }

// auditClaims are what an audit log says of an OIDC token: who and what the
// CI system says it is. None of them is a secret.
var auditClaims = []string{
	"actor", "event_name", "job_id", "job_workflow_ref", "namespace_path", "pipeline_id", "pipeline_source",
	"project_id", "project_path", "ref", "ref_protected", "repository", "repository_id", "repository_owner_id",
	"run_id", "runner_id", "sha", "user_login", "email",
}

// Subject describes a grant for people and logs.
type Subject struct {
	// Credential is "token", "oidc", "key" for the run key that came with an
	// OIDC token before, or "" if none was needed.
	Credential string
	// Name is a static token's name, or an OIDC token's subject.
	Name string
	// Issuer and Rule are of OIDC tokens.
	Issuer, Rule string
	// Claims are some of an OIDC token's claims.
	Claims map[string]string
}

// Subject tells who it is.
func (gr *Grant) Subject() Subject {
	s := Subject{Credential: gr.kind, Rule: gr.rule}
	switch {
	case gr.token != nil:
		s.Name = gr.token.name
	case gr.identity != nil:
		s.Name, s.Issuer, s.Claims = gr.identity.Subject, gr.identity.Issuer, map[string]string{}
		claims := gr.identity.Claims()
		for _, name := range auditClaims {
			if values := claims[name]; len(values) == 1 && len(values[0]) <= 256 {
				s.Claims[name] = values[0]
			}
		}
	}
	return s
}

// Until is when an OIDC token ends, whose holder is to be let in no longer
// than that where nothing stands for it: the zero time for others.
func (gr *Grant) Until() time.Time {
	if gr.kind == byOIDC {
		return gr.identity.Expiry
	}
	return time.Time{}
}

// Limits of what is remembered of OIDC tokens.
const (
	// keepKey is how long after its last connection a run key still stands for
	// the token that it came with.
	keepKey = time.Hour
	// maxBound is how many run keys and how many used tokens are remembered.
	maxBound = 100_000
)

type keyHash [sha256.Size]byte

func keyOf(key ed25519.PublicKey) keyHash { return sha256.Sum256(key) }

// bindings is which run key came with which OIDC token. The Guard's mutex
// guards it.
type bindings struct {
	keys  map[keyHash]*binding
	used  map[[sha256.Size]byte]use // by the token's hash, and by issuer and jti
	swept time.Time
}

type binding struct {
	identity *oidc.Identity
	live     int       // grants that hold it
	until    time.Time // when it ends, once none does
}

// use is that a token was used: by whom, and how long it could be again.
type use struct {
	key   keyHash
	until time.Time
}

func newBindings() bindings {
	return bindings{keys: map[keyHash]*binding{}, used: map[[sha256.Size]byte]use{}}
}

// of returns the identity that a key stands for, or nil.
func (b *bindings) of(key ed25519.PublicKey) *oidc.Identity {
	if bound := b.keys[keyOf(key)]; bound != nil {
		return bound.identity
	}
	return nil
}

// sweep forgets what is over, once a minute at most.
func (b *bindings) sweep(now time.Time) {
	if now.Sub(b.swept) < time.Minute {
		return
	}
	b.swept = now
	for key, bound := range b.keys {
		if bound.live == 0 && !now.Before(bound.until) {
			delete(b.keys, key)
		}
	}
	for hash, u := range b.used {
		if !now.Before(u.until) {
			delete(b.used, hash)
		}
	}
}

// release counts a grant out.
func (b *bindings) release(grant *Grant, now time.Time) {
	if !grant.held {
		return
	}
	grant.held = false
	if bound := b.keys[grant.key]; bound != nil {
		bound.live--
		bound.until = now.Add(keepKey)
	}
}

// tokenMarks are what a token is recognised by when it comes again: its text,
// and its jti, which two texts of one token have in common.
func tokenMarks(identity *oidc.Identity) [][sha256.Size]byte {
	marks := [][sha256.Size]byte{identity.Hash}
	if identity.ID != "" {
		marks = append(marks, sha256.Sum256([]byte("jti\x00"+identity.Issuer+"\x00"+identity.ID)))
	}
	return marks
}

// Prove is to be called when an agent has proved its run key, before it is
// registered. An OIDC token is bound to the first key that it comes with. The
// error is a *Denied.
func (g *Guard) Prove(grant *Grant, key ed25519.PublicKey) error {
	if grant.identity == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.bound.sweep(now)
	hash := keyOf(key)
	if grant.kind == byKey {
		bound := g.bound.keys[hash]
		if grant.key != hash || bound == nil {
			return deny(http.StatusUnauthorized, "the agent's run key is not the one that came with its OIDC token: give a fresh token")
		}
		bound.live++
		grant.held = true
		return nil
	}
	marks := tokenMarks(grant.identity)
	for _, mark := range marks {
		if u, ok := g.bound.used[mark]; ok && u.key != hash {
			return deny(http.StatusUnauthorized, "the OIDC token has been used by another agent: each agent needs a token of its own")
		}
	}
	if len(g.bound.keys) >= maxBound || len(g.bound.used)+len(marks) > 2*maxBound {
		return deny(http.StatusServiceUnavailable, "the server remembers too many OIDC tokens: try again in a moment")
	}
	for _, mark := range marks {
		g.bound.used[mark] = use{hash, grant.identity.Expiry}
	}
	bound := g.bound.keys[hash]
	if bound == nil {
		bound = &binding{}
		g.bound.keys[hash] = bound
	}
	bound.identity = grant.identity
	bound.live++
	grant.key, grant.held = hash, true
	return nil
}
