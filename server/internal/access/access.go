// Package access decides who may use the server: whether a credential is good,
// what it lets its holder do, and when that ends. It knows static tokens and a
// policy for OIDC tokens, both in files that it follows. It knows nothing of
// connections beyond how to end one, nor of rates and numbers.
package access

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"example.com/converge/pkg/files"
	"example.com/converge/server/internal/oidc"
)

// recheck is how often the files are looked at.
const recheck = time.Second

// Config is what a Guard needs. The zero value lets everybody do everything.
type Config struct {
	// Tokens and Policy are the files; "" for none. With either, whoever shows
	// nothing that they let in is refused.
	Tokens, Policy string
	// Anonymous are the roles that need no credential all the same.
	Anonymous []Role
	// Former, if not nil, is the guard whose rules hold: the files are read as its
	// Use would, to see whether they could be.
	Former *Guard
	// Reloaded, if not nil, is told of each reload, before it ends anything.
	Reloaded func(err error)
	// Logger may be nil.
	Logger *slog.Logger
}

// Guard is who decides. Its methods may be called concurrently.
type Guard struct {
	cfg Config
	log *slog.Logger
	now func() time.Time

	open bool // nobody needs a credential

	reloading sync.Mutex

	mu      sync.Mutex
	rules   *rules    // never changed, but replaced
	problem string    // what was logged last about changed files
	loaded  time.Time // when the rules were read
	live    map[*Grant]func(reason string)
	bound   bindings
}

// rules is what the files say at one time.
type rules struct {
	files    [2]string // of the tokens and of the policy; "" for none
	text     [2]string // that was in them, to see changes
	once     [2]bool   // a pipe or the like, which gives its text but once
	tokens   tokens
	policy   *policy
	verifier *oidc.Verifier
}

// Open reads the files. The error names the file and the line.
func Open(cfg Config) (*Guard, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	g := &Guard{
		cfg: cfg, log: cfg.Logger, now: time.Now, open: cfg.Tokens == "" && cfg.Policy == "",
		live: make(map[*Grant]func(string)), bound: newBindings(),
	}
	var former *rules
	if cfg.Former != nil {
		former = cfg.Former.present()
	}
	var err error
	if g.rules, err = load([2]string{cfg.Tokens, cfg.Policy}, former); err != nil {
		return nil, err
	}
	g.loaded = g.now()
	for _, text := range g.rules.policy.warnings() {
		g.log.Warn("the policy lets in more than it may seem: " + text)
	}
	return g, nil
}

// Everybody reports whether a role needs no credential. A viewer always does.
func (g *Guard) Everybody(role Role) bool {
	return role != Viewer && (g.open || slices.Contains(g.cfg.Anonymous, role))
}

// Describe says in a few words what the files hold.
func (g *Guard) Describe() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	count := 0
	for _, i := range g.rules.policy.issuers {
		count += len(i.rules)
	}
	return fmt.Sprintf("%d static tokens, %d rules for the OIDC tokens of %d issuers", len(g.rules.tokens), count, len(g.rules.policy.issuers))
}

// present returns the rules that hold.
func (g *Guard) present() *rules {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rules
}

// load reads the files, unless they are as they were: then it returns former.
func load(paths [2]string, former *rules) (*rules, error) {
	r := &rules{files: paths, policy: &policy{}}
	for i, path := range paths {
		if path == "" {
			continue
		}
		if err := r.read(i, former); err != nil {
			return nil, fmt.Errorf("cannot read the %s: %w", []string{"token file", "policy"}[i], err)
		}
	}
	if former != nil && former.files == r.files && former.text == r.text {
		return former, nil
	}
	var err error
	if r.tokens, err = parseTokens([]byte(r.text[0])); err != nil {
		return nil, fmt.Errorf("cannot use the token file %s: %w", paths[0], err)
	}
	if former != nil && len(former.tokens) > 0 && paths[0] != "" && len(r.tokens) == 0 {
		return nil, fmt.Errorf("cannot use the token file %s: it has no token any more, which may be half of a change: "+
			"to revoke all tokens, leave one in it that nobody has, or stop the server", paths[0])
	}
	if paths[1] != "" {
		if r.policy, err = parsePolicy([]byte(r.text[1]), filepath.Dir(paths[1])); err != nil {
			return nil, fmt.Errorf("cannot use the policy %s: %w", paths[1], err)
		}
	}
	var verifier *oidc.Verifier
	if former != nil {
		verifier = former.verifier
	}
	if r.verifier, err = oidc.New(r.policy.sources(), verifier); err != nil {
		return nil, fmt.Errorf("cannot use the policy %s: %w", paths[1], err)
	}
	return r, nil
}

