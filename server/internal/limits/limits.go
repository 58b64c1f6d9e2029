// Package limits keeps single addresses and ids from using a server up, and
// from guessing: it counts what is open and how often something is done. It
// knows nothing of what is done, nor who is allowed to.
package limits

import (
	"fmt"
	"math"
	"net/netip"
	"sync"
	"time"
)

// maxEntries is how many addresses, and how many ids, are counted each by
// itself, at about 200 bytes. What comes beyond shares one count, so that
// whoever has many addresses makes the limits narrower, not wider.
const maxEntries = 1 << 16

// Config are the limits; 0 is none.
type Config struct {
	// Connections is how many an address may have open.
	Connections int
	// Handshakes is how many of them may be unfinished: agents that have not
	// registered and clients that have no agent yet.
	Handshakes int
	// Registrations is how often an address may register agents, a minute.
	Registrations int
	// Failures is how often an address may fail, a minute: by a credential that
	// is none, or an id that is not there.
	Failures int
	// IDClients is how many clients an id may have.
	IDClients int
	// IDConnects and IDRegistrations are how often clients may come to an id,
	// and its agents register, a minute.
	IDConnects, IDRegistrations int
}

// Default are the limits that hold unless others are asked for: far beyond what
// people and CI systems behind one address do, far below what uses a server up.
var Default = Config{
	Connections: 4096, Handshakes: 256, Registrations: 1200, Failures: 120,
	IDClients: 256, IDConnects: 600, IDRegistrations: 120,
}

// Limits counts. Its methods may be called concurrently.
type Limits struct {
	cfg Config
	now func() time.Time

	mu    sync.Mutex
	addrs table[netip.Prefix]
	ids   table[string]
}

// New makes Limits.
func New(cfg Config) *Limits {
	return &Limits{
		cfg: cfg, now: time.Now,
		addrs: table[netip.Prefix]{entries: map[netip.Prefix]*entry{}, most: maxEntries},
		ids:   table[string]{entries: map[string]*entry{}, most: maxEntries},
	}
}

// Set changes the limits. What was counted counts on.
func (l *Limits) Set(cfg Config) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cfg = cfg
}

// table has an entry for each of the keys that were seen lately.
type table[K comparable] struct {
	entries map[K]*entry
	most    int   // entries
	rest    entry // of those for which there is no room
	swept   time.Time
}

// entry counts for one address or one id.
type entry struct {
	users, open, handshakes int    // users are tickets, of which not all count as open
	registrations, failures bucket // an id's failures are its clients' connects
	told                    time.Time
}

// of returns the entry of a key.
func (t *table[K]) of(key K, now time.Time) *entry {
	if e := t.entries[key]; e != nil {
		return e
	}
	if len(t.entries) >= t.most/2 && now.Sub(t.swept) >= time.Second || now.Sub(t.swept) >= time.Minute {
		t.swept = now
		for k, e := range t.entries {
			if e.users == 0 && e.registrations.idle(now) && e.failures.idle(now) {
				delete(t.entries, k)
			}
		}
	}
	if len(t.entries) >= t.most {
		return &t.rest
	}
	e := &entry{}
	t.entries[key] = e
	return e
}

// bucket holds what was done lately; it runs empty within a minute.
type bucket struct {
	level float64 // at the time at
	at    time.Time
	rate  float64 // a minute
}

// now lets the bucket run.
func (b *bucket) run(now time.Time, rate int) {
	b.rate = float64(rate)
	b.level = max(0, b.level-now.Sub(b.at).Minutes()*b.rate)
	b.at = now
}

// wait is how long until there is room for one; 0 is now.
func (b *bucket) wait(now time.Time, rate int) time.Duration {
	if rate <= 0 {
		return 0
	}
	b.run(now, rate)
	if excess := b.level + 1 - b.rate; excess > 1e-9 {
		return time.Duration(excess / b.rate * float64(time.Minute))
	}
	return 0
}

// add puts one in, room or not.
func (b *bucket) add(now time.Time, rate int) {
	if rate > 0 {
		b.run(now, rate)
		b.level++
	}
}

// idle reports whether nothing is in it.
func (b *bucket) idle(now time.Time) bool {
	return b.level == 0 || b.level <= now.Sub(b.at).Minutes()*b.rate
}

// Exceeded is which limit was met.
type Exceeded struct {
	// Limit names it, for counters.
	Limit string
	// Text is one sentence for whoever is refused.
	Text string
	// RetryAfter is how long to wait, in whole seconds, at least one.
	RetryAfter int
	// First is set where this address or id has not met a limit for a minute:
	// then it is worth a line in a log.
	First bool
}

func (e *Exceeded) Error() string { return e.Text }

// Kind is what somebody comes for.
type Kind int

