//go:build unix

package session

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/keys"
	"example.com/converge/agent/internal/link"
	"example.com/converge/agent/internal/servertest"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/rendezvous"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		// A shell that was told of its agent has called us so, and would have
		// all the tests run, this one among them.
		fmt.Fprintln(os.Stderr, "the tests are no agent that knows commands")
		os.Exit(2)
	}
	goleak.VerifyTestMain(m)
}

const (
	// patience bounds every wait for an event; it decides no test that is right.
	patience = 2 * time.Minute
	// remote is where clients come from.
	remote = "192.0.2.7:4711"
	// logout is the sentence for the end after the last one.
	logout = "converge: The session ended because its last user logged out.\n"
)

// signer makes a key pair.
func signer(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// agent is a Run under way.
type agent struct {
	t        *testing.T
	server   *servertest.Server
	control  *servertest.Control
	user     ssh.Signer
	host     ssh.PublicKey
	out, log *servertest.Output
	tmp      string             // the temporary folder
	stop     context.CancelFunc // the signal

	// atBye is what stood in the job's log when the agent said goodbye to the
	// server, "" if it has not: to be read at the end.
	atBye     string
	listening sync.WaitGroup

	ended context.Context // done when Run has returned
	code  int
	err   error
}

// newServer starts a server for the test.
func newServer(t *testing.T) *servertest.Server {
	t.Helper()
	server := servertest.New()
	t.Cleanup(server.End)
	return server
}

// launch runs an agent, which nobody registers yet, with temporary folders and
// a home of its own. By default it never expires.
func launch(t *testing.T, server *servertest.Server, change func(*Config)) *agent {
	t.Helper()
	a := &agent{t: t, server: server, user: signer(t), out: &servertest.Output{}, log: &servertest.Output{}}
	host := signer(t)
	a.host = host.PublicKey()
	set, err := keys.NewSet(nil, []string{string(ssh.MarshalAuthorizedKey(a.user.PublicKey()))}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Link: link.Config{
			Server: server.Address, ID: "team/job", Patience: patience,
			Transport: &http.Transport{DisableKeepAlives: true},
		},
		SSH:    sshd.Config{User: "abc", HostKey: host, Keys: set, Shell: "/bin/sh", Dir: t.TempDir()},
		Access: announce.Access{Server: server.Address, User: "abc", HostKey: a.host, Wsproxy: "wsproxy"},
		Out:    a.out,
		Logger: slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	a.tmp = t.TempDir()
	t.Setenv("TMPDIR", a.tmp)
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("HOME", t.TempDir())
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	ended, end := context.WithCancel(context.Background())
	a.ended = ended
	go func() {
		defer end()
		a.code, a.err = Run(ctx, cfg)
	}()
	t.Cleanup(func() {
		stop()
		<-ended.Done()
		a.listening.Wait()
	})
	return a
}

// start runs an agent that is registered.
func start(t *testing.T, change func(*Config)) *agent {
	t.Helper()
	a := launch(t, newServer(t), change)
	a.register()
	return a
}

// context ends with the agent, or with the patience.
func (a *agent) context() context.Context {
	ctx, cancel := context.WithTimeout(a.ended, patience)
	a.t.Cleanup(cancel)
	return ctx
}

// register goes through the registration, and listens from then on.
func (a *agent) register() {
	a.t.Helper()
	var err error
	if a.control, err = a.server.Registered(a.context()); err != nil {
		a.t.Fatal(err)
	}
	control := a.control
	_ = control.SetReadDeadline(time.Time{}) // the registration's
	a.listening.Go(func() {
		for {
			m, err := rendezvous.Receive(control)
			if err != nil {
				_ = control.Close()
				return
			}
			if m.Bye != nil {
				a.atBye = a.out.String()
			}
		}
	})
}

// said waits for something in the job's log, logged for something in the agent's.
func (a *agent) said(pattern string) []string   { a.t.Helper(); return a.wait(a.out, pattern) }
func (a *agent) logged(pattern string) []string { a.t.Helper(); return a.wait(a.log, pattern) }

func (a *agent) wait(o *servertest.Output, pattern string) []string {
	a.t.Helper()
	found, err := o.Wait(a.context(), pattern)
	if err != nil {
		a.t.Fatal(err)
	}
	return found
}

// ends waits for the end of Run and checks the exit code.
func (a *agent) ends(code int) {
	a.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-a.ended.Done():
	case <-limit.C:
		a.t.Fatalf("it has not ended; it said %q", a.out)
	}
	a.listening.Wait()
	if a.err != nil || a.code != code {
		a.t.Errorf("exit code %d, %v, want %d", a.code, a.err, code)
	}
	a.tidy()
}

// tidy checks that nothing is left in the temporary folder.
func (a *agent) tidy() {
	a.t.Helper()
	left, err := os.ReadDir(a.tmp)
	if err != nil || len(left) > 0 {
		a.t.Errorf("left behind: %v, %v", left, err)
	}
}

// login brings a user in.
func (a *agent) login() *ssh.Client {
	a.t.Helper()
	client, err := a.server.Login(a.context(), a.control, remote, &ssh.ClientConfig{
		User: "abc", Auth: []ssh.AuthMethod{ssh.PublicKeys(a.user)}, HostKeyCallback: ssh.FixedHostKey(a.host),
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = client.Close() })
	return client
}

// shell is a shell on a terminal.
type shell struct {
	*ssh.Session
	a   *agent
	in  io.WriteCloser
	out *servertest.Output
}

// shell opens one, and waits for its greeting.
func (a *agent) shell(client *ssh.Client) *shell {
	a.t.Helper()
	session, err := client.NewSession()
	if err != nil {
		a.t.Fatal(err)
	}
	s := &shell{Session: session, a: a, out: &servertest.Output{}}
	s.Stdout = s.out
	if s.in, err = s.StdinPipe(); err != nil {
		a.t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 200, nil); err != nil {
		a.t.Fatal(err)
	}
	if err := s.Session.Shell(); err != nil {
		a.t.Fatal(err)
	}
	s.shows(`Welcome to this job`)
	return s
}

func (s *shell) typeIn(text string) {
	s.a.t.Helper()
	if _, err := io.WriteString(s.in, text); err != nil {
		s.a.t.Fatal(err)
	}
}

// shows waits for something on the terminal.
func (s *shell) shows(pattern string) []string { s.a.t.Helper(); return s.a.wait(s.out, pattern) }

// leave says goodbye: the shell ends, and then the connection.
func (s *shell) leave(client *ssh.Client) {
	s.a.t.Helper()
	s.typeIn("exit\n")
	_ = s.Wait() // the status is that of the last command
	_ = client.Close()
}

// run runs a command and returns its output.
func (a *agent) run(client *ssh.Client, command string) string {
	a.t.Helper()
	session, err := client.NewSession()
	if err != nil {
		a.t.Fatal(err)
	}
	defer session.Close()
	out, err := session.Output(command)
	if err != nil {
		a.t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// position returns where a text stands in another, and fails if it does not.
func position(t *testing.T, text, part string) int {
	t.Helper()
	i := strings.Index(text, part)
	if i < 0 {
		t.Errorf("no %q in %q", part, text)
	}
	return i
}
