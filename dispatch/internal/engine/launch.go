package engine

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/converge/dispatch/internal/archive"
	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/trust"
	"example.com/converge/pkg/forge"
)

// The keys of the meta that our own builders permit beside the contract's, so
// that Nomad keeps what would otherwise be known here alone.
const (
	metaEnvelope   = "DISPATCH_ENVELOPE"
	metaRepo       = "DISPATCH_REPO"
	metaSender     = "DISPATCH_SENDER"
	metaKind       = "DISPATCH_KIND"
	metaPull       = "DISPATCH_PULL"
	metaTrusted    = "DISPATCH_TRUSTED"
	metaApprovedBy = "DISPATCH_APPROVED_BY"
	metaRerunOf    = "DISPATCH_RERUN_OF"
	metaNonce      = "DISPATCH_NONCE"
)

// MetaOptional are those keys, for dispatch check.
var MetaOptional = []string{metaEnvelope, metaRepo, metaSender, metaKind, metaPull, metaTrusted, metaApprovedBy, metaRerunOf, metaNonce}

// waitPrefix begins the id of a build that waits, which Nomad does not know.
const waitPrefix = "wait-"

// maxWaiting is how many builds of a repository wait for approval.
const maxWaiting = 200

// contractTTL is how long a job's contract is believed.
const contractTTL = 30 * time.Second

type contract struct {
	nomad.Contract
	at time.Time
}

// Want is a build that is asked for.
type Want struct {
	Repo *repos.Repo
	// Origin is the clone URL of the code; Fork says that it is not Repo's.
	Origin string
	Fork   bool
	Commit, Branch,
	Flavor, Sender string
	Kind Kind
	Pull int
	// Before is the commit that the branch was at before the push, or "".
	Before string
	// Asked is when the webhook came, which may have been kept since; zero is now.
	Asked time.Time
	// Secrets overrides what sender and origin lead to, where it is not nil: for
	// what a trusted person asks for.
	Secrets             *bool
	ApprovedBy, RerunOf string
	// Token makes a repeated question the same one; "" is a new one.
	Token string
}

// Kind is build.Kind.
type Kind = build.Kind

// Launch dispatches a build, or lets it wait for approval, and returns it. The
// error is one of package nomad's.
func (e *Engine) Launch(ctx context.Context, w Want) (build.Build, error) {
	job, ok := e.JobFor(w.Flavor)
	if !ok {
		return build.Build{}, fmt.Errorf("%w: no job is named for the flavour %s", nomad.ErrNoJob, w.Flavor)
	}
	d := trust.Decide(trust.Input{Sender: w.Repo.IsTrusted(w.Sender), Pull: w.Kind == build.PullRequest, Fork: w.Fork, Approved: w.ApprovedBy != ""})
	if w.Secrets != nil {
		d = trust.Decision{Run: true, Secrets: *w.Secrets}
	}
	if w.Asked.IsZero() {
		w.Asked = time.Now()
	}
	r := archive.Record{Before: w.Before, Asked: w.Asked.UTC(), Build: build.Build{
		Repo: w.Repo.URL, Origin: w.Origin, Commit: w.Commit, Branch: w.Branch, Flavor: w.Flavor, Job: job, Sender: w.Sender, Kind: w.Kind, Pull: w.Pull,
		Trusted: d.Secrets, ApprovedBy: w.ApprovedBy, RerunOf: w.RerunOf, State: build.Queued, Reason: nomad.ReasonQueued, Exit: -1, Created: time.Now().UTC(),
	}}
	if !d.Run {
		return e.hold(r), nil
	}
	if w.Token == "" {
		w.Token = rand.Text()
	}
	r.Nonce = hex.EncodeToString(e.mac("nonce", w.Token)[:16])
	id, err := e.dispatch(ctx, &r, w)
	if errors.Is(err, nomad.ErrContract) { // it may have been changed since
		e.mu.Lock()
		delete(e.contracts, job)
		e.mu.Unlock()
		id, err = e.dispatch(ctx, &r, w)
	}
	if err != nil {
		return build.Build{}, err
	}
	r.ID = id
	e.mu.Lock()
	defer e.mu.Unlock()
	over := e.builds[id] != nil && e.builds[id].rec.Over // the delivery came again
	x := e.learn(r)
	e.settle(id)
	if w.Repo.CancelSuperseded && w.RerunOf == "" && !over {
		e.supersede(x.rec)
	}
	return public(x.rec), nil
}

