// Package after does what follows an update: it touches a file, runs a command,
// and tells others. It knows nothing of git.
package after

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"example.com/converge/pkg/apicall"
	"example.com/converge/pkg/transport"
)

// Limits.
const (
	maxOutput  = 4 << 10 // bytes of a command's output that are logged
	grace      = 5 * time.Second
	postTries  = 3
	postPause  = 2 * time.Second
	maxAfter   = time.Minute // pause that a place may ask for
	maxWaiting = 64          // notices that wait
	minSecret  = 8           // characters of an address: words such as api are shorter
)

// Touch sets a file's times to now, and makes it where it is missing.
func Touch(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("cannot touch the trigger: %w", err)
	}
	now := time.Now()
	err = os.Chtimes(name, now, now)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("cannot touch the trigger: %w", err)
	}
	return nil
}

// Command is what to run after an update.
type Command struct {
	// Args are the program and its arguments; no shell is between.
	Args []string
	// Dir is where it runs, and Env what it gets beside the environment.
	Dir     string
	Env     []string
	Timeout time.Duration
}

// Run runs it and returns the end of what it said, in one line. The error says how
// it ended.
func (c Command) Run(ctx context.Context) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Dir = c.Dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "GITGATE_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, c.Env...)
	out := &tail{}
	cmd.Stdout, cmd.Stderr = out, out
	prepare(cmd)
	cmd.WaitDelay = grace
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("cannot run exec: %w", err)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		killGroup(cmd.Process) // whom it has left behind
	}
	said = strings.Join(strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
	said = transport.Printable(said[max(0, len(said)-maxOutput):])
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return said, fmt.Errorf("exec took longer than execTimeout allows (%s), and was ended", c.Timeout)
	case errors.Is(err, exec.ErrWaitDelay):
		return said, nil // it left something in the background, which has its output
	case err != nil:
		return said, fmt.Errorf("exec failed: %w", err)
	}
	return said, nil
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	text []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p[max(0, len(p)-maxOutput):]...)
	t.text = t.text[max(0, len(t.text)-maxOutput):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}

// Notice is what others are told.
type Notice struct {
	// Event is success or failure.
	Event string `json:"event"`
	Repo  string `json:"repo"`
	Ref   string `json:"ref"`
	// Hash is where the tree is after a success, Previous where it was.
	Hash     string `json:"hash,omitempty"`
	Previous string `json:"previous,omitempty"`
	// Reason and Error are of a failure.
	Reason string    `json:"reason,omitempty"`
	Error  string    `json:"error,omitempty"`
	Time   time.Time `json:"time"`
}

// Text is the notice as a sentence.
func (n Notice) Text() string {
	if n.Event == "success" {
		return fmt.Sprintf("%s is at %.12s of %s", n.Repo, n.Hash, n.Ref)
	}
	return fmt.Sprintf("%s could not be brought to %s (%s): %s", n.Repo, n.Ref, n.Reason, n.Error)
}

// Notifier tells others, in the background and in order. Its methods may be
// called concurrently.
type Notifier struct {
	log    *slog.Logger
	queue  chan posting
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

type posting struct {
	to     string
	notice Notice
}

// NewNotifier makes one; Close ends it.
func NewNotifier(log *slog.Logger) *Notifier {
	ctx, cancel := context.WithCancel(context.Background())
	n := &Notifier{log: log, cancel: cancel, queue: make(chan posting, maxWaiting)}
	n.wait.Go(func() {
		for p := range n.queue {
			if err := n.deliver(ctx, p); err != nil {
				n.log.Warn("a notice could not be delivered", "to", place(p.to), "event", p.notice.Event, "repo", p.notice.Repo, "err", err)
			}
		}
	})
	return n
}

// Tell sends a notice to each place, FORMAT+URL. Where too many wait it is
// dropped, with a line in the log. It must not be called after Close.
func (n *Notifier) Tell(places []string, notice Notice) {
	for _, to := range places {
		select {
		case n.queue <- posting{to, notice}:
		default:
			n.log.Warn("too many notices wait: one is dropped", "to", place(to), "repo", notice.Repo)
		}
	}
}

// Close sends what waits, until ctx ends, and waits.
func (n *Notifier) Close(ctx context.Context) {
	close(n.queue)
	stop := context.AfterFunc(ctx, n.cancel)
	n.wait.Wait()
	stop()
	n.cancel()
}

// place names one without its secret part.
func place(to string) string {
	format, address, _ := strings.Cut(to, "+")
	if u, err := url.Parse(address); err == nil {
		return format + " at " + u.Host
	}
	return format
}

func (n *Notifier) deliver(ctx context.Context, p posting) error {
	format, address, _ := strings.Cut(p.to, "+")
	var object any = p.notice
	if format == "slack" {
		object = map[string]string{"text": escapeSlack(p.notice.Text())}
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	client, err := apicall.NewClient(address, "")
	if err != nil {
		return err
	}
	caller := apicall.Caller{Client: client, UserAgent: "gitgate", Secrets: secretsOf(address)}
	request := apicall.Request{Method: http.MethodPost, Address: address, Body: body, Type: "application/json"}
	for try := 1; ; try++ {
		_, err := caller.Do(ctx, request)
		var why *apicall.Error
		if err == nil || !errors.As(err, &why) || !why.Retry || try == postTries || why.After > maxAfter {
			return err
		}
		timer := time.NewTimer(max(postPause<<(try-1), why.After))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// secretsOf takes what is secret of an address out of a text: all but the host.
func secretsOf(address string) *strings.Replacer {
	var pairs []string
	if u, err := url.Parse(address); err == nil {
		for part := range strings.FieldsFuncSeq(u.EscapedPath()+"?"+u.RawQuery, func(r rune) bool { return strings.ContainsRune("/?&=", r) }) {
			if len(part) >= minSecret {
				pairs = append(pairs, part, "…")
			}
		}
	}
	return strings.NewReplacer(pairs...)
}

// escapeSlack is what https://docs.slack.dev/messaging/formatting-message-text
// asks for.
func escapeSlack(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
