//go:build unix

package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/servertest"
	"example.com/converge/pkg/clitest"
)

// remote is where clients come from.
const remote = "192.0.2.7:4711"

// process is a running agent, and the server that it calls out to.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	server  *servertest.Server
	control *servertest.Control
	tmp     string // the temporary folder
	user    ssh.Signer
	key     string // that of user, as a line

	stdout, stderr servertest.Output
	exited         context.Context // done when it has
	listening      sync.WaitGroup
}

// prepare makes an agent that does not run yet, with a server of its own.
func prepare(t *testing.T) *process {
	t.Helper()
	p := &process{t: t, server: servertest.New(), tmp: t.TempDir()}
	t.Cleanup(func() {
		p.server.End()
		p.listening.Wait()
	})
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.user, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	p.key = strings.TrimSpace(string(ssh.MarshalAuthorizedKey(p.user.PublicKey())))
	return p
}

// run starts a program, which is killed at the test's end if it runs then.
func (p *process) run(env []string, program string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(clitest.OutsideCI(os.Environ()), append(env, "GORACE="+clitest.RaceOptions,
		"TMPDIR="+p.tmp, "HOME="+p.t.TempDir(), "SHELL=/bin/sh")...)
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	p.start(cmd)
}

func (p *process) start(cmd *exec.Cmd) {
	p.t.Helper()
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.cmd = cmd
	exited, exit := context.WithCancelCause(context.Background())
	p.exited = exited
	go func() {
		_ = cmd.Wait()
		exit(fmt.Errorf("it ended with %v", cmd.ProcessState))
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited.Done()
	})
}

// start runs an agent with a key and waits for its announcement.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := prepare(t)
	p.run(nil, "agent", append(args, "--authorized-key", p.key, p.server.Address.AgentURL("team/job"))...)
	p.registered()
	return p
}

// context ends with the process, or with the patience.
func (p *process) context() context.Context {
	ctx, cancel := context.WithTimeout(p.exited, patience)
	p.t.Cleanup(cancel)
	return ctx
}

// registered registers the agent and waits for its announcement.
func (p *process) registered() {
	p.t.Helper()
	var err error
	if p.control, err = p.server.Registered(p.context()); err != nil {
		p.t.Fatalf("%v; it said %q", err, &p.stderr)
	}
	p.listen()
	p.prints(`host key: SHA256:\S+ \(.*\)\n\n`)
}

// listen takes what the agent says to the server from now on.
func (p *process) listen() {
	control := p.control
	p.listening.Go(func() { _, _ = io.Copy(io.Discard, control) })
}

// prints waits for something on stdout.
func (p *process) prints(pattern string) []string {
	p.t.Helper()
	found, err := p.stdout.Wait(p.context(), pattern)
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// login brings a user in and returns what a command prints. The connection
// stays until the test's end, or that of the agent.
func (p *process) login(how ssh.AuthMethod, command string) string {
	p.t.Helper()
	client, err := p.server.Login(p.context(), p.control, remote, &ssh.ClientConfig{
		User: "abc", Auth: []ssh.AuthMethod{how}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = client.Close() })
	session, err := client.NewSession()
	if err != nil {
		p.t.Fatal(err)
	}
	defer session.Close()
	out, err := session.Output(command)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(out)
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatal(err)
	}
}

// exits waits for the end, with a code, without anything on stderr but log
// lines and with nothing left in the temporary folder.
func (p *process) exits(code int) {
	p.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.exited.Done():
	case <-limit.C:
		p.t.Fatalf("it has not ended; it printed %q", &p.stdout)
	}
	if p.cmd.ProcessState.ExitCode() != code {
		p.t.Errorf("it ended with %v, want %d; it said %q", p.cmd.ProcessState, code, &p.stderr)
	}
	if code != 1 && strings.Contains(p.stderr.String(), "agent: ") {
		p.t.Errorf("it said %q", &p.stderr)
	}
	if left, err := os.ReadDir(p.tmp); err != nil || len(left) > 0 {
		p.t.Errorf("left behind: %v, %v", left, err)
	}
}