func (e *Engine) dispatch(ctx context.Context, r *archive.Record, w Want) (string, error) {
	k, err := e.contract(ctx, r.Job)
	if err != nil {
		return "", err
	}
	if len(k.Problems) > 0 {
		return "", fmt.Errorf("dispatch the job %s: %w: %s", r.Job, nomad.ErrContract, strings.Join(k.Problems, "; "))
	}
	meta := map[string]string{"REPO_URL": r.Origin, "COMMIT": r.Commit, "BRANCH": r.Branch, "FLAVOR": r.Flavor}
	for key, value := range e.toMeta(*r) {
		if k.Permits(key) && value != "" {
			meta[key] = value
		}
	}
	if !k.Permits(metaNonce) {
		r.Nonce = ""
	}
	var payload []byte
	if r.Trusted && k.Payload != "forbidden" {
		payload = w.Repo.Inject
		if debug := e.debugLines(w.Repo, r.Nonce); k.Permits(metaEnvelope) && (len(payload) > 0 || debug != "") {
			meta[metaEnvelope] = "1"
			payload = slicesJoin("converge-dispatch 1\n", debug, "\n", string(w.Repo.Inject))
		}
	}
	return e.o.Nomad.Dispatch(ctx, r.Job, meta, payload, w.Token)
}

func slicesJoin(parts ...string) []byte {
	var all bytes.Buffer
	for _, p := range parts {
		all.WriteString(p)
	}
	return all.Bytes()
}

// contract reads what a job permits, not more often than it may change.
func (e *Engine) contract(ctx context.Context, job string) (nomad.Contract, error) {
	e.mu.Lock()
	k, ok := e.contracts[job]
	e.mu.Unlock()
	if ok && time.Since(k.at) < contractTTL {
		return k.Contract, nil
	}
	fresh, err := e.o.Nomad.Contract(ctx, job)
	if err != nil {
		return nomad.Contract{}, err
	}
	e.mu.Lock()
	e.contracts[job] = contract{*fresh, time.Now()}
	e.mu.Unlock()
	return *fresh, nil
}

// debugLines are the lines of the envelope by which a failed build opens a
// session; "" where it does not.
func (e *Engine) debugLines(repo *repos.Repo, nonce string) string {
	s := e.o.Settings
	if s.Debug.Server == "" || nonce == "" || len(e.key) == 0 {
		return ""
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" && !strings.ContainsAny(value, "\r\n") {
			fmt.Fprintf(&b, "%s=%s\n", name, value)
		}
	}
	line("DISPATCH_DEBUG_URL", s.PublicURL.String()+"/builds/")
	line("DISPATCH_DEBUG_TOKEN", e.debugToken(nonce))
	line("DISPATCH_DEBUG_SERVER", s.Debug.Server)
	line("DISPATCH_DEBUG_FOR", s.Debug.For.String())
	line("CONVERGE_AGENT_TOKEN", s.Debug.Token)
	name := map[forge.Kind]string{forge.Gitea: "GITEA", forge.GitHub: "GITHUB", forge.GitLab: "GITLAB"}[repo.Forge.Kind]
	if name != "" && repo.Forge.URL != "" {
		line("CONVERGE_AGENT_"+name+"_URL", repo.Forge.URL)
		for _, login := range repo.Trusted {
			line("CONVERGE_AGENT_"+name+"_USER", login)
		}
	}
	for _, key := range repo.DebugKeys {
		line("CONVERGE_AGENT_AUTHORIZED_KEY", key)
	}
	return b.String()
}

func (e *Engine) mac(what, text string) []byte {
	m := hmac.New(sha256.New, e.key)
	m.Write([]byte(what + "\n" + text))
	return m.Sum(nil)
}

// debugToken is what a builder reports with.
func (e *Engine) debugToken(nonce string) string {
	return base64.RawURLEncoding.EncodeToString(e.mac("debug", nonce))
}

// hold lets a fork's pull request wait, in place of an older commit of it.
func (e *Engine) hold(r archive.Record) build.Build {
	sum := sha256.Sum256([]byte(strings.Join([]string{r.Repo, r.Origin, r.Commit, r.Branch, r.Flavor, strconv.Itoa(r.Pull)}, "\n")))
	r.ID, r.State, r.Reason = waitPrefix+hex.EncodeToString(sum[:8]), build.Waiting, "waiting for approval"
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.builds[r.ID]
	if x != nil && (x.rec.State == build.Waiting || x.rec.Became != "") { // the delivery came again
		if became := e.builds[x.rec.Became]; became != nil {
			x = became
		}
		return public(x.rec)
	}
	var waiting []*entry // of the repository
	for _, other := range e.builds {
		o := other.rec
		switch {
		case o.State != build.Waiting || o.Became != "" || o.Repo != r.Repo:
		case o.Pull == r.Pull && o.Flavor == r.Flavor:
			e.dismiss(other, "superseded by a newer commit")
		default:
			waiting = append(waiting, other)
		}
	}
	if len(waiting) >= maxWaiting { // whoever may open pull requests could go on for ever
		e.dismiss(slices.MinFunc(waiting, func(a, b *entry) int { return a.rec.Created.Compare(b.rec.Created) }), "too many pull requests wait")
	}
	if x != nil { // it was closed, and opened again
		r.Told = x.rec.Told
		x.rec = r
		e.update(x)
		return public(x.rec)
	}
	return public(e.learn(r).rec)
}

