package cmdline

import "fmt"

// usageError is a mistake in the command line or in the environment.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usagef makes an error for a wrong command line: Run prints it with a hint at
// --help and exits 2. It formats as fmt.Errorf does, %w included. The text is
// one sentence without a full stop that names what is wrong, and holds no
// secret.
func Usagef(format string, a ...any) error {
	return &usageError{fmt.Errorf(format, a...)}
}

// exitError carries an exit code of the program's own choice.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// Exit makes an error with which Run exits with code, 0 to 255. A nil err
// prints nothing, even where the result was wrapped.
func Exit(code int, err error) error {
	return &exitError{code, err}
}