// read reads one of the files. At first it may be a pipe, whose text then holds;
// later on nothing but a regular file is opened, so that nobody waits for one.
func (r *rules) read(i int, former *rules) error {
	path := r.files[i]
	if former != nil && former.files[i] == path && former.once[i] {
		r.text[i], r.once[i] = former.text[i], true
		return nil
	}
	read := files.ReadRegular
	if former == nil {
		regular, err := files.Regular(path)
		read, r.once[i] = files.Read, err == nil && !regular
	}
	text, err := read(path, maxFile)
	r.text[i] = string(text)
	return err
}

// Run follows the files until ctx ends, and then is as Close. Contents count,
// not times: what is swapped in by a link or within a second is seen, too.
func (g *Guard) Run(ctx context.Context) {
	if g.open {
		return
	}
	defer g.Close()
	ticker := time.NewTicker(recheck)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			g.Reload()
		case <-ctx.Done():
			return
		}
	}
}

// Close ends what the guard does by itself, which is to fetch issuers' keys, and
// waits for it. It goes on deciding, with the keys that it has.
func (g *Guard) Close() { g.present().verifier.Close() }

// Reload reads the files again, and ends what they allow no more. While they
// cannot be used the last good ones count: it is said in the log, once for
// each mistake.
func (g *Guard) Reload() {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	former := g.present()
	_ = g.reload(former.files, former) // it is in the log
}

// Use has the guard read other files from now on, "" for none. They must not
// open a server that is closed, nor close one that is open: then who is in
// already could not be told from who may be.
func (g *Guard) Use(tokens, policy string) error {
	if g.open != (tokens == "" && policy == "") {
		return errors.New("a server that lets everybody in does so, or does not, until it is started again")
	}
	g.reloading.Lock()
	defer g.reloading.Unlock()
	former := g.present()
	return g.reload([2]string{tokens, policy}, former)
}

// State returns when the rules that hold were read, and why the files cannot be
// used as they are now; "" if they can.
func (g *Guard) State() (loaded time.Time, problem string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.loaded, g.problem
}

// reload reads files. g.reloading is held.
func (g *Guard) reload(files [2]string, former *rules) error {
	loaded, err := load(files, former)
	g.mu.Lock()
	trouble := g.problem
	if err != nil {
		g.problem = err.Error()
	} else {
		g.problem, g.rules = "", loaded
		if loaded != former {
			g.loaded = g.now()
		}
	}
	g.mu.Unlock()
	switch {
	case err != nil && trouble == err.Error():
		return err
	case err == nil && loaded == former:
		if trouble != "" {
			g.log.Info("the files of access are as they were before the mistake: the rules that held are theirs")
		}
		return nil
	}
	if g.cfg.Reloaded != nil {
		g.cfg.Reloaded(err)
	}
	if err != nil {
		g.log.Error("the old rules of access hold on: nothing is revoked", "err", err)
		return err
	}
	for _, text := range loaded.policy.warnings() {
		g.log.Warn("the policy lets in more than it may seem: " + text)
	}
	g.log.Info("rules of access reloaded", "rules", g.Describe())
	g.revoke()
	return nil
}

// revoke ends all live grants that the rules allow no more.
func (g *Guard) revoke() {
	g.mu.Lock()
	var ends []func(string)
	for grant, end := range g.live {
		if _, err := g.allows(grant); err != nil {
			ends = append(ends, end)
			delete(g.live, grant)
		}
	}
	g.mu.Unlock()
	for _, end := range ends {
		end(revokedText)
	}
}

const revokedText = "the server's rules let this credential in no more"

// Denied is why somebody is not let in.
type Denied struct {
	// Status is 401, 403 or 503, as an HTTP answer.
	Status int
	// Text is one sentence for whoever is refused.
	Text string
	// Cause is for logs; it may be nil.
	Cause error
}

func (d *Denied) Error() string { return d.Text }

// Unwrap gives the cause.
func (d *Denied) Unwrap() error { return d.Cause }

func deny(status int, format string, a ...any) *Denied {
	return &Denied{Status: status, Text: fmt.Sprintf(format, a...)}
}

// Request is who wants to be let in.
type Request struct {
	Role Role
	ID   string
	// Authorization is the header's value.
	Authorization string
	// Key is the run key that an agent says it has; it may be nil, and is
	// believed only in Prove.
	Key ed25519.PublicKey
}