// Drop ends what waits for approval of a pull request that was closed.
func (e *Engine) Drop(repo string, pull int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, x := range e.builds {
		if x.rec.State == build.Waiting && x.rec.Became == "" && x.rec.Repo == repo && x.rec.Pull == pull {
			e.dismiss(x, "the pull request was closed")
		}
	}
}

// dismiss ends a build that waits. The lock is held.
func (e *Engine) dismiss(x *entry, reason string) {
	x.rec.State, x.rec.Reason, x.rec.Over, x.rec.Archived, x.rec.Ended = build.Failure, reason, true, true, time.Now().UTC()
	e.update(x)
}

// supersede stops the builds of older commits of a branch or pull request. The
// lock is held.
func (e *Engine) supersede(r archive.Record) {
	for id, x := range e.builds {
		o := x.rec
		if id == r.ID || o.Over || o.State == build.Waiting || o.Kind == build.Manual || o.Repo != r.Repo || o.Origin != r.Origin || o.Branch != r.Branch || o.Flavor != r.Flavor || o.Commit == r.Commit {
			continue
		}
		asked := o.Asked
		if asked.IsZero() {
			asked = o.Created
		}
		// Deliveries come in any order, and those that were kept are done in any: this
		// one is the older.
		if o.Before != "" && o.Before == r.Commit || r.Asked.Before(asked) && (r.Before == "" || r.Before != o.Commit) {
			id = r.ID
		}
		e.start(func(ctx context.Context) {
			if err := e.o.Nomad.Stop(ctx, id); err != nil {
				e.log.Warn("a superseded build cannot be stopped", "build", id, "err", err)
			}
		})
	}
}

// Same returns the build that another kind of event has led to and that makes this
// one needless: a forge sends a push and a pull request for one commit. What was
// pushed is not built again for its pull request, which has no secrets; and what is
// being built for a pull request is pushed by a trusted sender for them.
func (e *Engine) Same(w Want) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, x := range e.builds {
		r := x.rec
		if r.Repo != w.Repo.URL || r.Origin != w.Origin || r.Commit != w.Commit || r.Branch != w.Branch || r.Flavor != w.Flavor {
			continue
		}
		if w.Kind == build.PullRequest && r.Kind == build.Push || w.Kind == build.Push && r.Kind == build.PullRequest && r.State.Live() && !w.Repo.IsTrusted(w.Sender) {
			return id, true
		}
	}
	return "", false
}

// toMeta is what Nomad keeps of a record, where the job permits it.
func (e *Engine) toMeta(r archive.Record) map[string]string {
	pull, trusted := "", "false"
	if r.Trusted {
		trusted = e.seal(r)
	}
	if r.Pull > 0 {
		pull = strconv.Itoa(r.Pull)
	}
	return map[string]string{
		metaRepo: r.Repo, metaSender: r.Sender, metaKind: string(r.Kind), metaPull: pull, metaTrusted: trusted,
		metaApprovedBy: r.ApprovedBy, metaRerunOf: r.RerunOf, metaNonce: r.Nonce,
	}
}

// seal shows that a build has got its repository's secrets from somebody who has
// the key: whoever may dispatch jobs in Nomad could claim it, and a trusted person
// would run his code again with them.
func (e *Engine) seal(r archive.Record) string {
	if len(e.key) == 0 {
		return "true" // which nobody believes
	}
	return hex.EncodeToString(e.mac("trusted", strings.Join([]string{r.Repo, r.Origin, r.Commit, r.Branch, r.Flavor}, "\n"))[:16])
}

// fromMeta is the other way.
func (e *Engine) fromMeta(c nomad.Child) archive.Record {
	m := c.Meta
	r := archive.Record{Nonce: m[metaNonce], Build: build.Build{
		ID: c.ID, Repo: m[metaRepo], Origin: m["REPO_URL"], Commit: m["COMMIT"], Branch: m["BRANCH"], Flavor: m["FLAVOR"], Job: c.Parent,
		Sender: m[metaSender], Kind: build.Kind(m[metaKind]), ApprovedBy: m[metaApprovedBy], RerunOf: m[metaRerunOf],
		State: build.Queued, Reason: nomad.ReasonQueued, Exit: -1, Created: c.Submitted.UTC(),
	}}
	if r.Repo == "" {
		r.Repo = r.Origin
	}
	if r.Kind == "" {
		r.Kind = build.Push
	}
	r.Pull, _ = strconv.Atoi(m[metaPull])
	r.Trusted = len(e.key) > 0 && equal(e.seal(r), m[metaTrusted])
	return r
}
