// Package sshd is the SSH server that the agent carries: it takes connections
// that somebody else accepted, logs users in, and gives them shells, commands
// and file transfer in a place that a back end makes for each connection: by
// default in this process's surroundings, as OpenSSH's server would (RFC 4252,
// RFC 4254). gliderlabs/ssh serves for the handshake and the configuration; what
// happens in a channel is this package's own.
//
// It must know nothing of where connections come from, of expiry, of the command
// line, and of which back end it has: it tells what happens through Events and is
// told to stop through Shutdown. What becomes of programs whose client is gone is
// the back end's to say; none outlives Shutdown but as it allows.
package sshd

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/asciicast"
	"example.com/converge/agent/internal/backend"
	"example.com/converge/agent/internal/host"
	"example.com/converge/agent/internal/keys"
)

// Limits. They bound what strangers and users can make the agent hold.
const (
	// maxPending is the number of connections that have not logged in.
	maxPending = 32
	// maxSessions is the number of open sessions of one connection.
	maxSessions = 64
	// maxAuthTries is the number of failed attempts of one connection; each
	// key that a client's agent offers in vain is one (as in sshd_config(5)).
	maxAuthTries = 6
	// missedKeepAlives is how many silent intervals end a connection.
	missedKeepAlives = 3
	// lastWords is what a client has at Shutdown to go by itself.
	lastWords = time.Second
	// activityEvery bounds how often Activity is called for a connection.
	activityEvery = time.Second

	defaultLoginTimeout = 2 * time.Minute
	defaultKeepAlive    = 20 * time.Second
)

// ErrPatience is returned, wrapped, by Shutdown when sessions had to be killed.
var ErrPatience = errors.New("sessions had to be killed")

// Config says how to serve. It must not change after New.
type Config struct {
	// User is the one user name that may log in. It says nothing about the
	// account that processes run as, which is that of this process.
	User string
	// HostKey proves the server. An RSA key signs with SHA-2 only.
	HostKey ssh.Signer
	// Keys may log in; nil or an empty set turns the method off.
	Keys *keys.Set
	// Password may log in; "" turns the method off.
	Password string

	// Backend is where users' programs run; nil is this machine, where they
	// run with Shell, Dir and Env (see host.Config), which mean nothing to
	// others.
	Backend backend.Backend
	// Shell is the absolute path of the program that runs shells and
	// commands. "" takes SHELL of Env, or else of this process, if it is a
	// shell that is there, and the platform's default if it is not.
	Shell string
	// Dir is the working folder of processes and the start of relative SFTP
	// paths; "" is that of this process.
	Dir string
	// Env is the environment of processes, complete: nothing is inherited
	// behind its back. SHELL, PWD, and on a terminal TERM and SSH_TTY, are set
	// over it.
	Env []string
	// AcceptEnv are names, or patterns as in path.Match, of variables that a
	// client may set beside LANG, LANGUAGE, LC_*, TERM, COLORTERM and TZ.
	AcceptEnv []string

	// NoForwarding are the kinds of forwarding that are refused.
	NoForwarding Forwarding
	// NoSFTP refuses the sftp subsystem. Who may run commands can copy files
	// all the same.
	NoSFTP bool
	// ReadOnlySFTP refuses what would change anything by SFTP.
	ReadOnlySFTP bool
	// ForceCommand is run by the shell in place of whatever a client asks
	// for, which it finds in SSH_ORIGINAL_COMMAND; internal-sftp is the sftp
	// subsystem. "" leaves the choice to the client. Forwarding is not
	// concerned. As ForceCommand in sshd_config(5).
	ForceCommand string

	// Record is a folder into which each interactive shell is recorded, in a
	// file of its own that asciinema plays; it is made if it is not there. ""
	// records nothing.
	Record string

	// LoginTimeout is how long a connection may take to log in; 0 is 2
	// minutes, time enough to find and touch a hardware key.
	LoginTimeout time.Duration
	// KeepAlive is the time between two keepalive@openssh.com requests, give
	// or take a fifth; 0 is 20 s. A connection on which nothing arrives for
	// three of them is closed. A negative value turns them off, for streams
	// that have a watch of their own.
	KeepAlive time.Duration

	// Banner returns the text that an interactive shell starts with, lines
	// ending in \n. It is called once for each shell; nil is none.
	Banner func(user UserInfo) string
	// Events hears what users do; nil is nobody.
	Events Events
	// Logger is told about logins and troubles; nil discards.
	Logger *slog.Logger
}

