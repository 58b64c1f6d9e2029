package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

// maxMessage is what is read of an error's text.
const maxMessage = 16 << 10

// Error is an answer by which the engine refused, in its own words.
type Error struct {
	// Status is that of HTTP.
	Status int
	// Message is the engine's text.
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("the engine answered %d %s", e.Status, http.StatusText(e.Status))
	}
	return e.Message
}

// readError reads an answer of 300 or more.
func readError(resp *http.Response) error {
	e := &Error{Status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if err != nil && len(text) == 0 {
		return e
	}
	var body struct{ Message string }
	if json.Unmarshal(text, &body) == nil && body.Message != "" {
		e.Message = body.Message
	} else {
		e.Message = strings.TrimSpace(string(text))
	}
	return e
}

// IsNotFound reports whether the engine does not know what it was asked about.
func IsNotFound(err error) bool { return status(err) == http.StatusNotFound }

// IsConflict reports whether the state of things does not allow it.
func IsConflict(err error) bool { return status(err) == http.StatusConflict }

// status returns the HTTP status of a refusal, or 0.
func status(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// maxSame is how often an engine may answer 500 before it is believed: it says
// so of its own troubles, and of what can never work alike.
const maxSame = 4

// Pauses between tries.
const (
	firstPause = 25 * time.Millisecond
	lastPause  = time.Second
)

// transient reports whether another try may help.
func (c *Client) transient(err error, tries int) bool {
	var certificate *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var plain tls.RecordHeaderError
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, fs.ErrPermission),
		errors.As(err, &certificate), errors.As(err, &authority), errors.As(err, &hostname),
		// It speaks no TLS, or is no engine: it will not become one.
		errors.As(err, &plain), errors.As(err, &syntax), errors.As(err, &kind):
		return false
	case errors.Is(err, fs.ErrNotExist):
		// A socket that has never been there is a mistake, one that is gone is
		// an engine that starts again.
		return c.reached.Load()
	}
	switch status(err) {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusInternalServerError:
		return tries < maxSame
	}
	return false
}

// lostError is the last error of an operation of which an answer was lost before.
type lostError struct{ error }

func (e lostError) Unwrap() error { return e.error }

// IsTransient reports whether a try of its own accord may succeed later: the
// engine was not there, or was busy.
func IsTransient(err error) bool {
	var lost lostError
	if errors.As(err, &lost) {
		return true
	}
	switch status(err) {
	case 0, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return err != nil
	}
	return false
}

// try calls f until it succeeds, its error is permanent, or ctx ends. The error
// is that of the last try, with the operation first. A limit of 0 bounds each
// try by ctx alone.
func (c *Client) try(ctx context.Context, op string, limit time.Duration, f func(ctx context.Context, prefix string) error) error {
	pause := firstPause
	for tries := 1; ; tries++ {
		err := c.once(ctx, limit, f)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !c.transient(err, tries) {
			return fmt.Errorf("%s: %w", op, err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: gave up after %d tries: %w", op, tries, err)
		}
		pause = min(2*pause, lastPause)
	}
}

func (c *Client) once(ctx context.Context, limit time.Duration, f func(ctx context.Context, prefix string) error) error {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	version, err := c.negotiate(ctx)
	if err != nil {
		return err
	}
	return f(ctx, "/v"+version)
}
