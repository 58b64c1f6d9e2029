// Package session is one run of the agent from registration to exit: it
// connects the link, the SSH server and the expiry machine, and sees to it
// that they end in the right order. Each of them knows nothing of the others.
package session

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/control"
	"example.com/converge/agent/internal/joblog"
	"example.com/converge/agent/internal/link"
	"example.com/converge/agent/internal/notify"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/expiry/hold"
	"example.com/converge/pkg/resume"
)

const (
	// endMost is how long a run may take to end: CI systems kill ten seconds
	// after they have asked.
	endMost = 5 * time.Second
	// endWait bounds the end of all sessions; the goodbye comes after it.
	endWait = 2500 * time.Millisecond
)

// Config is all that a run needs. Run fills in what concerns the connection of
// its parts.
type Config struct {
	Link   link.Config
	SSH    sshd.Config
	Resume Resume
	Access announce.Access
	Expiry expiry.Config
	// TimeoutExitCode is the exit code when time ran out.
	TimeoutExitCode int
	// NoWall keeps warnings off the users' terminals.
	NoWall bool
	// AgentDir is the folder of .hold; "" makes a temporary one.
	AgentDir string
	// Job, if not nil, delivers the end of the job's own command, which runs
	// beside the session: until then nothing but a signal or resume ends it.
	Job <-chan JobEnd
	// Out is the job's log, and Getenv tells whose it is; nil is os.Getenv.
	Out    io.Writer
	Getenv func(string) string
	// Print is how the lines to paste are printed; "" is announce.Lines. With
	// announce.JSON they go to Object.
	Print  announce.Print
	Object io.Writer
	// Notify tells people elsewhere; nil tells nobody.
	Notify *notify.Notifier
	// Logger must not be nil.
	Logger *slog.Logger
}

// run is a Run under way.
type run struct {
	cfg  Config
	log  *slog.Logger
	loop *expiry.Loop
	link *link.Link
	sshd *sshd.Server
	hub  *resume.Hub // nil where streams end with their connections
	dir  string      // the agent's folder
	word string      // how its shells call the agent

	job     *joblog.Log
	notices *notify.Session

	mu      sync.Mutex
	id      string        // once registered
	holdErr error         // of the last .hold
	lost    error         // why the link is lost for good
	busy    bool          // the job's command runs, or nobody is to be waited for
	told    string        // the id with which notices told that somebody is waited for
	phase   chan struct{} // closed, and replaced, at each change of the phase

	sessions map[*resume.Stream]string // with which each began
}

