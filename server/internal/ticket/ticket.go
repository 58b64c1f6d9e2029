// Package ticket makes and checks the tickets by which an agent shows to a
// server that does not know it that it holds an id: to the same server after a
// restart, or to another one with the same state key. It knows nothing of
// connections, nor of who holds what: what a ticket is worth the registry
// decides. The format is in pkg/rendezvous/spec.md.
package ticket

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// Sizes in bytes.
const (
	runSize  = 8
	bodySize = 1 + runSize + 8 + 8
	// Size is the length of every ticket of this version.
	Size = bodySize + sha256.Size
)

const (
	version = 1
	// context keeps the state key's other uses, should there be any, apart.
	context = "converge registration ticket v1\x00"
)

const (
	// shortest is the least window that tickets are made for: a server that
	// keeps no ids may be restarted all the same.
	shortest = time.Minute
	// farthest bounds what a ticket is believed, whatever the clock of the
	// server that made it said.
	farthest = 24 * time.Hour
)

// Why a ticket is not believed.
var (
	// ErrFormat is returned for what is no ticket of a version that is known.
	ErrFormat = errors.New("the ticket is none that this server knows")
	// ErrForged is returned for a ticket that was not made with this state key,
	// or for another id or another run key.
	ErrForged = errors.New("the ticket was not made with this state key for this id and run key")
	// ErrExpired is returned for a ticket that is too old, or whose end is so
	// far away that the clock of the server that made it cannot have been right.
	ErrExpired = errors.New("the ticket is not good any more, or not by this server's clock")
)

// Office makes and checks tickets. Its methods may be called concurrently.
type Office struct {
	key  []byte
	run  [runSize]byte // random: tells this office's tickets from others'
	life time.Duration
}

// New returns an office that works with a state key of at least MinKey bytes.
// window is how long a server keeps an id for an agent that is away. Tickets
// are good for two windows, and to be renewed after a half: so each agent's is
// good for a window and a half more, and still for one where clocks of servers
// differ by half of it.
func New(key []byte, window time.Duration) *Office {
	o := &Office{key: key, life: 2 * max(window, shortest)}
	_, _ = rand.Read(o.run[:]) // never fails: the process would end
	return o
}

// Renew is how long after a ticket was made its agent is to ask for the next.
func (o *Office) Renew() time.Duration { return o.life / 4 }

// Ticket is what a ticket says.
type Ticket struct {
	// Since is since when the key has had the id, in milliseconds of Unix time.
	Since int64
	// Own says that this office made it: its server knows all it says, and more.
	Own bool
}

// Make returns a ticket for the one who has had the id since a time in
// milliseconds of Unix time.
func (o *Office) Make(id string, key ed25519.PublicKey, since int64) []byte {
	return o.seal(id, key, body{run: o.run, since: since, until: time.Now().Add(o.life).UnixMilli()})
}

// Check returns what a ticket says, if it is good for the id with the key.
func (o *Office) Check(ticket []byte, id string, key ed25519.PublicKey) (Ticket, error) {
	b, err := decode(ticket)
	if err != nil {
		return Ticket{}, err
	}
	// The comparison takes the same time wherever they differ.
	if len(key) != ed25519.PublicKeySize || !hmac.Equal(ticket, o.seal(id, key, b)) {
		return Ticket{}, ErrForged
	}
	left := time.Until(time.UnixMilli(b.until))
	if left <= 0 || left > farthest {
		return Ticket{}, ErrExpired
	}
	return Ticket{Since: b.since, Own: b.run == o.run}, nil
}

// body is the part of a ticket that is not its code.
type body struct {
	run          [runSize]byte
	since, until int64 // Unix time in milliseconds
}

// seal encodes a ticket. Of what the code is made over only the id, at the
// end, has no fixed length.
func (o *Office) seal(id string, key ed25519.PublicKey, b body) []byte {
	ticket := make([]byte, 0, Size)
	ticket = append(ticket, version)
	ticket = append(ticket, b.run[:]...)
	ticket = binary.BigEndian.AppendUint64(ticket, uint64(b.since))
	ticket = binary.BigEndian.AppendUint64(ticket, uint64(b.until))
	code := hmac.New(sha256.New, o.key)
	code.Write([]byte(context))
	code.Write(ticket)
	code.Write(key)
	code.Write([]byte(id))
	return code.Sum(ticket)
}

// decode takes a ticket apart and believes nothing of it.
func decode(ticket []byte) (body, error) {
	if len(ticket) != Size || ticket[0] != version {
		return body{}, ErrFormat
	}
	b := body{run: [runSize]byte(ticket[1 : 1+runSize])}
	b.since = int64(binary.BigEndian.Uint64(ticket[1+runSize:]))
	b.until = int64(binary.BigEndian.Uint64(ticket[1+runSize+8:]))
	if b.since <= 0 || b.until < b.since {
		return body{}, ErrFormat
	}
	return b, nil
}
