// Package registry knows which agent has which id, and which id is kept for an
// agent that has lost its connection. It knows nothing of how an agent is
// connected, nor of tickets: an Agent is whatever the caller registers.
package registry

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"
)

// ErrTaken is returned for an id that is held under another key.
var ErrTaken = errors.New("the id is taken by another agent")

// ReservedError is returned for an id that is kept for another key.
type ReservedError struct {
	// Until is when anybody may have it.
	Until time.Time
}

func (e *ReservedError) Error() string {
	return fmt.Sprintf("the id is kept for another agent until %v", e.Until)
}

// Claim is on what grounds somebody asks for an id.
type Claim struct {
	// Key is the agent's public run key. It must be ed25519.PublicKeySize long.
	Key ed25519.PublicKey
	// Since is since when the key has had the id, in milliseconds of Unix
	// time, where that is proven and this registry may not know it; otherwise
	// 0. With it a claim prevails over one under another key that is younger.
	Since int64
}

// Grant is the answer to a Claim.
type Grant[A comparable] struct {
	// Since is since when the key has had the id, in milliseconds of Unix time.
	Since int64
	// Displaced says that the id was taken from Former, which holds it no more.
	Displaced bool
	Former    A
	// Stranger says that Former holds another key.
	Stranger bool
}

// Registry maps ids to the agents that hold them. All methods may be called
// concurrently.
//
// An id that is vacated is kept for its key during a window. Within the life of
// a registry nothing but the end of that window, or Remove, gives an id to
// another key, except to a Claim that proves to be older: the one whose key had
// the id first prevails, and the holder does where both are of one age.
type Registry[A comparable] interface {
	// Register gives the id to a. If it is held under the same key, or under
	// one whose claim is younger, a takes it over. Otherwise the error is
	// ErrTaken or a *ReservedError.
	Register(id string, claim Claim, a A) (Grant[A], error)
	// Lookup returns the id's holder.
	Lookup(id string) (A, bool)
	// Claim returns a's claim to the id, if a holds it.
	Claim(id string, a A) (Claim, bool)
	// Reserved returns until when the id is kept for its holder's return.
	Reserved(id string) (until time.Time, ok bool)
	// Kept returns how many ids are kept.
	Kept() int
	// Remove frees the id at once if a still holds it, and reports whether it
	// did.
	Remove(id string, a A) bool
	// Vacate is Remove for an agent that may come back: the id is kept.
	Vacate(id string, a A) bool
}