// Run lets people in until the session ends, and returns the exit code. ctx is
// the process's: its end is a signal to stop. The error, if any, is a sentence
// on why nobody can be let in.
func Run(ctx context.Context, cfg Config) (code int, err error) {
	if cfg.Getenv == nil {
		cfg.Getenv = os.Getenv
	}
	r := &run{cfg: cfg, log: cfg.Logger, job: joblog.New(cfg.Out, cfg.Getenv), phase: make(chan struct{})}
	dir, cleanup, err := agentDir(cfg.AgentDir)
	if err != nil {
		return 0, err
	}
	defer cleanup()
	r.dir = dir
	cfg.Expiry.Busy = cfg.Job != nil
	if r.loop, err = expiry.NewLoop(cfg.Expiry, r.effect); err != nil {
		return 0, err
	}
	watcher, err := hold.New(dir, hold.Options{Logger: r.log})
	if err != nil {
		return 0, err
	}
	program, word := agentProgram()
	r.word = word
	cfg.SSH.Env = childEnv(os.Environ(), dir, program)
	cfg.SSH.Banner = r.greeting
	cfg.SSH.Events = events{r}
	cfg.SSH.Logger = r.log
	cfg.SSH.KeepAlive = -1 // the stream's own pings tell a dead path
	if r.sshd, err = sshd.New(cfg.SSH); err != nil {
		return 0, err
	}
	cfg.Link.Registered = r.registered
	cfg.Link.Serve = r.serve
	if err := r.resumable(&cfg); err != nil {
		return 0, err
	}
	cfg.Link.Logger = r.log
	connection, err := link.New(cfg.Link)
	if err != nil {
		return 0, err
	}
	r.link = connection
	// A session without local commands is better than none.
	commands, err := control.Listen(dir, r.command, r.log)
	if err != nil {
		r.log.Warn("the commands hold, extend, resume, status and share will not find this agent", "err", err)
	} else {
		defer commands.Close()
	}

	// The parts end in this order: the expiry machine, which says that it is
	// over; the SSH sessions, which tell their users; the streams, which bring
	// that to them; the link, which says goodbye to the server.
	defer context.AfterFunc(ctx, func() { r.loop.Send(expiry.Signal()) })()
	process := context.WithoutCancel(ctx)
	linkCtx, endLink := context.WithCancel(process)
	defer endLink()
	watchCtx, endWatch := context.WithCancel(process)
	defer endWatch()
	r.busy = cfg.Job != nil
	r.notices = cfg.Notify.Start()
	var parts sync.WaitGroup
	parts.Go(func() {
		// A link that has failed returns when its last client has gone, so that
		// who is in may stay; after that nobody can come. The machine has heard
		// of that client's logout before: where it is the end, that counts.
		if err := connection.Run(linkCtx); err != nil {
			r.lose(err)
			r.loop.Send(expiry.Signal())
		}
	})
	parts.Go(func() { watcher.Run(watchCtx, r.loop.Send) })
	parts.Go(func() { r.job.Run(watchCtx, r.progress) })
	if cfg.Job != nil {
		parts.Go(func() { r.awaitJob(watchCtx, cfg.Job) })
	}

	reason, err := r.loop.Run(process)
	endWatch()
	r.tellEnd(reason)
	parts.Go(func() { r.notices.Close(process) }) // while the rest ends
	if commands != nil {
		commands.Close() // what is asked already is answered
	}
	out, cancel := context.WithTimeout(process, endWait)
	defer cancel()
	if err := r.sshd.Shutdown(out, reason.Sentence()); err != nil {
		r.log.Warn("not all sessions ended by themselves", "err", err)
	}
	r.endStreams(out)
	endLink()
	parts.Wait()
	if lost := r.lostBy(reason); lost != nil {
		r.note(lost.Error()) // the log has it from the caller
		r.summarize("Converge: the session failed")
		return 0, lost
	}
	r.say(reason.Sentence())
	r.summarize("Converge: the session is over")
	if reason.Timeout() {
		return cfg.TimeoutExitCode, nil
	}
	return 0, err
}

