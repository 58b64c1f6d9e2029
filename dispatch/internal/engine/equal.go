package engine

import (
	"crypto/sha256"
	"crypto/subtle"

	"example.com/converge/dispatch/internal/build"
)

// equal compares secrets in a time that tells neither where they differ nor how
// long they are.
func equal(a, b string) bool {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// What an Engine is to others.
var (
	_ build.Store   = (*Engine)(nil)
	_ build.Logs    = (*Engine)(nil)
	_ build.Actions = (*Engine)(nil)
	_ build.Debug   = (*Engine)(nil)
	_ build.Guard   = (*Engine)(nil)
)