// Admit decides. The error is a *Denied. An agent is in only when Prove has
// been called, too.
func (g *Guard) Admit(ctx context.Context, r Request) (*Grant, error) {
	grant := &Grant{role: r.Role, id: r.ID}
	if g.Everybody(r.Role) {
		return grant, nil
	}
	g.mu.Lock()
	rules := g.rules
	if r.Role == Agent && r.Key != nil {
		// A CI's token lives for minutes, an agent longer: the key that came
		// with a token stands for it.
		if identity := g.bound.of(r.Key); identity != nil {
			grant.kind, grant.identity, grant.key = byKey, identity, keyOf(r.Key)
			if rule, err := g.allows(grant); err == nil {
				grant.rule = rule
				g.mu.Unlock()
				return grant, nil
			}
			*grant = Grant{role: r.Role, id: r.ID}
		}
	}
	g.mu.Unlock()

	credential, err := bearer(r)
	if err != nil {
		return nil, err
	}
	switch {
	case oidc.LooksLikeToken(credential):
		identity, err := rules.verifier.Verify(ctx, credential)
		if err != nil {
			status := http.StatusUnauthorized
			if oidc.IsUnavailable(err) {
				status = http.StatusServiceUnavailable
			}
			return nil, &Denied{Status: status, Text: err.Error(), Cause: errors.Unwrap(err)}
		}
		grant.kind, grant.identity = byOIDC, identity
	default:
		t := rules.tokens.find(credential)
		if t == nil {
			return nil, deny(http.StatusUnauthorized, "the token is none of this server's: it may have been revoked")
		}
		grant.kind, grant.token = byToken, t
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	rule, err := g.allows(grant)
	if err != nil {
		return nil, err
	}
	grant.rule = rule
	return grant, nil
}

// bearer takes the credential out of the header (RFC 6750 §2.1).
func bearer(r Request) (string, error) {
	if r.Authorization == "" && r.Role == Viewer {
		return "", deny(http.StatusUnauthorized, "this page is for viewers: sign in with a token")
	}
	if r.Authorization == "" {
		how := "give a token with --token @FILE"
		if r.Role == Agent {
			how += " or an OIDC token with --oidc-token or --oidc-audience"
		}
		return "", deny(http.StatusUnauthorized, "this server lets nobody in without a credential: %s", how)
	}
	scheme, credential, _ := strings.Cut(r.Authorization, " ")
	if credential = strings.TrimSpace(credential); !strings.EqualFold(scheme, "Bearer") || credential == "" {
		return "", deny(http.StatusUnauthorized, "this server takes bearer tokens only: give one with --token @FILE")
	}
	return credential, nil
}

// allows returns the policy's rule by which the present rules allow a grant, or
// why they do not. mu is held.
func (g *Guard) allows(grant *Grant) (rule string, err error) {
	switch grant.kind {
	case byToken:
		t := g.rules.tokens.same(grant.token)
		switch {
		case t == nil:
			return "", deny(http.StatusUnauthorized, "the token is none of this server's: it may have been revoked")
		case !slices.Contains(t.roles, grant.role):
			return "", deny(http.StatusForbidden, "the token is not for %ss", grant.role)
		case grant.role != Viewer && !t.may(grant.id):
			var may []string
			for _, p := range t.ids {
				may = append(may, p.text)
			}
			return "", deny(http.StatusForbidden, "the token is not for the id %q: only for %s", grant.id, list(may))
		}
	case byOIDC, byKey:
		v := g.rules.policy.judge(grant.identity.Issuer, grant.identity.Claims(), grant.role, grant.id)
		switch {
		case v.ok, grant.role == Viewer && len(v.may) > 0: // what it sees is another question
			return v.rule, nil
		case len(v.may) > 0:
			return "", deny(http.StatusForbidden, "the OIDC token is not for the id %q: only for %s", grant.id, list(v.may))
		default:
			return "", deny(http.StatusForbidden, "no rule of the server's policy lets this OIDC token in: its claims are others than any rule wants")
		}
	}
	return "", nil
}

// list puts a few patterns into a sentence.
func list(may []string) string {
	const most = 5
	if slices.Sort(may); len(may) > most {
		may = append(may[:most:most], "others")
	}
	return strings.Join(slices.Compact(may), ", ")
}

// Follow has end called, from any goroutine, when the rules allow a grant no
// more; it may be called before Follow returns, and after End was. A grant that
// nothing can revoke is not followed.
func (g *Guard) Follow(grant *Grant, end func(reason string)) {
	if grant.kind == anonymous {
		return
	}
	g.mu.Lock()
	_, err := g.allows(grant) // they may have changed since it was admitted
	if err == nil {
		g.live[grant] = end
	}
	g.mu.Unlock()
	if err != nil {
		end(revokedText)
	}
}

// End is to be called once when what a grant was for is over, or did not come
// about.
func (g *Guard) End(grant *Grant) {
	if grant.kind == anonymous {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.live, grant)
	g.bound.release(grant, g.now())
}
