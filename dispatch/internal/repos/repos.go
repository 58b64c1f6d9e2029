// Package repos is the repositories' configuration: who may call the hook of one,
// what it is built with, and who is trusted. It comes from Consul's key-value
// store, as Albatros keeps it there, or from a YAML file. It knows nothing of
// builds, and of Consul no more than one GET.
package repos

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"

	"example.com/converge/pkg/forge"
)

// Limits of what a repository's configuration holds.
const (
	// MaxInject is how many bytes of secrets a build can get: Nomad's limit of a
	// payload.
	MaxInject = 16 << 10
	// maxValue is how large Consul's value may be, its own limit.
	maxValue = 512 << 10
)

// Errors that callers tell apart.
var (
	// ErrUnknown is a repository that nobody has registered.
	ErrUnknown = errors.New("the repository is not registered")
	// ErrAway is Consul that cannot be reached, or that has no leader.
	ErrAway = errors.New("the repositories' configuration cannot be read at this moment")
)

// BadValue is a configuration that cannot be used. It never quotes a value.
type BadValue struct {
	// Key is Consul's key, or the file's name.
	Key string
	// Field is the path in it, such as hook.token.
	Field string
	// Problem says what is wrong with it.
	Problem string
}

func (e *BadValue) Error() string {
	return fmt.Sprintf("the configuration %s is wrong at %s: %s", e.Key, e.Field, e.Problem)
}

// Repo is one repository's configuration. Nobody changes it.
type Repo struct {
	// URL is the clone URL under which it is registered.
	URL string
	// Key names the configuration in messages.
	Key string
	// HookToken is what the URL of the hook or a header must hold; "" only where
	// HookSecret is set. HookSecret makes a signature necessary.
	HookToken, HookSecret string
	// Forge is where statuses go; its URL is "" where none are sent.
	Forge Forge
	// Trusted are the logins whose pushes get Inject, and who may act.
	Trusted []string
	// Inject is the secrets, byte for byte.
	Inject []byte
	// Flavors are those that the repository allows, nil for all that the program
	// does.
	Flavors []string
	// CancelSuperseded stops a branch's build when a newer push comes.
	CancelSuperseded bool
	// DebugKeys are public SSH keys let in beside those that the forge has of
	// Trusted.
	DebugKeys []string
}

// Forge is a repository's forge.
type Forge struct {
	Kind       forge.Kind
	URL, Token string
}

// Source finds configurations. Its methods may be called concurrently.
type Source interface {
	// Get returns the configuration of a clone URL. The error is ErrUnknown, has
	// ErrAway in it, or is a *BadValue.
	Get(ctx context.Context, url string) (*Repo, error)
	// Check tells whether the source can be used, for dispatch check and /readyz.
	Check(ctx context.Context) error
	// Name says what it is in a few words, without a secret.
	Name() string
}

// IsTrusted reports whether a login is one of trusted.senders. Case counts, as
// in the reference; no forge gives two people names that differ in it alone.
func (r *Repo) IsTrusted(login string) bool {
	return r != nil && login != "" && slices.Contains(r.Trusted, login)
}

// TokenIs reports whether a token is the hook's. It takes the same time wherever
// they differ, and for a nil Repo, which has none.
func (r *Repo) TokenIs(token string) bool {
	want := ""
	if r != nil {
		want = r.HookToken
	}
	a, b := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && want != ""
}
