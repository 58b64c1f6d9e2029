package container

import (
	"errors"
	"fmt"

	"example.com/converge/container/internal/engine"
)

// UserMessage is what a user is told when the back end fails; why it failed
// concerns whoever reads the log.
const UserMessage = "Failed to initialize SSH session."

// Sentinels that callers branch on.
var (
	// ErrClosed is the answer of a handler after OnDisconnect or OnShutdown.
	ErrClosed = errors.New("the connection is ending")
	// ErrStarted is the answer to a second program in one session, and to
	// what has to come before the first (RFC 4254 §6.5).
	ErrStarted = errors.New("the session has a program already")
	// ErrNotStarted is the answer to what needs a program that runs.
	ErrNotStarted = errors.New("no program runs in the session")
	// ErrUnsupported is the answer to a request that this back end, or this
	// container, has no means for.
	ErrUnsupported = errors.New("not supported")
)

// Error is a failure of the back end.
type Error struct {
	// Op is what was tried.
	Op string
	// Err is why it failed, with the engine's own words where it had any.
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// UserMessage returns what the user may be told.
func (e *Error) UserMessage() string { return UserMessage }

// Transient reports whether the same may succeed later: the engine was not
// there, or was busy until the time was up.
func (e *Error) Transient() bool { return engine.IsTransient(e.Err) }

func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Err: err}
}