// agentDir returns the folder of .hold, by a path that is good in any working
// folder, and what removes it again.
func agentDir(given string) (dir string, cleanup func(), err error) {
	if given != "" {
		dir, err := filepath.Abs(given)
		if err == nil {
			err = os.MkdirAll(dir, 0o700)
		}
		if err != nil {
			return "", nil, fmt.Errorf("cannot make the folder of --agentdir: %w: name one that can be made, or that is there", err)
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
func childEnv(job []string, dir, program string) []string {
	env := append(JobEnv(job), "agentdir="+dir, "CONVERGE_AGENTDIR="+dir)
	if program != "" {
		env = append(env, announce.AgentVariable+"="+program)
	}
	return env
}

// JobEnv is the job's own environment: without what the agent sets and without
// its options.
func JobEnv(job []string) []string {
	env := make([]string, 0, len(job)+3)
	for _, entry := range job {
		if name, _, _ := strings.Cut(entry, "="); !agentsOwn(name) {
			env = append(env, entry)
		}
	}
	return env
}

// agentsOwn reports whether a variable is an option of the agent or set by it.
func agentsOwn(name string) bool {
	const options = "CONVERGE_AGENT_"
	same := func(a, b string) bool { return a == b }
	if runtime.GOOS == "windows" {
		same = strings.EqualFold
	}
	return same(name, "agentdir") || same(name, "CONVERGE_AGENTDIR") || same(name, announce.AgentVariable) || same(name[:min(len(name), len(options))], options)
}

// name is a user with whose key it is, where that is known.
func name(u sshd.UserInfo) string {
	if u.Owner == "" {
		return u.User
	}
	return fmt.Sprintf("%s (%s)", u.User, u.Owner)
}

// describe is a user as others are told of one.
func describe(u sshd.UserInfo) string {
	text := fmt.Sprintf("%s from %s, since %s", name(u), u.Remote, u.Since.Format("15:04:05"))
	if u.Away {
		text += ", connection lost"
	}
	return text
}

// greeting is the text for a shell that starts.
func (r *run) greeting(me sshd.UserInfo) string {
	var others []string
	for _, u := range r.sshd.Users() {
		if u.ID != me.ID {
			others = append(others, describe(u))
		}
	}
	commands := announce.Commands(r.word)
	if r.place() != "" {
		commands = "" // the agent is elsewhere
	}
	return announce.Greeting(r.whileActive(), others, r.holdCommand()) + commands
}

// place is where users are, "" if that is the agent's machine.
func (r *run) place() string {
	if r.cfg.SSH.Backend == nil {
		return ""
	}
	return r.cfg.SSH.Backend.Name()
}

// holdCommand is what users are told to hold the session with: .hold is in the
// agent's folder, wherever they are.
func (r *run) holdCommand() string {
	if place := r.place(); place != "" {
		return announce.HoldOutside(r.dir, place)
	}
	return announce.HoldCommand
}

// whileActive is how the session stands while a shell is open. The events of that
// shell may be on their way still, and what they put off (the end of the
// grace, or of the wait for the first login) must not be told as the end.
func (r *run) whileActive() expiry.Status {
	for {
		r.mu.Lock()
		changed := r.phase
		r.mu.Unlock()
		if s := r.loop.Snapshot(); s.Phase == expiry.Active {
			return s
		}
		select {
		case <-changed:
		case <-r.loop.Done():
			return r.loop.Snapshot()
		}
	}
}

// effect carries out what the expiry machine decided.
func (r *run) effect(e expiry.Effect) {
	switch e := e.(type) {
	case expiry.Warn:
		st := r.loop.Snapshot()
		if st.Phase == expiry.Waiting {
			if text := r.waiting(st); text != "" { // nobody is there who could extend it
				r.inform(text)
			}
			return
		}
		hold := r.holdCommand()
		if st.Reason == expiry.MaxDuration {
			hold = "" // in vain
		}
		text := announce.Warning(e, hold)
		r.say(text)
		r.tellWarning(e)
		if !r.cfg.NoWall {
			r.sshd.Wall(text)
		}
	case expiry.PhaseChanged:
		r.log.Debug("phase", "from", e.From.String(), "to", e.To.String())
		r.mu.Lock()
		close(r.phase)
		r.phase = make(chan struct{})
		r.mu.Unlock()
		r.tellServer()
	case expiry.DeadlineChanged:
		r.tellServer()
		r.log.Debug("deadline", "at", e.Deadline, "remaining", e.Remaining)
	case expiry.WriteHold:
		r.writeHold(e)
	case expiry.End:
		// Run tells the end.
	}
}

// events passes what users do on to the expiry machine.
type events struct{ r *run }

func (e events) Login(u sshd.UserInfo) {
	e.r.loggedIn(u)
	e.r.tellLogin(u)
	e.r.loop.Send(expiry.Login(expiry.UserID(u.ID)))
}

func (e events) SessionOpened(id uint64, k sshd.Kind) {
	e.r.loop.Send(expiry.Opened(expiry.UserID(id), use(k)))
}

func (e events) SessionClosed(id uint64, k sshd.Kind) {
	e.r.loop.Send(expiry.Closed(expiry.UserID(id), use(k)))
}

func (e events) ForwardOpened(id uint64) {
	e.r.loop.Send(expiry.Opened(expiry.UserID(id), expiry.Forward))
}

func (e events) ForwardClosed(id uint64) {
	e.r.loop.Send(expiry.Closed(expiry.UserID(id), expiry.Forward))
}

func (e events) Activity(uint64) { e.r.loop.Send(expiry.Activity()) }

func (e events) Logout(u sshd.UserInfo) {
	e.r.loggedOut(u)
	e.r.loop.Send(expiry.Logout(expiry.UserID(u.ID)))
}

// use translates a kind of session.
func use(k sshd.Kind) expiry.Use {
	switch k {
	case sshd.Shell, sshd.Join, sshd.Watch:
		return expiry.Shell
	}
	return expiry.Exec
}
