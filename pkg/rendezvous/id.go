// Package rendezvous is what an agent, a client and the server must agree on
// to find each other: ids, the URLs that hold them, and the messages of an
// agent's control connection (see spec.md). It knows no websocket and no SSH:
// messages go over any io.ReadWriter.
package rendezvous

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
)

// MaxID is the longest id in bytes.
const MaxID = 128

// ErrInvalidID is wrapped by every error of ValidID.
var ErrInvalidID = errors.New("invalid id")

// ValidID checks an id: 1 to 128 ASCII letters, digits and . _ - ~ in parts
// separated by single slashes, each part starting with a letter or digit. So
// no id can be a path that means another (., .., //) and none needs escaping
// in a URL.
func ValidID(id string) error {
	switch {
	case id == "":
		return fmt.Errorf("%w: it is empty", ErrInvalidID)
	case len(id) > MaxID:
		return fmt.Errorf("%w: it is longer than %d characters", ErrInvalidID, MaxID)
	}
	start := true
	for i := range len(id) {
		c := id[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			start = false
		case c == '/' && !start:
			start = true
		case start:
			return fmt.Errorf("%w: each part between slashes must start with a letter or digit", ErrInvalidID)
		case c == '.', c == '_', c == '-', c == '~':
		default:
			return fmt.Errorf("%w: only letters, digits and . _ - ~ are allowed, in parts separated by /", ErrInvalidID)
		}
	}
	if start {
		return fmt.Errorf("%w: it ends with a slash", ErrInvalidID)
	}
	return nil
}

// NewID returns an id with 130 random bits, that nobody can guess.
func NewID() string { return strings.ToLower(rand.Text()) }

// Alternative returns a new id for an agent whose own is taken: the same with
// a random suffix, so that a person sees what it came from.
func Alternative(id string) string {
	suffix := "-" + NewID()[:10]
	if len(id) > MaxID-len(suffix) {
		id = strings.TrimRight(id[:MaxID-len(suffix)], "/")
	}
	return id + suffix
}
