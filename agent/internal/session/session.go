// Package session is one run of the agent from registration to exit: it
// connects the link, the SSH server and the expiry machine, and sees to it
// that they end in the right order. Each of them knows nothing of the others.
package session

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/link"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/expiry/hold"
)

// endWait bounds the end of all sessions; CI systems kill ten seconds after
// they have asked.
const endWait = 4 * time.Second

// Config is all that a run needs. Run fills in what concerns the connection of
// its parts.
type Config struct {
	Link   link.Config
	SSH    sshd.Config
	Access announce.Access
	Expiry expiry.Config
	// TimeoutExitCode is the exit code when time ran out.
	TimeoutExitCode int
	// NoWall keeps warnings off the users' terminals.
	NoWall bool
	// AgentDir is the folder of .hold; "" makes a temporary one.
	AgentDir string
	// Out is the job's log.
	Out io.Writer
	// Logger must not be nil.
	Logger *slog.Logger
}

// run is a Run under way.
type run struct {
	cfg  Config
	log  *slog.Logger
	loop *expiry.Loop
	sshd *sshd.Server

	mu sync.Mutex // serialises Out
}

// Run lets people in until the session ends, and returns the exit code. ctx is
// the process's: its end is a signal to stop. The error, if any, is a sentence
// on why nobody can be let in.
func Run(ctx context.Context, cfg Config) (code int, err error) {
	r := &run{cfg: cfg, log: cfg.Logger}
	dir, cleanup, err := agentDir(cfg.AgentDir)
	if err != nil {
		return 0, err
	}
	defer cleanup()
	if r.loop, err = expiry.NewLoop(cfg.Expiry, r.effect); err != nil {
		return 0, err
	}
	watcher, err := hold.New(dir, hold.Options{Logger: r.log})
	if err != nil {
		return 0, err
	}
	cfg.SSH.Env = childEnv(os.Environ(), dir)
	cfg.SSH.Banner = r.greeting
	cfg.SSH.Events = events{r}
	cfg.SSH.Logger = r.log
	cfg.SSH.KeepAlive = -1 // the stream's own pings tell a dead path
	if r.sshd, err = sshd.New(cfg.SSH); err != nil {
		return 0, err
	}
	cfg.Link.Registered = r.registered
	cfg.Link.Serve = func(conn net.Conn, remote string) { r.sshd.HandleConn(visitor{conn, remote}) }
	cfg.Link.Logger = r.log
	connection, err := link.New(cfg.Link)
	if err != nil {
		return 0, err
	}

	// The parts end in this order: the expiry machine, which says that it is
	// over; the SSH sessions, which tell their users; the link, which says
	// goodbye to the server.
	defer context.AfterFunc(ctx, func() { r.loop.Send(expiry.Signal()) })()
	linkCtx, endLink := context.WithCancel(context.WithoutCancel(ctx))
	defer endLink()
	loopCtx, endLoop := context.WithCancel(context.WithoutCancel(ctx))
	defer endLoop()
	var parts sync.WaitGroup
	var linkErr error
	parts.Go(func() {
		linkErr = connection.Run(linkCtx)
		endLoop() // without a link nobody can come
	})
	parts.Go(func() { watcher.Run(loopCtx, r.loop.Send) })

	reason, _ := r.loop.Run(loopCtx) // its error is endLoop's
	endLoop()
	sentence := reason.Sentence()
	if reason == expiry.None {
		sentence = fmt.Sprintf("The session ended because the agent lost its place at the server: %v", linkErr)
	}
	out, cancel := context.WithTimeout(context.WithoutCancel(ctx), endWait)
	defer cancel()
	if err := r.sshd.Shutdown(out, sentence); err != nil {
		r.log.Warn("not all sessions ended by themselves", "err", err)
	}
	endLink()
	parts.Wait()
	if reason == expiry.None {
		return 0, linkErr
	}
	r.say("converge: %s\n", sentence)
	if reason.Timeout() {
		return cfg.TimeoutExitCode, nil
	}
	return 0, nil
}

// visitor is a client's connection with the client's own address.
type visitor struct {
	net.Conn
	remote string
}

// RemoteAddr is where the client came from, as the server saw it.
func (v visitor) RemoteAddr() net.Addr { return clientAddr(v.remote) }

type clientAddr string

