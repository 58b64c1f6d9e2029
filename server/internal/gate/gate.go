// Package gate stands between the front door and the rendezvous: it asks the
// limits and the rules of access about everybody who comes, and writes down
// who came and what became of it. It knows nothing of what is said afterwards.
package gate

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/access"
	"example.com/converge/server/internal/audit"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
	"example.com/converge/server/internal/limits"
)

// Meter counts; all methods may be called concurrently.
type Meter interface {
	// Refused counts somebody who was not let in, or did not get through: role
	// is agent, client, data or viewer, reason one of a few words.
	Refused(role, reason string)
	// Joined counts who is in, with how long it took from the request on; Left
	// counts it out, with how long it was there.
	Joined(role string, took time.Duration)
	Left(role string, lasted time.Duration)
}

// Config is what a Gate needs.
type Config struct {
	// Guard decides; it must not be nil.
	Guard *access.Guard
	// Limits bound all but exempt addresses; nil bounds nobody.
	Limits *limits.Limits
	// Audit may be nil.
	Audit *audit.Log
	// Meter may be nil.
	Meter Meter
	// AddrOf is a requester's address.
	AddrOf func(*http.Request) netip.Addr
	// Logger may be nil.
	Logger *slog.Logger
}

// Gate lets people through to the endpoints behind it. Its methods may be
// called concurrently.
type Gate struct {
	cfg  Config
	log  *slog.Logger
	next front.Endpoints
}

// New makes a Gate. To must be called before it serves.
func New(cfg Config) *Gate {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Meter == nil {
		cfg.Meter = noMeter{}
	}
	return &Gate{cfg: cfg, log: cfg.Logger}
}

// To sets what is behind the gate: a Hub whose PassOf is PassOf.
func (g *Gate) To(next front.Endpoints) *Gate {
	g.next = next
	return g
}

type noMeter struct{}

func (noMeter) Refused(string, string)       {}
func (noMeter) Joined(string, time.Duration) {}
func (noMeter) Left(string, time.Duration)   {}

// passKey is the key of a request's pass in its context.
type passKey struct{}

// PassOf is for hub.Config.
func PassOf(r *http.Request) hub.Pass {
	if p, ok := r.Context().Value(passKey{}).(*pass); ok {
		return p
	}
	return nil
}

// ServeAgent implements front.Endpoints.
func (g *Gate) ServeAgent(w http.ResponseWriter, r *http.Request, id string) {
	if p := g.enter(w, r, limits.Agent, id); p != nil {
		g.next.ServeAgent(w, p.request(r), id)
	}
}

// ServeClient implements front.Endpoints.
func (g *Gate) ServeClient(w http.ResponseWriter, r *http.Request, id string) {
	if p := g.enter(w, r, limits.Client, id); p != nil {
		g.next.ServeClient(w, p.request(r), id)
	}
}

// ServeData implements front.Endpoints. The dial-back's own token is its
// credential: it is only kept from guessing.
func (g *Gate) ServeData(w http.ResponseWriter, r *http.Request) {
	if p := g.enter(w, r, limits.Data, ""); p != nil {
		g.next.ServeData(w, p.request(r))
	}
}

