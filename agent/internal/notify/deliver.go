package notify

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"example.com/converge/pkg/transport"
)

const (
	// requestTimeout bounds one request with its answer.
	requestTimeout = 10 * time.Second
	// attempts is how often one notice is tried, and noticeTimeout for how long.
	attempts      = 6
	noticeTimeout = 2 * time.Minute
	// firstPause is the first pause between two attempts; each one after it is
	// twice as long.
	firstPause = time.Second
	// maxRetryAfter is the longest pause that a service may ask for.
	maxRetryAfter = time.Minute
	// maxAnswer is how much of an answer is read, in bytes, and maxQuote how much
	// of it is repeated, in characters.
	maxAnswer = 64 << 10
	maxQuote  = 200
)

// worker sends to one target, one notice after the other.
type worker struct {
	target  *target
	client  *http.Client
	service service
	log     *slog.Logger
	closing <-chan struct{} // nothing is added any more
	wake    chan struct{}

	mu    sync.Mutex
	queue []Notice
	lost  int
}

// add puts a notice at the end of the queue. The newest ones are the ones to know.
func (w *worker) add(n Notice) {
	w.mu.Lock()
	if len(w.queue) == maxQueue {
		w.queue = w.queue[1:]
		w.lost++
	}
	w.queue = append(w.queue, n)
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// next returns the first notice, and how many were dropped before it; false when
// there is none.
func (w *worker) next() (n Notice, lost int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		return n, 0, false
	}
	n, lost = w.queue[0], w.lost
	w.queue, w.lost = w.queue[1:], 0
	return n, lost, true
}

// run delivers until the session is closed and nothing is left, or ctx ends.
func (w *worker) run(ctx context.Context) {
	log := w.log.With("to", w.target.name)
	for ctx.Err() == nil {
		n, lost, ok := w.next()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-w.closing:
			case <-ctx.Done():
				return
			}
			if n, lost, ok = w.next(); !ok {
				return
			}
		}
		if lost > 0 {
			log.Warn("there were more notices than could be sent: the oldest were dropped", "count", lost)
		}
		err := w.deliver(ctx, n)
		switch {
		case err == nil:
			log.Debug("told", "event", string(n.Event))
		case errors.Is(err, errGone):
			log.Warn("a notice was refused", "event", string(n.Event), "err", err)
			return
		default:
			log.Warn("a notice could not be delivered", "event", string(n.Event), "err", err)
		}
	}
}

// deliver sends one notice, again and again where that may help. Once the session
// is closed only its end is worth another attempt.
func (w *worker) deliver(ctx context.Context, n Notice) error {
	m, err := w.service.message(n)
	if err != nil || m == nil {
		return err
	}
	body, kind := m.body, m.kind
	if m.object != nil {
		if body, err = encode(m.object); err != nil {
			return err
		}
		kind = "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	pause := firstPause
	for attempt := 1; ; attempt++ {
		answer, wait, err := w.post(ctx, m, body, kind)
		if err == nil {
			w.service.answered(answer)
			return nil
		}
		if wait < 0 || attempt == attempts {
			return err
		}
		if wait > maxRetryAfter {
			return fmt.Errorf("%w, and asked for a pause of %s", err, wait.Round(time.Second))
		}
		jittered := time.Duration(float64(pause) * (0.8 + 0.4*rand.Float64()))
		if !w.wait(ctx, max(wait, jittered), n.Event != Ended) {
			return err
		}
		pause *= 2
	}
}

// wait reports whether another attempt is due; giveUp makes the end of the session
// end it.
func (w *worker) wait(ctx context.Context, d time.Duration, giveUp bool) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	closing := w.closing
	if !giveUp {
		closing = nil
	}
	select {
	case <-timer.C:
		return true
	case <-closing:
	case <-ctx.Done():
	}
	return false
}

// post makes one request. wait is how long to wait for another attempt at least,
// negative where there is no use in one.
func (w *worker) post(ctx context.Context, m *message, body []byte, kind string) (answer []byte, wait time.Duration, err error) {
	const useless = -1
	method, address := http.MethodPost, w.target.address.String()
	if m.path != "" {
		method, address = m.method, address+m.path
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, useless, errors.New("its address cannot be used")
	}
	if w.target.header != nil {
		req.Header = w.target.header.Clone()
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("User-Agent", "converge-agent")
	resp, err := w.client.Do(req)
	if err != nil {
		err = w.explain(err)
		if transport.Permanent(err) {
			return nil, useless, err
		}
		return nil, 0, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode/100 == 2 {
		return answer, 0, nil // it has it, whatever became of its answer
	}
	said := ""
	if err == nil {
		said = w.quote(resp, answer)
	}
	err = fmt.Errorf("it answered %d %s%s", resp.StatusCode, http.StatusText(resp.StatusCode), said)
	after, asked := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code >= 500,
		code == http.StatusForbidden && asked: // GitHub's second limit
		return nil, after, err
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusNotFound, code == http.StatusGone:
		return nil, useless, fmt.Errorf("%w: %w", err, errGone)
	}
	return nil, useless, err
}

// retryAfter reads the header of RFC 9110 §10.2.3, seconds or a date.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil && seconds >= 0 && seconds < 1e6 {
		return time.Duration(seconds * float64(time.Second)), true
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now)), true
	}
	return 0, false
}

// explain is the sentence for a request without an answer, without its URL.
func (w *worker) explain(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it did not answer in time")
	}
	if errors.Is(err, context.Canceled) {
		return errors.New("it did not answer before the end of the session")
	}
	var record tls.RecordHeaderError
	if errors.As(err, &record) || errors.Is(err, http.ErrSchemeMismatch) {
		return fmt.Errorf("%s does not speak TLS: check the address and the port", w.target.address.Host)
	}
	return &hidden{text: w.target.secrets.Replace(transport.Explain(w.target.address.Host, err).Error()), err: err}
}

// hidden is an error whose text was cleaned; what it wraps is for decisions
// alone.
type hidden struct {
	text string
	err  error
}

func (h *hidden) Error() string { return h.text }
func (h *hidden) Unwrap() error { return h.err }

// quote is the first line of an answer in text or JSON, for people.
func (w *worker) quote(resp *http.Response, answer []byte) string {
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != "text/plain" && kind != "application/json" {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(answer)), "\n")
	if line == "" {
		return ""
	}
	return ": " + clip(w.target.secrets.Replace(line), maxQuote)
}
