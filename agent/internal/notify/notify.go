// Package notify tells people elsewhere how a session stands: in the chat of
// their team, by a webhook, or beside the commit on a forge. It words the messages
// and knows the forms that the services want; it must know nothing of SSH, of
// the link to the server and of what decides the state of a session.
//
// Nothing here may hold a job up or fail it. Send never waits; what cannot be
// delivered is tried again for a while, and then said in the log. Addresses of
// webhooks and tokens are secrets: no error and no log line repeats them. A
// message never holds a password.
package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"example.com/converge/pkg/apicall"
)

const (
	// MaxTargets is how many places notices may go to.
	MaxTargets = 16
	// CloseMost is how long Close waits at most.
	CloseMost = 2 * time.Second
	// maxQueue is how many notices wait for one target.
	maxQueue = 16
	// warnEvery is how often a warning is told at most: work puts the end off,
	// and then it comes near again.
	warnEvery = 10 * time.Minute
	// maxPeople is of how many people it is known that they were told of.
	maxPeople = 256
)

// Config says where notices go.
type Config struct {
	// Targets are FORMAT+URL, or URL where the host tells the format, or status
	// or comment for the job's own forge.
	Targets []string
	// Template is the text of the format template.
	Template string
	// Token is for statuses and comments.
	Token string
	// Forge is the kind of forge that the job's repository is on: github,
	// gitlab, gitea, or "" where that is not known; ForgeURL is its address.
	Forge, ForgeURL string
	// Job is what runs.
	Job Job
	// CAFile names certificates to trust besides the system's; "" is none.
	CAFile string
	// Logger nil discards.
	Logger *slog.Logger
}

// Notifier knows where notices go. A nil one sends nothing.
type Notifier struct {
	cfg     Config
	targets []*target
	clients []*http.Client
}

// errMissing is wrapped by what a job's environment lacks. Jobs that strangers
// triggered have no token, and not every job has a pull request: this is said in
// the log, and the others are told.
var errMissing = errors.New("nobody is told there")

// New checks the configuration, and calls nobody. The errors are sentences that
// hold no secret.
func New(cfg Config) (*Notifier, error) {
	if len(cfg.Targets) > MaxTargets {
		return nil, fmt.Errorf("there are %d places for notices: %d is the most", len(cfg.Targets), MaxTargets)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &Notifier{cfg: cfg}
	host := ""
	for i, text := range cfg.Targets {
		t, err := cfg.parse(text)
		if errors.Is(err, errMissing) {
			cfg.Logger.Warn("notices do not go everywhere", "place", i+1, "err", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("place %d for notices: %w", i+1, err)
		}
		if t.forge != "" && host != "" && host != t.forge {
			return nil, fmt.Errorf("the token goes to one forge, and the notices to %s and %s: leave one out", host, t.forge)
		}
		if t.forge != "" {
			host = t.forge
		}
		client, err := apicall.NewClient(t.address.Scheme+"://"+t.address.Host, cfg.CAFile)
		if err != nil {
			return nil, err
		}
		n.targets, n.clients = append(n.targets, t), append(n.clients, client)
	}
	return n, nil
}

// Session sends the notices of one session. Its methods may be called
// concurrently; those of a nil one do nothing.
type Session struct {
	job     Job
	workers []*worker
	closing chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	told   bool // that the job can be entered
	warned time.Time
	people []string
}

// Start begins to send. Whoever calls it calls Close.
func (n *Notifier) Start() *Session {
	if n == nil || len(n.targets) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Session{job: n.cfg.Job, closing: make(chan struct{}), cancel: cancel}
	for i, t := range n.targets {
		service, err := t.make()
		if err != nil { // it was made before, in New
			n.cfg.Logger.Warn("notices do not go everywhere", "to", t.name, "err", err)
			continue
		}
		w := &worker{
			target: t, client: n.clients[i], service: service, log: n.cfg.Logger,
			closing: s.closing, wake: make(chan struct{}, 1),
		}
		s.workers = append(s.workers, w)
		s.done.Go(func() { w.run(ctx) })
	}
	return s
}

// Send tells of an event, and returns at once. Before the first Waiting nothing
// is told, a person's coming once, and warnings not too often.
func (s *Session) Send(n Notice) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Time, n.Job = time.Now().UTC(), s.job
	if s.closed || !s.worthTelling(n) {
		return
	}
	n.Text = n.headline(plain)
	for _, w := range s.workers {
		w.add(n)
	}
}

// worthTelling decides, and remembers.
func (s *Session) worthTelling(n Notice) bool {
	switch n.Event {
	case Waiting:
		s.told = true
	case Connected:
		if !s.told || slices.Contains(s.people, n.Who) {
			return false
		}
		if len(s.people) < maxPeople {
			s.people = append(s.people, n.Who)
		}
	case Warning:
		if !s.told || !s.warned.IsZero() && n.Time.Sub(s.warned) < warnEvery {
			return false
		}
		s.warned = n.Time
	}
	return s.told
}

// Close lets what was sent be delivered, for CloseMost or until the end of ctx,
// and returns when nothing runs any more.
func (s *Session) Close(ctx context.Context) {
	if s != nil {
		s.close(ctx, CloseMost)
	}
}

func (s *Session) close(ctx context.Context, most time.Duration) {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.closing)
	}
	over := make(chan struct{})
	go func() {
		s.done.Wait()
		close(over)
	}()
	limit := time.NewTimer(most)
	defer limit.Stop()
	select {
	case <-over:
	case <-limit.C:
	case <-ctx.Done():
	}
	s.cancel()
	<-over
}

// errGone is an answer after which nothing more is sent to a target.
var errGone = errors.New("no more notices go there")