const signalled = "\nconverge: The session ended because the agent was told to stop by a signal.\n"

func TestAnnouncement(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, "--timeout-exit-code", "7", "--wsproxy", "/opt/wsproxy", "--ssh-option=-oIdentitiesOnly=yes")
			url := regexp.QuoteMeta(p.server.Address.ClientURL("team/job")) + `#[A-Za-z0-9_-]{43}`
			p.prints(`^\nThis job can be entered\. Its id is team/job\n\n` +
				`  /opt/wsproxy ssh -oIdentitiesOnly=yes "` + url + `"\n\n` +
				`With stock ssh .*:\n\n` +
				`  ssh -oIdentitiesOnly=yes -oServerAliveInterval=10 -oServerAliveCountMax=36 -oProxyCommand="/opt/wsproxy '` + url + `'" -oKnownHostsCommand="/bin/echo %H ssh-ed25519 .* abc@localhost\n\n` +
				`For files write sftp .*\n\n  host key: SHA256:\S{43} \(ed25519\)\n\n` +
				`converge: waiting for somebody to log in, for 10 min more \(until (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d .*\)\n$`)
			p.signal(sig)
			p.exits(0)
			if !strings.HasSuffix(p.stdout.String(), signalled) {
				t.Errorf("it printed %q", &p.stdout)
			}
		})
	}
}

// TestPrintJSON: a program reads one object from stdout, and the log is on stderr;
// with a command, whose stdout it is, both are there.
func TestPrintJSON(t *testing.T) {
	for _, command := range [][]string{nil, {"--", "sh", "-c", "echo of the command; exit 3"}} {
		p := prepare(t)
		p.run(nil, "agent", slices.Concat([]string{"--print=json", "--password", "--authorized-key", p.key, "--first-connect-timeout", "1h", p.server.Address.AgentURL("team/job")}, command)...)
		var err error
		if p.control, err = p.server.Registered(p.context()); err != nil {
			t.Fatalf("%v; it said %q", err, &p.stderr)
		}
		p.listen()
		waits := `converge: waiting for somebody to log in, for 1 h more \(until .*\)\n`
		if _, err := p.stderr.Wait(p.context(), waits); err != nil {
			t.Fatal(err)
		}
		var object struct {
			ID        string    `json:"id"`
			ClientURL string    `json:"client_url"`
			SSH       string    `json:"ssh"`
			SSHStock  string    `json:"ssh_stock"`
			SFTP      string    `json:"sftp"`
			HostKey   string    `json:"host_key"`
			User      string    `json:"user"`
			Password  string    `json:"password"`
			Expires   time.Time `json:"expires"`
		}
		where := &p.stdout
		if command != nil {
			where = &p.stderr
		}
		found, err := where.Wait(p.context(), `(?m)^\{.*\}\n`)
		if err != nil {
			t.Fatal(err)
		}
		text := found[0]
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&object); err != nil || decoder.More() {
			t.Fatalf("%v in %q", err, text)
		}
		url := p.server.Address.ClientURL("team/job") + "#"
		if object.ID != "team/job" || !strings.HasPrefix(object.ClientURL, url) || object.SSH != `wsproxy ssh "`+object.ClientURL+`"` ||
			!strings.HasPrefix(object.SSHStock, "ssh -o") || object.SFTP != `wsproxy sftp "`+object.ClientURL+`"` ||
			!strings.HasPrefix(object.HostKey, "ssh-ed25519 ") || object.User != "abc" ||
			!object.Expires.After(time.Now().Add(30*time.Minute)) || object.Expires.After(time.Now().Add(time.Hour)) {
			t.Errorf("%+v", object)
		}
		if got := p.login(ssh.Password(object.Password), "echo here"); got != "here\n" {
			t.Errorf("%q", got)
		}
		p.signal(syscall.SIGTERM)
		if command == nil {
			p.exits(0)
		} else {
			p.exits(3)
			text = "of the command\n"
		}
		if p.stdout.String() != text {
			t.Errorf("it printed %q", &p.stdout)
		}
		if said := p.stderr.String(); strings.Contains(said, "can be entered") || !strings.Contains(said, "abc logged in from ") {
			t.Errorf("it said %q", said)
		}
	}
}

