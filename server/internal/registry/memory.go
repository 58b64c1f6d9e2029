package registry

import (
	"container/list"
	"crypto/ed25519"
	"sync"
	"time"
)

// MaxReserved is how many ids Memory keeps for agents that are away; beyond
// that the one that was vacated first is free. It costs 12 MiB at most.
const MaxReserved = 1 << 15

// Memory is the registry of a server that stands alone.
type Memory[A comparable] struct {
	window time.Duration
	most   int // MaxReserved; tests have less

	mu      sync.RWMutex
	holders map[string]holder[A]
	away    map[string]*list.Element // of vacated
	vacated *list.List               // of *reservation; the first ends first
}

type runKey [ed25519.PublicKeySize]byte

type holder[A comparable] struct {
	key   runKey
	since int64
	agent A
}

// reservation is an id that is kept for a key.
type reservation struct {
	id    string
	key   runKey
	since int64
	until time.Time
}

// NewMemory returns an empty registry that keeps vacated ids for the window;
// 0 keeps none.
func NewMemory[A comparable](window time.Duration) *Memory[A] {
	return &Memory[A]{
		window: window, most: MaxReserved,
		holders: make(map[string]holder[A]),
		away:    make(map[string]*list.Element), vacated: list.New(),
	}
}

// Register implements Registry.
func (m *Memory[A]) Register(id string, claim Claim, a A) (Grant[A], error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.expire(now)
	grant := Grant[A]{Since: claim.Since}
	if grant.Since == 0 {
		grant.Since = now.UnixMilli()
	}
	key := runKey(claim.Key)
	prevails := func(over int64) bool { return claim.Since != 0 && claim.Since < over }
	if h, held := m.holders[id]; held {
		grant.Stranger = h.key != key
		if grant.Stranger && !prevails(h.since) {
			return Grant[A]{}, ErrTaken
		}
		grant.Displaced, grant.Former = true, h.agent
		if !grant.Stranger {
			grant.Since = min(grant.Since, h.since)
		}
	} else if e, kept := m.away[id]; kept {
		r := e.Value.(*reservation)
		if r.key == key {
			grant.Since = min(grant.Since, r.since)
		} else if !prevails(r.since) {
			return Grant[A]{}, &ReservedError{Until: r.until}
		}
		m.release(e)
	}
	m.holders[id] = holder[A]{key: key, since: grant.Since, agent: a}
	return grant, nil
}

// Lookup implements Registry.
func (m *Memory[A]) Lookup(id string) (A, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.holders[id]
	return h.agent, ok
}

// Claim implements Registry.
func (m *Memory[A]) Claim(id string, a A) (Claim, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.holders[id]
	if !ok || h.agent != a {
		return Claim{}, false
	}
	return Claim{Key: h.key[:], Since: h.since}, true
}

// Reserved implements Registry.
func (m *Memory[A]) Reserved(id string) (until time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	e, ok := m.away[id]
	if !ok {
		return time.Time{}, false
	}
	return e.Value.(*reservation).until, true
}

// Kept implements Registry.
func (m *Memory[A]) Kept() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(time.Now())
	return m.vacated.Len()
}

// Remove implements Registry.
func (m *Memory[A]) Remove(id string, a A) bool { return m.end(id, a, 0) }

// Vacate implements Registry.
func (m *Memory[A]) Vacate(id string, a A) bool { return m.end(id, a, m.window) }

// end takes the id from a and keeps it for the window.
func (m *Memory[A]) end(id string, a A, window time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.holders[id]
	if !ok || h.agent != a {
		return false
	}
	delete(m.holders, id)
	now := time.Now()
	m.expire(now)
	if window <= 0 {
		return true
	}
	if m.vacated.Len() >= m.most {
		m.release(m.vacated.Front())
	}
	m.away[id] = m.vacated.PushBack(&reservation{id: id, key: h.key, since: h.since, until: now.Add(window)})
	return true
}

// expire drops the reservations that have ended. It is called with each use of
// them, so that no timer is needed: what is left is bounded anyway.
func (m *Memory[A]) expire(now time.Time) {
	for e := m.vacated.Front(); e != nil; e = m.vacated.Front() {
		if now.Before(e.Value.(*reservation).until) {
			return
		}
		m.release(e)
	}
}

// release drops a reservation.
func (m *Memory[A]) release(e *list.Element) {
	r := m.vacated.Remove(e).(*reservation)
	delete(m.away, r.id)
}