// UserInfo describes an authenticated connection.
type UserInfo struct {
	// ID is unique in this Server; it counts connections from 1.
	ID uint64
	// User is the name that logged in.
	User string
	// Remote is the peer's address as the connection gives it.
	Remote string
	// Session is the id of the connection's session, as the server's log and
	// the client's have it; "" if it has none.
	Session string
	// KeyFingerprint is SHA256:… as OpenSSH prints it, "" after a password.
	KeyFingerprint string
	// Owner tells whose the key is, where that is known, and is fit to be shown.
	Owner string
	// Since is the time of the login.
	Since time.Time
	// Away is whether the connection is lost for the moment, as Users saw it.
	Away bool
}

// Kind is what a session is used for.
type Kind int

// The kinds of sessions.
const (
	// Shell is a shell on a terminal.
	Shell Kind = iota + 1
	// Exec is a command, or a shell without terminal.
	Exec
	// SFTP is the sftp subsystem.
	SFTP
	// Join is typing in another user's shell, Watch is watching it.
	Join
	Watch
)

// interactive reports whether somebody looks at a terminal.
func (k Kind) interactive() bool { return k == Shell || k == Join || k == Watch }

// String returns the kind as a word for logs.
func (k Kind) String() string {
	switch k {
	case Shell:
		return "shell"
	case Exec:
		return "exec"
	case SFTP:
		return "sftp"
	case Join:
		return "join"
	case Watch:
		return "watch"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Events hears what users do. The calls come from many goroutines at once and
// must not block; ids are those of UserInfo. For each connection Login comes
// first and Logout last, with a SessionClosed for each SessionOpened and a
// ForwardClosed for each ForwardOpened in between, but no SessionClosed for
// shells and commands that the loss of their connection cut off: nobody has
// left those.
type Events interface {
	// Login is the success of authentication.
	Login(UserInfo)
	// SessionOpened is the start of a shell, command or file transfer.
	SessionOpened(id uint64, k Kind)
	// SessionClosed is its end, after its last output.
	SessionClosed(id uint64, k Kind)
	// ForwardOpened is the start of a forwarded connection, or of listening
	// for them (ssh -R). A key agent that is lent to a session is not told of.
	ForwardOpened(id uint64)
	// ForwardClosed is its end.
	ForwardClosed(id uint64)
	// Activity is bytes from the user: terminal input, a command's input,
	// SFTP packets. It comes at most once a second for each connection.
	Activity(id uint64)
	// Logout is the end of the connection, whoever ended it.
	Logout(UserInfo)
}

// noEvents is for who wants to hear nothing.
type noEvents struct{}

func (noEvents) Login(UserInfo)             {}
func (noEvents) SessionOpened(uint64, Kind) {}
func (noEvents) SessionClosed(uint64, Kind) {}
func (noEvents) ForwardOpened(uint64)       {}
func (noEvents) ForwardClosed(uint64)       {}
func (noEvents) Activity(uint64)            {}
func (noEvents) Logout(UserInfo)            {}

// Server serves connections. Its methods are safe for concurrent use.
type Server struct {
	cfg     Config
	log     *slog.Logger
	events  Events
	backend backend.Backend
	// dialTimeout bounds how long a forward may take to reach its target.
	dialTimeout time.Duration
	ssh         *gssh.Server
	// user and password are digests, so that comparing them takes the same
	// time whatever their lengths are.
	user, password [sha256.Size]byte
	// hasAES is whether AES-GCM is fast here.
	hasAES bool
	// failures are the failed attempts to log in.
	failures pace
	// shells are those that can be joined.
	shells shells

	mu      sync.Mutex
	conns   map[*conn]struct{}
	pending int // connections that have not logged in
	lastID  uint64
	closing bool
	reason  string // of Shutdown

	// wg counts connections, and those who bury the processes they left.
	wg sync.WaitGroup
	// hurry is closed when Shutdown begins, kill when its patience ends.
	hurry, kill chan struct{}
}

// New makes a server. It refuses a configuration that has neither key nor
// password: the library beneath would take it as a wish to let everybody in.
func New(cfg Config) (*Server, error) {
	switch {
	case cfg.User == "":
		return nil, errors.New("cannot serve SSH without a user name: set the name that may log in")
	case cfg.HostKey == nil:
		return nil, errors.New("cannot serve SSH without a host key: make or read one first")
	case cfg.Keys.Empty() && cfg.Password == "":
		return nil, errors.New("cannot serve SSH that nobody could log in to: " +
			"give authorized keys or a password")
	}
	if err := checkForced(&cfg); err != nil {
		return nil, err
	}
	if cfg.Record != "" {
		if err := asciicast.Prepare(cfg.Record); err != nil {
			return nil, err
		}
	}
	place := cfg.Backend
	if place == nil {
		here, err := host.New(host.Config{Shell: cfg.Shell, Dir: cfg.Dir, Env: cfg.Env})
		if err != nil {
			return nil, err
		}
		place = here
	}
	if err := checkPatterns(cfg.AcceptEnv); err != nil {
		return nil, err
	}
	hostKey, err := modernSigner(cfg.HostKey)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:         cfg,
		log:         cfg.Logger,
		events:      cfg.Events,
		backend:     place,
		dialTimeout: defaultDialTimeout,
		user:        sha256.Sum256([]byte(cfg.User)),
		password:    sha256.Sum256([]byte(cfg.Password)),
		hasAES:      machineHasAES,
		conns:       make(map[*conn]struct{}),
		hurry:       make(chan struct{}),
		kill:        make(chan struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.events == nil {
		s.events = noEvents{}
	}
	if s.cfg.LoginTimeout <= 0 {
		s.cfg.LoginTimeout = defaultLoginTimeout
	}
	if s.cfg.KeepAlive == 0 {
		s.cfg.KeepAlive = defaultKeepAlive
	}
	s.ssh = s.newSSH(hostKey)
	return s, nil
}

// Users returns those who are logged in, in the order of their logins.
func (s *Server) Users() []UserInfo {
	var users []UserInfo
	for _, c := range s.loggedIn() {
		info := c.info
		if a, ok := c.transport.(interface{ Attached() bool }); ok {
			info.Away = !a.Attached()
		}
		users = append(users, info)
	}
	return users
}

// Wall shows a text, one line or several, to every interactive shell, on lines
// of its own. Control characters in it are replaced. It does not wait: a shell
// whose client takes no output misses it.
func (s *Server) Wall(text string) {
	line := wallText(text)
	for _, c := range s.loggedIn() {
		for _, session := range c.list() {
			session.tell(line)
		}
	}
}

// Shutdown ends everything: connections are refused from now on, interactive
// shells are told the reason (if it is not ""), all sessions get SIGHUP and a
// moment to send their last output, the users of commands are told the reason
// after that, and the connections are closed. Processes
// that do not go within the back end's patience, which is 5 s, or until ctx is
// done if that is sooner, are killed. Shutdown returns when no goroutine and no process is left; the error
// is nil, or wraps ErrPatience and ctx's error.
func (s *Server) Shutdown(ctx context.Context, reason string) error {
	s.mu.Lock()
	if !s.closing {
		s.closing, s.reason = true, reason
		close(s.hurry)
	}
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	if reason != "" {
		s.Wall(reason)
	}
	var closers sync.WaitGroup
	for _, c := range all {
		// Closing may take a while on some transports.
		closers.Go(c.shutdown)
	}
	done := make(chan struct{})
	go func() {
		closers.Wait()
		s.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	select {
	case <-s.kill:
	default:
		close(s.kill)
	}
	s.mu.Unlock()
	// The closers see it, and close what is still open.
	<-done
	return fmt.Errorf("closing the SSH server: %w: %w", ErrPatience, context.Cause(ctx))
}
