// Package hook is POST /hook: it takes the webhooks of forges, finds out whose they
// are, verifies them, and asks for builds. What cannot be done because Nomad or
// Consul is away is kept and done later. It does not know Nomad, and runs nothing.
package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/outbox"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/webhook"
)

// Limits of what strangers may cost.
const (
	// maxMemory is how many bytes of payloads are held at a time, of which each
	// takes memoryStep after memoryStep.
	maxMemory  = 64 << 20
	memoryStep = 64 << 10
	// memoryWait is how long one waits for its place.
	memoryWait = 10 * time.Second
	// maxKept is how many deliveries are kept, and maxKeptAll how large all of them
	// may be together, as they are kept, in bytes: they are in memory, too.
	// maxStrange is how large the body of one may be while Consul is away and nobody
	// knows who sent it.
	maxKept    = 2000
	maxKeptAll = 64 << 20
	maxStrange = 1 << 20
	// keep is how long they are tried.
	keep = 24 * time.Hour
)

// DefaultFlavor is the flavour of a hook that names none.
const DefaultFlavor = "default"

// Launcher starts builds: an engine.Engine.
type Launcher interface {
	Launch(ctx context.Context, w engine.Want) (build.Build, error)
	JobFor(flavor string) (string, bool)
	Same(w engine.Want) (string, bool)
	Tell(repo, commit, flavor string, state build.State, description string)
	// Drop forgets what waits of a pull request that was closed.
	Drop(repo string, pull int)
	Page(id string) string
}

// Options of a Hook.
type Options struct {
	Repos    repos.Source
	Launcher Launcher
	// Dir is where deliveries are kept.
	Dir string
	// Count counts an answer; nil does not.
	Count func(code int)
	Log   *slog.Logger
}

// Hook is the handler. Run must run beside it.
type Hook struct {
	o      Options
	memory *semaphore.Weighted
	box    *outbox.Box

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	mu     sync.Mutex // guards that nobody enters once Close waits
	busy   sync.WaitGroup
}

// New makes a Hook with what a former run has kept.
func New(o Options) (*Hook, error) {
	h := &Hook{o: o, memory: semaphore.NewWeighted(maxMemory)}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	var err error
	h.box, err = outbox.Open(outbox.Options{
		Dir: filepath.Join(o.Dir, "deliveries"), Most: maxKept, MostBytes: maxKeptAll, Workers: 4, Keep: keep, Sync: true, Do: h.again, Log: o.Log,
	})
	return h, err
}

// Run tries what was kept until ctx ends.
func (h *Hook) Run(ctx context.Context) { h.box.Run(ctx) }

// Close gives up what is being asked of Nomad and Consul, and returns when it is
// kept for the next run. Who comes later is told to come again.
func (h *Hook) Close() {
	h.mu.Lock()
	h.cancel()
	h.mu.Unlock()
	h.busy.Wait()
}

// enter reports whether a delivery may be taken; busy.Done must follow.
func (h *Hook) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.busy.Add(1)
	return true
}

// Kept is how many deliveries wait.
func (h *Hook) Kept() int { return h.box.Len() }

// Retry tries what was kept at once.
func (h *Hook) Retry() { h.box.Retry() }

// delivery is a request as it is kept: what it takes to judge it later.
type delivery struct {
	Tokens []string
	Flavor string
	Header http.Header
	Body   []byte
	// Token makes dispatching it twice dispatching it once.
	Token string
	// Asked is when it came.
	Asked time.Time
}

// answer is a status with its sentence.
type answer struct {
	code int
	text string
	// keep says that it may go better later: a body that is no larger than this is
	// kept, in bytes.
	keep int
	log  []any
}

func say(code int, format string, a ...any) answer {
	return answer{code: code, text: fmt.Sprintf(format, a...)}
}

