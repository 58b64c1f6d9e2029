// Package mode is what the guest's modes have in common: errors that know the exit
// code of the process. It knows none of the modes.
package mode

import (
	"errors"
	"fmt"
)

// Usage is the exit code for a wrong command line, and for what has no code of its
// own.
const Usage = 1

// Error is an error and the exit code of the process.
type Error struct {
	// Code is the exit code.
	Code int
	// Err is what is said; nil says nothing.
	Err error
	// Hint asks to look at the usage.
	Hint bool
}

func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Err.Error()
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// Usagef is the error of a wrong command line.
func Usagef(format string, args ...any) error {
	return &Error{Code: Usage, Err: fmt.Errorf(format, args...), Hint: true}
}

// Exit is err with an exit code.
func Exit(code int, err error) error { return &Error{Code: code, Err: err} }

// Code is the exit code for an error: 0 for nil, and Usage where it knows of none.
func Code(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return Usage
}
