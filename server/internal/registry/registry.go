// Package registry knows which agent has which id. It knows nothing of how
// the agent is connected: an Agent is whatever the caller registers.
package registry

import (
	"crypto/ed25519"
	"errors"
	"sync"
)

// ErrTaken is returned for an id that is held under another key.
var ErrTaken = errors.New("the id is taken by another agent")

// Registry maps ids to the agents that hold them. All methods may be called
// concurrently.
type Registry[A comparable] interface {
	// Register gives the id to a. If it is held under the same key, a takes
	// it over and the former holder is returned as displaced with ok true; if
	// it is held under another key the error is ErrTaken.
	Register(id string, key ed25519.PublicKey, a A) (displaced A, ok bool, err error)
	// Lookup returns the id's holder.
	Lookup(id string) (A, bool)
	// Remove frees the id if a still holds it, and reports whether it did.
	Remove(id string, a A) bool
}

// Memory is the registry of a server that stands alone.
type Memory[A comparable] struct {
	mu      sync.RWMutex
	holders map[string]holder[A]
}

type holder[A comparable] struct {
	key   ed25519.PublicKey
	agent A
}

// NewMemory returns an empty registry.
func NewMemory[A comparable]() *Memory[A] {
	return &Memory[A]{holders: make(map[string]holder[A])}
}

// Register implements Registry.
func (m *Memory[A]) Register(id string, key ed25519.PublicKey, a A) (displaced A, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h, held := m.holders[id]; held {
		if !h.key.Equal(key) {
			return displaced, false, ErrTaken
		}
		displaced, ok = h.agent, true
	}
	m.holders[id] = holder[A]{key: key, agent: a}
	return displaced, ok, nil
}

// Lookup implements Registry.
func (m *Memory[A]) Lookup(id string) (A, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	h, ok := m.holders[id]
	return h.agent, ok
}

// Remove implements Registry.
func (m *Memory[A]) Remove(id string, a A) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if h, ok := m.holders[id]; !ok || h.agent != a {
		return false
	}
	delete(m.holders, id)
	return true
}