// ServeHTTP implements http.Handler.
func (h *Hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var a answer
	if r.Method == http.MethodPost {
		a = h.take(w, r)
	} else {
		w.Header().Set("Allow", http.MethodPost)
		a = say(http.StatusMethodNotAllowed, "webhooks come by POST")
	}
	if a.code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	if h.o.Count != nil {
		h.o.Count(a.code)
	}
	level := slog.LevelInfo
	if a.code >= 400 {
		level = slog.LevelWarn
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	h.o.Log.Log(r.Context(), level, "webhook", append([]any{"code", a.code, "answer", a.text, "from", host}, a.log...)...)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.code)
	_, _ = io.WriteString(w, a.text)
}

// kept are the headers that a delivery needs.
var kept = []string{
	"X-Forgejo-Event", "X-Forgejo-Delivery", "X-Forgejo-Signature", "X-Gitea-Event", "X-Gitea-Delivery", "X-Gitea-Signature",
	"X-Github-Event", "X-Github-Delivery", "X-Hub-Signature", "X-Hub-Signature-256",
	"X-Gitlab-Event", "X-Gitlab-Event-Uuid", "X-Gitlab-Token", "Idempotency-Key", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature",
}

// take reads a request and goes through it.
func (h *Hook) take(w http.ResponseWriter, r *http.Request) answer {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(query["token"]) > 1 || len(query["flavor"]) > 1 {
		return say(http.StatusBadRequest, "the query of the URL cannot be read: give one token and one flavor")
	}
	d := delivery{Flavor: query.Get("flavor"), Header: http.Header{}, Asked: time.Now()}
	if d.Flavor == "" {
		d.Flavor = DefaultFlavor
	}
	if !repos.IsFlavor(d.Flavor) {
		return say(http.StatusBadRequest, "the flavor is no name: letters, digits, dots, dashes and underscores, 64 at most")
	}
	for _, name := range kept {
		if values := r.Header[http.CanonicalHeaderKey(name)]; len(values) > 0 {
			d.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	// A header keeps the token out of the logs of proxies.
	bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	for _, token := range []string{query.Get("token"), bearer, r.Header.Get("X-Dispatch-Token"), r.Header.Get("X-Gitlab-Token")} {
		if token != "" {
			d.Tokens = append(d.Tokens, token)
		}
	}
	if r.ContentLength > webhook.MaxBody {
		return say(http.StatusRequestEntityTooLarge, "the payload is larger than %d bytes", webhook.MaxBody)
	}
	var held int64
	d.Body, held, err = h.read(r.Context(), http.MaxBytesReader(w, r.Body, webhook.MaxBody))
	defer h.memory.Release(held)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errBusy):
		return say(http.StatusServiceUnavailable, "there are too many webhooks at this moment: send it again")
	case errors.As(err, &tooLarge):
		return say(http.StatusRequestEntityTooLarge, "the payload is larger than %d bytes", webhook.MaxBody)
	case err != nil:
		return say(http.StatusBadRequest, "the payload could not be read to its end")
	}
	d.Token = newToken(d)
	if !h.enter() {
		return say(http.StatusServiceUnavailable, "dispatch is ending: send it again")
	}
	defer h.busy.Done()
	// What was accepted is done, also where the sender does not wait.
	a := h.judge(h.ctx, d)
	if a.keep > 0 {
		a = h.put(d, a)
	}
	return a
}

var errBusy = errors.New("there is no memory for it at this moment")

// read takes a payload, and its place in memory only as it comes: who announces
// much and sends little is in nobody's way. held is to be released, whatever the
// error is.
func (h *Hook) read(ctx context.Context, body io.Reader) (text []byte, held int64, err error) {
	var all bytes.Buffer
	for {
		waiting, cancel := context.WithTimeout(ctx, memoryWait)
		err := h.memory.Acquire(waiting, memoryStep)
		cancel()
		if err != nil {
			return nil, held, errBusy
		}
		held += memoryStep
		_, err = io.CopyN(&all, body, memoryStep)
		if errors.Is(err, io.EOF) {
			return all.Bytes(), held, nil
		}
		if err != nil {
			return nil, held, err
		}
	}
}