// TestPrintAll has every way in.
func TestPrintAll(t *testing.T) {
	p := start(t, "--print", "all")
	p.prints(`(?s)\n  wsproxy ssh "ws.*\n  ssh -o.*\n  wsproxy sftp "ws.*\n  sftp -o.*\n  f=wsproxy-.*SHA256SUMS.*\n  tcptows 10000 "ws.*\n  ssh -o.* -p 10000 .* abc@localhost\n`)
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// TestHangUpIgnored is nohup.
func TestHangUpIgnored(t *testing.T) {
	p := prepare(t)
	p.run(nil, "sh", "-c", `trap "" HUP; exec agent "$@"`, "sh", "--authorized-key", p.key, p.server.Address.String())
	p.registered()
	p.signal(syscall.SIGHUP)
	if got := p.login(ssh.PublicKeys(p.user), "echo here"); got != "here\n" {
		t.Errorf("%q", got)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// TestTimeout has an agent whose time is up before anything else can happen.
func TestTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"expiry":        {[]string{"--expiry", "1ns", "--timeout-exit-code", "42"}, 42, "because nobody logged in in time.\n"},
		"first connect": {[]string{"--first-connect-timeout", "1ns", "--timeout-exit-code=255"}, 255, "because nobody logged in in time.\n"},
		"cap":           {[]string{"--max-duration", "1ns", "--timeout-exit-code", "2"}, 2, "reached its maximum duration, which nothing extends.\n"},
		"no code":       {[]string{"--expiry", "1ns"}, 0, "because nobody logged in in time.\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := prepare(t)
			p.run(nil, "agent", append(test.args, p.server.Address.String())...)
			p.exits(test.code)
			if !strings.HasSuffix(p.stdout.String(), test.want) {
				t.Errorf("it printed %q", &p.stdout)
			}
		})
	}
}

// TestPassword is for agents without a key; it is nowhere but on stdout.
func TestPassword(t *testing.T) {
	p := prepare(t)
	file := filepath.Join(t.TempDir(), "header")
	if err := os.WriteFile(file, []byte("Authorization: Bearer by-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.run([]string{"CONVERGE_AGENT_HEADER=@" + file, "CONVERGE_AGENT_USER=abc", "CONVERGE_AGENT_ID=by-env", "OF_THE_JOB=1"},
		"agent", p.server.Address.String(), "--keep", "--log-level=debug")
	p.registered()
	if got := p.control.Header.Get("Authorization"); got != "Bearer by-file" || p.control.ID != "by-env" {
		t.Errorf("it came as %s with %q", p.control.ID, got)
	}
	password := p.prints(`"\n\n  password: ([a-z2-7]{5}(?:-[a-z2-7]{5}){3})\n\nWith stock ssh`)[1]
	env := p.login(ssh.Password(password), "env")
	if strings.Contains(env, "CONVERGE_AGENT_") || strings.Contains(env, password) || !strings.Contains(env, "OF_THE_JOB=1\n") {
		t.Errorf("the user's environment is %q", env)
	}
	if runtime.GOOS == "linux" {
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.cmd.Process.Pid))
		if err != nil || string(title) != strings.Join(p.cmd.Args, "\x00")+"\x00" {
			t.Errorf("the process's title is %q, %v", title, err)
		}
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
	if said := p.stderr.String(); strings.Contains(said, password) || strings.Contains(said, "by-file") {
		t.Errorf("it said %q", said)
	}
	if strings.Count(p.stdout.String(), password) != 1 || strings.Contains(p.stdout.String(), "by-file") {
		t.Errorf("it printed %q", &p.stdout)
	}
}

