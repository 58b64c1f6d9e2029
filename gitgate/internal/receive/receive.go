// Package receive is the HTTP side: it takes webhooks, verifies them, checks that
// they are for a repository of the configuration, and hands on which one is to be
// updated. It answers honestly, runs nothing, and waits for nothing.
package receive

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/pkg/webhook"
)

// Limits of what strangers may cost.
const (
	// maxMemory is how many bytes of payloads are held at a time.
	maxMemory = 64 << 20
	// remembered is how many deliveries are.
	remembered = 10_000
	// failures is how many requests of an address may be refused in a minute
	// before the answer is to wait, and addresses how many of them are counted.
	failures  = 30
	addresses = 10_000
)

// Job is a push that was accepted.
type Job struct {
	// Push is nil where nobody pushed: a start, a poll.
	Push *webhook.Push
	// Deliveries are those that led here, to be forgotten if nothing comes of it.
	Deliveries []string
}

// Options of a Receiver.
type Options struct {
	// Config is what holds now.
	Config func() *config.Config
	// Add hands a job on, by the repository's path; false while the program ends.
	Add func(path string, job Job) bool
	// Count counts an answer.
	Count func(repo string, code int)
	Log   *slog.Logger
}

// Receiver is the handler. Its methods may be called concurrently.
type Receiver struct {
	o      Options
	memory *semaphore.Weighted

	mu     sync.Mutex
	window *webhook.Window
	keep   time.Duration

	refusals counter
}

// New makes a Receiver.
func New(o Options) *Receiver {
	return &Receiver{o: o, memory: semaphore.NewWeighted(maxMemory), refusals: counter{seen: map[string]*count{}}}
}

// Forget makes deliveries new again, so that they may be repeated at the forge.
func (r *Receiver) Forget(deliveries []string) {
	w := r.current()
	for _, d := range deliveries {
		w.Forget(d)
	}
}

// current is the window of the time that holds now.
func (r *Receiver) current() *webhook.Window {
	keep := r.o.Config().ReplayWindow
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.window == nil || keep != r.keep {
		r.window, r.keep = webhook.NewWindow(remembered, keep), keep
	}
	return r.window
}

// answer is a status with its sentence.
type answer struct {
	code int
	text string
	// delivery and log are for the log alone.
	log []any
}

func say(code int, format string, a ...any) answer {
	return answer{code: code, text: fmt.Sprintf(format, a...)}
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	repo := r.find(req.URL.Path)
	var a answer
	switch {
	case repo == nil:
		a = say(http.StatusNotFound, "there is no repository of this path")
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		a = say(http.StatusMethodNotAllowed, "webhooks come by POST")
	default:
		a = r.take(w, req, repo)
	}
	name := ""
	if repo != nil {
		name = repo.Name
	}
	if a.code == http.StatusUnauthorized || a.code == http.StatusNotFound {
		if r.refusals.over(host(req.RemoteAddr), time.Now()) {
			// It costs us nothing to go on, and the log would be full.
			a = say(http.StatusTooManyRequests, "too many requests that were refused: wait a minute")
		}
	}
	if a.code == http.StatusTooManyRequests || a.code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "60")
	}
	if r.o.Count != nil {
		r.o.Count(name, a.code)
	}
	level := slog.LevelInfo
	switch {
	case a.code == http.StatusNotFound, a.code == http.StatusTooManyRequests:
		level = slog.LevelDebug
	case a.code >= 400:
		level = slog.LevelWarn
	}
	r.o.Log.Log(req.Context(), level, "webhook", append([]any{"repo", name, "code", a.code, "answer", a.text, "from", host(req.RemoteAddr)}, a.log...)...)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.code)
	_, _ = io.WriteString(w, a.text+"\n")
}

func host(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return h
}

func (r *Receiver) find(path string) *config.Repo {
	for _, repo := range r.o.Config().Repos {
		if repo.Path == path || strings.TrimSuffix(repo.Path, "/") == strings.TrimSuffix(path, "/") && path != "" {
			return repo
		}
	}
	return nil
}

