// Package apicall makes one request to the HTTP API of somebody else and says
// what became of it: the answer, bounded, or an error that is a sentence without
// a secret, and whether to ask again and when. Webhooks of chats and the APIs of
// forges are called with it. It must not know what is asked there, and it
// repeats nothing by itself: that is for whoever knows how long it matters.
package apicall

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"example.com/converge/pkg/transport"
)

const (
	// Timeout bounds one request with its answer.
	Timeout = 10 * time.Second
	// MaxAnswer is how much of an answer is read, in bytes.
	MaxAnswer = 256 << 10
	// maxQuote is how much of a refusal is repeated, in characters.
	maxQuote = 200
)

// NewClient makes the client for one place. It verifies the certificate of an
// https URL against the system's roots and those of caFile, if that is not "",
// and follows no redirect: what is sent is for the place that was named. The
// environment's proxies are used. Connections are not kept; whoever changes that
// in the Transport closes them.
func NewClient(rawURL, caFile string) (*http.Client, error) {
	tr, err := transport.Options{}.Transport(rawURL)
	if err != nil {
		return nil, err
	}
	if caFile != "" {
		if tr.TLSClientConfig.RootCAs, err = transport.Roots(caFile); err != nil {
			return nil, err
		}
	}
	return &http.Client{
		Transport: tr, Timeout: Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Request is what is asked.
type Request struct {
	// Method is GET, POST and so on.
	Method string
	// Address is the whole URL. It may hold a secret.
	Address string
	// Header goes with it; nil is none.
	Header http.Header
	// Body nil is none; Type is its media type.
	Body []byte
	Type string
}

// Caller makes requests. Its methods may be called concurrently.
type Caller struct {
	// Client is NewClient's.
	Client *http.Client
	// UserAgent names the program.
	UserAgent string
	// Secrets takes out of answers and errors what must not be repeated; nil
	// takes nothing.
	Secrets *strings.Replacer
}

// Error is why there is no answer, or what the answer was if its status is not
// in the 200s. Its text has no part of the request but the host.
type Error struct {
	// Status is the answer's; 0 where there was none.
	Status int
	// Retry reports whether the same request may go well later, and After how
	// long the other end asked to wait until then.
	Retry bool
	After time.Duration

	text string
	err  error
}

func (e *Error) Error() string { return e.text }

// Unwrap gives what happened, for decisions alone: its text was not cleaned.
func (e *Error) Unwrap() error { return e.err }

// Gone reports whether the other end said that it does not take such requests at
// all: from us, with this credential, or at this address.
func (e *Error) Gone() bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusGone:
		return true
	case http.StatusForbidden:
		return !e.Retry // else it is a limit of GitHub's
	}
	return false
}

// Do makes one request. The answer, of MaxAnswer bytes at most, is only of one in
// the 200s; every error is an *Error.
func (c Caller) Do(ctx context.Context, r Request) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.Address, bytes.NewReader(r.Body))
	if err != nil {
		return nil, &Error{text: "its address cannot be used"}
	}
	if r.Header != nil {
		req.Header = r.Header.Clone()
	}
	if r.Type != "" {
		req.Header.Set("Content-Type", r.Type)
	}
	req.Header.Set("User-Agent", c.UserAgent)
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, c.unanswered(req.URL.Host, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if resp.StatusCode/100 == 2 {
		return answer, nil // it has it, whatever became of its answer
	}
	said := ""
	if err == nil {
		said = c.quote(resp, answer)
	}
	e := &Error{Status: resp.StatusCode, text: fmt.Sprintf("it answered %d %s%s", resp.StatusCode, http.StatusText(resp.StatusCode), said)}
	after, asked := RetryAfter(resp.Header.Get("Retry-After"), time.Now())
	if !asked {
		after, asked = untilReset(resp.Header, time.Now())
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500,
		code == http.StatusForbidden && asked: // GitHub's limits
		e.Retry, e.After = true, after
	}
	return nil, e
}

// untilReset reads how GitHub says that an hour's requests are used up; false if
// it does not
// (https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api).
func untilReset(h http.Header, now time.Time) (time.Duration, bool) {
	reset, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64)
	if err != nil || h.Get("X-RateLimit-Remaining") != "0" {
		return 0, false
	}
	const most = 2 * 60 * 60 // seconds
	return time.Duration(min(max(0, max(0, reset)-now.Unix()), most)) * time.Second, true
}

// RetryAfter reads the header of RFC 9110 §10.2.3, seconds or a date; false if it
// is none.
func RetryAfter(text string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1e6 {
		return time.Duration(seconds * float64(time.Second)), true
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now)), true
	}
	return 0, false
}

// unanswered is the error of a request without an answer, without its URL.
func (c Caller) unanswered(host string, err error) *Error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	e := &Error{Retry: !transport.Permanent(err), err: err}
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		e.text = "it did not answer in time"
	case errors.Is(err, context.Canceled):
		e.text = "it had not answered when it was given up"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		e.text = host + " does not speak TLS: check the address and the port"
	default:
		e.text = c.clean(transport.Explain(host, err).Error())
	}
	return e
}

func (c Caller) clean(text string) string {
	if c.Secrets == nil {
		return text
	}
	return c.Secrets.Replace(text)
}

// quote is the first line of an answer in text or JSON, for people.
func (c Caller) quote(resp *http.Response, answer []byte) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/plain" && kind != "application/json" {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(answer)), "\n")
	if line == "" {
		return ""
	}
	return ": " + Clip(c.clean(line), maxQuote)
}

// Clip makes a text that others chose fit to be shown, and cuts it to a number of
// characters, of which there must be one at least.
func Clip(text string, most int) string {
	runes := []rune(transport.Printable(text))
	if len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return string(runes)
}