// put keeps a delivery for later.
func (h *Hook) put(d delivery, a answer) answer {
	if len(d.Body) > a.keep {
		return say(a.code, "%s; it is too large to be kept: send it again", a.text)
	}
	if err := h.box.Add("delivery "+d.Token, d); err != nil {
		h.o.Log.Error("a webhook cannot be kept", "err", err)
		return say(a.code, "%s; it could not be kept: send it again", a.text)
	}
	a.text += "; it is kept, and tried again until it succeeds"
	return a
}

// again is the outbox's.
func (h *Hook) again(ctx context.Context, _ string, body []byte) outbox.Result {
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil {
		h.o.Log.Error("a webhook that was kept cannot be read, and is lost", "err", err)
		return outbox.Result{Done: true}
	}
	a := h.judge(ctx, d)
	if a.keep > 0 {
		return outbox.Result{}
	}
	h.o.Log.Info("webhook that was kept", append([]any{"code", a.code, "answer", a.text}, a.log...)...)
	return outbox.Result{Done: true}
}

// refused is the one answer for a repository that nobody knows and for one whose
// token is another: which it is tells strangers what there is.
func refused() answer {
	return say(http.StatusForbidden, "the repository is not registered, or the token is wrong")
}

// judge goes through a delivery: whose it is, whether it may be believed, and what
// it leads to.
func (h *Hook) judge(ctx context.Context, d delivery) answer {
	text, err := webhook.JSON(d.Body)
	if err != nil {
		return say(http.StatusBadRequest, "%v", err)
	}
	about, err := webhook.Peek(text)
	if err != nil {
		return say(http.StatusBadRequest, "%v", err)
	}
	repo, err := h.o.Repos.Get(ctx, about.CloneURL)
	var bad *repos.BadValue
	switch {
	case errors.As(err, &bad):
		return say(http.StatusInternalServerError, "%v", bad)
	case errors.Is(err, repos.ErrAway):
		a := say(http.StatusServiceUnavailable, "%v", repos.ErrAway)
		a.keep, a.log = maxStrange, []any{"err", err}
		return a
	case err != nil && !errors.Is(err, repos.ErrUnknown):
		return say(http.StatusInternalServerError, "the repository's configuration cannot be read")
	}
	from, err := identify(d.Header, text)
	if a, ok := verified(repo, d, from); !ok {
		a.log = append(a.log, "repo", about.CloneURL, "registered", repo != nil)
		return a
	}
	if err != nil {
		if errors.Is(err, webhook.ErrUnknownSender) {
			return say(http.StatusOK, "ignored: it is neither a push nor a pull request")
		}
		return say(http.StatusBadRequest, "%v", err)
	}
	a := h.act(ctx, repo, about.CloneURL, d, from, text)
	a.log = append(a.log, "repo", repo.URL, "forge", string(from.Forge), "event", from.Event, "delivery", from.ID)
	return a
}

// identify tells who sent it; where no header does, by its shape.
func identify(header http.Header, text []byte) (*webhook.Delivery, error) {
	from, err := webhook.Identify(header)
	if errors.Is(err, webhook.ErrUnknownSender) {
		return webhook.ByShape(header, text)
	}
	return from, err
}

// verified tells whether the sender may be believed. repo is nil where nobody
// knows it; the same is done for it.
func verified(repo *repos.Repo, d delivery, from *webhook.Delivery) (answer, bool) {
	known := false
	for _, token := range append(slices.Clone(d.Tokens), "") {
		if repo.TokenIs(token) {
			known = true
		}
	}
	if repo == nil || repo.HookToken != "" && !known {
		return refused(), false
	}
	if repo.HookSecret == "" {
		return answer{}, true
	}
	if from == nil {
		return say(http.StatusUnauthorized, "%v", webhook.ErrUnsigned), false
	}
	// A signature with a time was fresh when the delivery came, or never.
	v := &webhook.Verifier{Secrets: []string{repo.HookSecret}, Now: func() time.Time { return d.Asked }}
	if err := v.Verify(from, d.Body); err != nil {
		return say(http.StatusUnauthorized, "%v", err), false
	}
	return answer{}, true
}