// The kinds.
const (
	Agent Kind = iota
	Client
	// Data is an agent's dial-back, which completes what was let in before: it
	// only must not guess.
	Data
)

// Ticket is one connection that was let in. Its methods may be called
// concurrently.
type Ticket struct {
	limits   *Limits
	kind     Kind
	addr, id *entry // id is nil until Come, and where none is counted open
	shaking  bool
	counted  bool // as open
	over     bool
}

// Network is what is counted as one address: an IPv4 address, or the /64 that
// one customer has (RFC 6177).
func Network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // the zero Prefix for no address, which is one to count for, too
	return prefix
}

// Enter counts a connection in for its address, or says which limit it meets.
// Nothing is counted for an id before Come: a stranger who is let in nowhere is
// not to use up what others may do. End must be called for a ticket.
func (l *Limits) Enter(addr netip.Addr, kind Kind) (*Ticket, *Exceeded) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	a := l.addrs.of(Network(addr), now)
	// Whoever has failed too often does not learn whether it would fail again.
	if wait := a.failures.wait(now, l.cfg.Failures); wait > 0 {
		return nil, a.exceeded("failures", "too many failed attempts from your address", wait, now)
	}
	t := &Ticket{limits: l, kind: kind}
	if kind == Data {
		t.addr = a // for a failure
		a.users++
		return t, nil
	}
	switch {
	case beyond(a.open, l.cfg.Connections):
		return nil, a.exceeded("connections", "too many connections from your address", moment, now)
	case beyond(a.handshakes, l.cfg.Handshakes):
		return nil, a.exceeded("handshakes", "too many unfinished connections from your address", moment, now)
	}
	if kind == Agent {
		if wait := a.registrations.wait(now, l.cfg.Registrations); wait > 0 {
			return nil, a.exceeded("registrations", "too many registrations from your address", wait, now)
		}
		a.registrations.add(now, l.cfg.Registrations)
	}
	t.addr, t.shaking, t.counted = a, true, true
	a.users++
	a.open++
	a.handshakes++
	return t, nil
}

// moment is how long to wait for what ends at no known time.
const moment = 5 * time.Second

// Come counts an agent or a client in for an id, once it is known to be let in
// there, or says which limit it meets. proved is false for an agent that is let
// in by a key that it has yet to prove: it is held up as others are, and counted
// by Proved. It may be called once, before End.
func (t *Ticket) Come(id string, proved bool) *Exceeded {
	l := t.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	e := l.ids.of(id, now)
	switch t.kind {
	case Agent:
		if wait := e.registrations.wait(now, l.cfg.IDRegistrations); wait > 0 {
			return e.exceeded("id-registrations", "too many registrations of this id", wait, now)
		}
		if proved {
			e.registrations.add(now, l.cfg.IDRegistrations)
		}
	case Client:
		if beyond(e.open, l.cfg.IDClients) {
			return e.exceeded("id-clients", "too many clients are connected to this id", moment, now)
		}
		if wait := e.failures.wait(now, l.cfg.IDConnects); wait > 0 {
			return e.exceeded("id-connects", "too many clients came to this id", wait, now)
		}
		e.failures.add(now, l.cfg.IDConnects)
		t.id = e
		e.users++
		e.open++
	}
	return nil
}

// Proved counts a registration of an id for which Come was called before the
// agent's key was proved.
func (l *Limits) Proved(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.ids.of(id, now).registrations.add(now, l.cfg.IDRegistrations)
}

func beyond(count, limit int) bool { return limit > 0 && count >= limit }

func (e *entry) exceeded(limit, text string, wait time.Duration, now time.Time) *Exceeded {
	seconds := max(1, int(math.Ceil(wait.Seconds())))
	first := now.Sub(e.told) >= time.Minute
	if first {
		e.told = now
	}
	return &Exceeded{Limit: limit, RetryAfter: seconds, First: first,
		Text: fmt.Sprintf("%s: try again in %d s", text, seconds)}
}

// Settled says that the handshake is over and has led to something.
func (t *Ticket) Settled() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	t.settle()
}

func (t *Ticket) settle() {
	if t.shaking {
		t.shaking = false
		t.addr.handshakes--
	}
}

// Failed says that it was a guess.
func (t *Ticket) Failed() {
	l := t.limits
	l.mu.Lock()
	defer l.mu.Unlock()
	t.addr.failures.add(l.now(), l.cfg.Failures)
}

// End counts the connection out. Calls after the first do nothing.
func (t *Ticket) End() {
	t.limits.mu.Lock()
	defer t.limits.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	t.settle()
	t.addr.users--
	if t.counted {
		t.addr.open--
	}
	if t.id != nil {
		t.id.users--
		t.id.open--
	}
}