// enter lets a request in, or answers it and returns nil.
func (g *Gate) enter(w http.ResponseWriter, r *http.Request, kind limits.Kind, id string) *pass {
	p := &pass{gate: g, kind: kind, id: id, addr: g.cfg.AddrOf(r), came: time.Now()}
	if kind == limits.Client {
		p.session = rendezvous.NewSession()
		w.Header().Set(rendezvous.SessionHeader, p.session)
	}
	// A proxy on the same machine whose word nobody has said to believe stands
	// for many; and who is on this machine has other ways to use it up.
	if g.cfg.Limits != nil && !p.addr.IsLoopback() {
		ticket, exceeded := g.cfg.Limits.Enter(p.addr, kind)
		if exceeded != nil {
			p.limited(w, exceeded)
			return nil
		}
		p.ticket = ticket
	}
	if kind == limits.Data {
		return p
	}
	role := access.Client
	if kind == limits.Agent {
		role = access.Agent
	}
	grant, err := g.cfg.Guard.Admit(r.Context(), access.Request{
		Role: role, ID: id, Authorization: r.Header.Get("Authorization"), Key: runKey(r),
	})
	if err == nil {
		p.grant = grant
		if p.ticket != nil {
			if exceeded := p.ticket.Come(id, !grant.Unproved()); exceeded != nil {
				p.limited(w, exceeded)
				g.cfg.Guard.End(grant)
				p.ticket.End()
				return nil
			}
		}
		return p
	}
	status, text := http.StatusUnauthorized, err.Error()
	var denied *access.Denied
	if errors.As(err, &denied) {
		status = denied.Status
		err = errors.Join(err, denied.Cause)
	}
	p.log().Warn(p.role()+" refused", "status", status, "err", err)
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="converge"`) // RFC 6750 §3
	}
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	p.Ended(hub.End{Status: status, Reason: text})
	refuse(w, status, text)
	return nil
}

// limited answers somebody who met a limit.
func (p *pass) limited(w http.ResponseWriter, exceeded *limits.Exceeded) {
	p.gate.cfg.Meter.Refused(p.role(), "limit-"+exceeded.Limit)
	if exceeded.First { // a flood is not to become one of lines
		p.log().Warn("a limit was met", "limit", exceeded.Limit)
		p.gate.cfg.Audit.Write(p.event("limited", exceeded.Text, http.StatusTooManyRequests))
	}
	w.Header().Set("Retry-After", strconv.Itoa(exceeded.RetryAfter))
	refuse(w, http.StatusTooManyRequests, exceeded.Text)
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, text, status)
}

// runKey is the run key that an agent says it has, or nil.
func runKey(r *http.Request) ed25519.PublicKey {
	key, err := base64.RawURLEncoding.Strict().DecodeString(r.Header.Get(rendezvous.KeyHeader))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil
	}
	return key
}

// pass implements hub.Pass. It is kept for each agent and client, and so holds
// nothing of the request.
type pass struct {
	gate    *Gate
	kind    limits.Kind
	id      string
	addr    netip.Addr
	came    time.Time
	session string         // of a client
	ticket  *limits.Ticket // nil if nothing is limited
	grant   *access.Grant  // nil for dial-backs, and who was refused

	mu     sync.Mutex
	number uint64
	since  time.Time // it joined; zero if it has not
	reason string    // it was ended for
}

func (p *pass) request(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), passKey{}, p))
}

func (p *pass) role() string {
	return map[limits.Kind]string{limits.Agent: "agent", limits.Client: "client", limits.Data: "data"}[p.kind]
}

// log is the gate's, with what tells the pass from others.
func (p *pass) log() *slog.Logger {
	log := p.gate.log.With("id", p.id, "remote", p.addr.String())
	if p.session != "" {
		log = log.With("session", p.session)
	}
	return log
}

// Session implements hub.Pass.
func (p *pass) Session() string { return p.session }

// Prove implements hub.Pass.
func (p *pass) Prove(key ed25519.PublicKey) error {
	err := p.gate.cfg.Guard.Prove(p.grant, key)
	switch {
	case p.ticket == nil:
	case err != nil:
		p.ticket.Failed()
	case p.grant.Unproved():
		p.gate.cfg.Limits.Proved(p.id)
	}
	return err
}

// Joined implements hub.Pass.
func (p *pass) Joined(number uint64, end func(reason string)) {
	if p.ticket != nil {
		p.ticket.Settled()
	}
	now := time.Now()
	p.mu.Lock()
	p.number, p.since = number, now
	p.mu.Unlock()
	p.gate.cfg.Meter.Joined(p.role(), now.Sub(p.came))
	if p.gate.cfg.Audit != nil {
		p.gate.cfg.Audit.Write(p.event(map[limits.Kind]string{limits.Agent: "agent.registered", limits.Client: "client.connected"}[p.kind], "", 0))
	}
	p.gate.cfg.Guard.Follow(p.grant, func(reason string) {
		p.mu.Lock()
		p.reason = "revoked"
		p.mu.Unlock()
		end(reason)
	})
}

// guesses are the answers to somebody who may have been guessing.
var guesses = map[int]string{
	http.StatusUnauthorized: "credential", http.StatusForbidden: "forbidden", http.StatusNotFound: "no-such-id",
}

// Ended implements hub.Pass.
func (p *pass) Ended(e hub.End) {
	if p.grant != nil {
		p.gate.cfg.Guard.End(p.grant)
	}
	word := guesses[e.Status]
	if e.Away {
		word = ""
	}
	if p.ticket != nil {
		if word != "" {
			p.ticket.Failed()
		}
		p.ticket.End()
	}
	p.mu.Lock()
	since, reason := p.since, e.Reason
	if p.reason != "" {
		reason = p.reason
	}
	p.mu.Unlock()
	if since.IsZero() {
		if p.kind == limits.Data && e.Status == 0 {
			return
		}
		if word == "" {
			word = map[bool]string{true: "away", false: "failed"}[e.Away]
		}
		p.gate.cfg.Meter.Refused(p.role(), word)
		if p.gate.cfg.Audit != nil {
			p.gate.cfg.Audit.Write(p.event(p.role()+".refused", reason, e.Status))
		}
		return
	}
	p.gate.cfg.Meter.Left(p.role(), time.Since(since))
	if p.gate.cfg.Audit == nil {
		return
	}
	event := p.event(map[limits.Kind]string{limits.Agent: "agent.gone", limits.Client: "client.ended"}[p.kind], reason, 0)
	seconds := time.Since(since).Round(time.Millisecond).Seconds()
	event.Seconds = &seconds
	if p.kind == limits.Client {
		event.ToAgent, event.ToClient = &e.ToAgent, &e.ToClient
	}
	p.gate.cfg.Audit.Write(event)
}

// event describes the pass.
func (p *pass) event(name, result string, status int) audit.Event {
	p.mu.Lock()
	number := p.number
	p.mu.Unlock()
	e := audit.Event{Event: name, ID: p.id, Client: number, Session: p.session, Status: status, Result: result}
	if p.addr.IsValid() {
		e.Remote = p.addr.String()
	}
	if p.grant != nil {
		s := p.grant.Subject()
		e.Credential, e.Subject, e.Issuer, e.Rule, e.Claims = s.Credential, s.Name, s.Issuer, s.Rule, s.Claims
		if e.Credential == "" {
			e.Credential = "none"
		}
	}
	return e
}