func (clientAddr) Network() string  { return "converge" }
func (a clientAddr) String() string { return string(a) }

// agentDir returns the folder of .hold, by a path that is good in any working
// folder, and what removes it again.
func agentDir(given string) (dir string, cleanup func(), err error) {
	if given != "" {
		dir, err := filepath.Abs(given)
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return "", nil, fmt.Errorf("cannot make the folder of --agentdir: %w", err)
		}
		return dir, func() {}, nil
	}
	dir, err = filepath.Abs(os.TempDir())
	if err == nil {
		dir, err = os.MkdirTemp(dir, "converge-") // 0700
	}
	if err != nil {
		return "", nil, fmt.Errorf("cannot make the agent's temporary folder: %w: name one with --agentdir", err)
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// childEnv is the job's own environment and the agent's folder. The agent's
// options are left out: they may hold secrets, and are not for agents that are
// started inside.
func childEnv(job []string, dir string) []string {
	env := make([]string, 0, len(job)+2)
	for _, entry := range job {
		if name, _, _ := strings.Cut(entry, "="); !agentsOwn(name) {
			env = append(env, entry)
		}
	}
	return append(env, "agentdir="+dir, "CONVERGE_AGENTDIR="+dir)
}

// agentsOwn reports whether a variable is an option of the agent or set by it.
func agentsOwn(name string) bool {
	const options = "CONVERGE_AGENT_"
	same := func(a, b string) bool { return a == b }
	if runtime.GOOS == "windows" {
		same = strings.EqualFold
	}
	return same(name, "agentdir") || same(name, "CONVERGE_AGENTDIR") || same(name[:min(len(name), len(options))], options)
}

// say writes to the job's log. A log that is gone is no reason to end.
func (r *run) say(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = fmt.Fprintf(r.cfg.Out, format, a...)
}

// registered prints the lines to paste.
func (r *run) registered(id string) {
	access := r.cfg.Access
	access.ID = id
	r.say("%s", access.Text())
}

// greeting is the text for a shell that starts.
func (r *run) greeting(me sshd.UserInfo) string {
	var others []string
	for _, u := range r.sshd.Users() {
		if u.ID != me.ID {
			others = append(others, fmt.Sprintf("%s from %s, since %s", u.User, u.Remote, u.Since.Format("15:04:05")))
		}
	}
	return announce.Greeting(r.loop.Snapshot(), others, announce.HoldCommand)
}

// effect carries out what the expiry machine decided.
func (r *run) effect(e expiry.Effect) {
	switch e := e.(type) {
	case expiry.Warn:
		hold := announce.HoldCommand
		if r.loop.Snapshot().Reason == expiry.MaxDuration {
			hold = "" // in vain
		}
		text := announce.Warning(e, hold)
		r.say("converge: %s\n", text)
		if !r.cfg.NoWall {
			r.sshd.Wall(text)
		}
	case expiry.PhaseChanged:
		r.log.Debug("phase", "from", e.From.String(), "to", e.To.String())
	case expiry.DeadlineChanged:
		r.log.Debug("deadline", "at", e.Deadline, "remaining", e.Remaining)
	case expiry.End, expiry.WriteHold:
		// Run tells the end; nothing here asks for a hold yet.
	}
}

// events passes what users do on to the expiry machine.
type events struct{ r *run }

func (e events) Login(u sshd.UserInfo) {
	e.r.say("converge: %s logged in from %s\n", u.User, u.Remote)
	e.r.loop.Send(expiry.Login(expiry.UserID(u.ID)))
}

func (e events) SessionOpened(id uint64, k sshd.Kind) {
	e.r.loop.Send(expiry.Opened(expiry.UserID(id), use(k)))
}

func (e events) SessionClosed(id uint64, k sshd.Kind) {
	e.r.loop.Send(expiry.Closed(expiry.UserID(id), use(k)))
}

func (e events) Activity(uint64) { e.r.loop.Send(expiry.Activity()) }

func (e events) Logout(u sshd.UserInfo) {
	e.r.say("converge: %s from %s logged out\n", u.User, u.Remote)
	e.r.loop.Send(expiry.Logout(expiry.UserID(u.ID)))
}

// use translates a kind of session.
func use(k sshd.Kind) expiry.Use {
	if k == sshd.Shell {
		return expiry.Shell
	}
	return expiry.Exec
}