// take goes through one webhook.
func (r *Receiver) take(w http.ResponseWriter, req *http.Request, repo *config.Repo) answer {
	d, err := webhook.Identify(req.Header)
	if err != nil {
		return say(http.StatusBadRequest, "%v", err)
	}
	most := int64(r.o.Config().MaxBody)
	if req.ContentLength > most {
		return say(http.StatusRequestEntityTooLarge, "the payload is larger than %d bytes", most)
	}
	counted := &counted{from: http.MaxBytesReader(w, req.Body, most), memory: r.memory}
	defer counted.release()
	body, err := io.ReadAll(counted)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errNoRoom):
		return say(http.StatusServiceUnavailable, "there are too many webhooks at this moment: send it again")
	case errors.As(err, &tooLarge):
		return say(http.StatusRequestEntityTooLarge, "the payload is larger than %d bytes", most)
	case err != nil:
		return say(http.StatusBadRequest, "the payload could not be read to its end")
	}
	if a, ok := r.verified(d, body, repo); !ok {
		return a
	}
	a := r.act(d, body, repo)
	a.log = append(a.log, "forge", string(d.Forge), "event", d.Event, "delivery", d.ID)
	return a
}

// counted reads a body, and takes memory for what has come, not for what is
// promised: a promise costs a stranger nothing.
type counted struct {
	from   io.Reader
	memory *semaphore.Weighted
	held   int64
}

var errNoRoom = errors.New("there is no memory left for payloads")

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if n > 0 && !c.memory.TryAcquire(int64(n)) {
		return 0, errNoRoom
	}
	c.held += int64(n)
	return n, err
}

func (c *counted) release() { c.memory.Release(c.held) }

// verified tells whether the sender may be believed.
func (r *Receiver) verified(d *webhook.Delivery, body []byte, repo *config.Repo) (answer, bool) {
	if repo.Insecure {
		return answer{}, true
	}
	err := (&webhook.Verifier{Secrets: repo.Secrets, AllowSHA1: repo.AllowSHA1}).Verify(d, body)
	if err != nil {
		return say(http.StatusUnauthorized, "%v", err), false
	}
	return answer{}, true
}

// act decides what a verified webhook leads to.
func (r *Receiver) act(d *webhook.Delivery, body []byte, repo *config.Repo) answer {
	event, err := d.Decode(body)
	switch {
	case err != nil:
		return say(http.StatusBadRequest, "%v", err)
	case event.Ping:
		return say(http.StatusOK, "pong")
	case event.Push == nil:
		return say(http.StatusOK, "only pushes are acted upon: nothing to do")
	}
	push := event.Push
	if err := Match(repo, push); err != nil {
		code := http.StatusOK
		if errors.Is(err, ErrRepository) {
			code = http.StatusBadRequest
		}
		return say(code, "%v", err)
	}
	key := repo.Path + " " + d.ID
	if d.ID == "" {
		key = repo.Path + " " + webhook.Digest(body)
	}
	window := r.current()
	if window.Seen(key) {
		return say(http.StatusOK, "this delivery was here before: nothing to do")
	}
	if !r.o.Add(repo.Path, Job{Push: push, Deliveries: []string{key}}) {
		window.Forget(key)
		return say(http.StatusServiceUnavailable, "the gateway is ending: send it again")
	}
	a := say(http.StatusAccepted, "the update of %s is under way", repo.Name)
	a.log = []any{"after", push.After}
	return a
}

// Errors of Match: for the first the sender has mistaken the path, the others are
// nothing to do.
var (
	ErrRepository = errors.New("the payload is of another repository than the one of this path: check the path at the forge, and url here")
	ErrRef        = errors.New("it is not the branch or tag that is followed: nothing to do")
	ErrDeleted    = errors.New("the branch or tag was deleted: what is here stays as it is")
)

// Match reports whether a push is one that a repository follows.
func Match(repo *config.Repo, push *webhook.Push) error {
	is := push.Repository.Is(repo.Identity)
	for _, other := range repo.Others {
		is = is || push.Repository.Is(other)
	}
	switch {
	case !is:
		return ErrRepository
	case push.Ref != repo.Ref():
		return ErrRef
	case push.Deleted:
		return ErrDeleted
	}
	return nil
}

// counter counts refusals by address, for a minute.
type counter struct {
	mu   sync.Mutex
	seen map[string]*count
}

type count struct {
	since time.Time
	n     int
}

// over counts one more, and reports whether there are too many.
func (c *counter) over(address string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.seen[address]
	if n == nil || now.Sub(n.since) > time.Minute {
		if n == nil && len(c.seen) >= addresses {
			clear(c.seen)
		}
		n = &count{since: now}
		c.seen[address] = n
	}
	n.n++
	return n.n > failures
}