// TestForgeKeys lets in who has a key at a forge, and nobody before the job's
// command has failed asks the forge.
func TestForgeKeys(t *testing.T) {
	p := prepare(t)
	var asked atomic.Int32
	answer := forgeOf(p.key)
	forge := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		answer(w, r)
	}))
	defer forge.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forge.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	const token = "s3cret"
	env := []string{
		"GITLAB_CI=true", "CI_PIPELINE_SOURCE=push", "CI_SERVER_URL=" + forge.URL, "GITLAB_USER_LOGIN=alice",
		"CI_PROJECT_VISIBILITY=public", "CONVERGE_AGENT_GITLAB_TOKEN=" + token,
	}
	args := []string{"--ca", ca, "--actor", "--gitlab-group", "acme", p.server.Address.String(), "--"}
	p.run(env, "agent", append(args, "true")...)
	p.exits(0)
	if n := asked.Load(); n != 0 {
		t.Errorf("the forge was asked %d times although the command succeeded", n)
	}
	p.run(env, "agent", append(args, "false")...)
	var err error
	if p.control, err = p.server.Registered(p.context()); err != nil {
		t.Fatalf("%v; it said %q", err, &p.stderr)
	}
	p.listen()
	if got := p.login(ssh.PublicKeys(p.user), "env"); strings.Contains(got, token) || !strings.Contains(got, "GITLAB_CI=true\n") {
		t.Errorf("the environment is %q", got)
	}
	p.signal(syscall.SIGTERM)
	p.exits(1)
	said := p.stderr.String()
	for _, want := range []string{`msg="keys fetched" source="the GitLab group acme at ` + forge.URL, `of="alice at 127.0.0.1:`} {
		if !strings.Contains(said, want) {
			t.Errorf("it said %q, and not %q", said, want)
		}
	}
	if strings.Contains(said, token) || strings.Contains(said, "password") {
		t.Errorf("it said %q", said)
	}
}

// TestKeyFile lets in whose key comes into the file later, and has a host key
// that stays the same.
func TestKeyFile(t *testing.T) {
	p := prepare(t)
	dir := t.TempDir()
	file, host := filepath.Join(dir, "keys"), filepath.Join(dir, "host")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", host).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := exec.Command("ssh-keygen", "-l", "-f", host).Output()
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := strings.Fields(string(out))[1]
	p.run(nil, "agent", p.server.Address.String(), "--authorized-keys", file, "--host-key", host)
	p.registered()
	if text := p.stdout.String(); strings.Contains(text, "password") || !strings.Contains(text, "host key: "+fingerprint+" (ed25519)\n") {
		t.Errorf("it printed %q, want %s", text, fingerprint)
	}
	if err := os.WriteFile(file, []byte(p.key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := p.login(ssh.PublicKeys(p.user), "echo here"); got != "here\n" {
		t.Errorf("%q", got)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

// TestOutputsBroken has nobody who reads stdout and stderr any more.
func TestOutputsBroken(t *testing.T) {
	p := prepare(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("agent", "--log-level=debug", "--grace=0", "--authorized-key", p.key, p.server.Address.String())
	cmd.Env = append(clitest.OutsideCI(os.Environ()), "GORACE="+clitest.RaceOptions, "TMPDIR="+p.tmp)
	cmd.Stdout, cmd.Stderr = w, w
	p.start(cmd)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if p.control, err = p.server.Registered(p.context()); err != nil {
		t.Fatal(err)
	}
	p.listen()
	// A command has the usual action of SIGPIPE, not the agent's.
	if got := p.login(ssh.PublicKeys(p.user), `sh -c 'kill -PIPE $$; echo ignored'; echo $?`); got != "141\n" {
		t.Errorf("%q", got)
	}
	p.signal(syscall.SIGTERM)
	p.exits(0)
}

func TestIDTaken(t *testing.T) {
	p := prepare(t)
	p.run(nil, "agent", p.server.Address.AgentURL("taken"), "--id-conflict", "fail")
	c, err := p.server.Control(p.context())
	if err == nil {
		err = c.Refuse("id-taken", "another agent has the id taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	p.exits(1)
	if said := p.stderr.String(); said != "agent: another agent has the id taken: choose another --id\n" || p.stdout.String() != "" {
		t.Errorf("it said %q and printed %q", said, &p.stdout)
	}
}
