package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/watchtest"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// bin is the folder of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(setup(m)) }

// setup builds the programs, with the race detector, as one does before use.
func setup(m *testing.M) int {
	dir, err := os.MkdirTemp("", "converge-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	// The race detector would let every program linger for a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	// In a job with a public log the agent prints no password by itself.
	for _, name := range []string{
		"CI", "CIRCLECI", "CI_SYSTEM_NAME", "DRONE", "FORGEJO_ACTIONS", "GITEA_ACTIONS", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TF_BUILD",
	} {
		os.Unsetenv(name)
	}
	for _, tool := range []string{"server", "agent", "wsproxy", "tcptows", "dispatch", "gitgate"} {
		build := exec.Command("go", "build", "-race", "-o", filepath.Join(dir, tool), "./"+tool)
		build.Dir = ".." // the workspace's root
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build %s: %v\n%s", tool, err, out)
			return 1
		}
	}
	return m.Run()
}

func tool(name string) string { return filepath.Join(bin, name) }

// process is a program that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	out  *watchtest.Output // stdout and stderr together
	done chan struct{}
	err  error
}

// launch runs a program. Whoever calls it must end it and wait for it.
func launch(env []string, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(name, args...), out: &watchtest.Output{}, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.WaitDelay = patience // for what it leaves behind with its output
	// Standard input stays open, and empty, as a terminal's does.
	if _, err := p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		p.out.End()
		close(p.done)
	}()
	return p, nil
}

// start runs a program until the end of the test at the latest.
func start(t *testing.T, env []string, name string, args ...string) *process {
	t.Helper()
	p, err := launch(env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.finish(t) })
	return p
}

// finish asks the program to end, waits for it, and looks at what it printed.
func (p *process) finish(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGTERM)
	name := filepath.Base(p.cmd.Path)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.signal(syscall.SIGKILL)
		<-p.done
		t.Errorf("%s did not end on SIGTERM:\n%s", name, p.out)
	}
	if strings.Contains(p.out.String(), "DATA RACE") {
		t.Errorf("%s has a data race:\n%s", name, p.out)
	}
	if t.Failed() {
		t.Logf("%s printed:\n%s", name, p.out)
	}
}

func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// wait returns the exit code once the process has ended.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("%s goes on:\n%s", p.cmd.Path, p.out)
	}
	return p.cmd.ProcessState.ExitCode()
}

// kill ends the process as a crash would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait(t)
}

// server is a running rendezvous server.
type server struct {
	*process
	addr string // HOST:PORT
	tls  bool
}

func startServer(t *testing.T, args ...string) *server {
	t.Helper()
	p := start(t, nil, tool("server"), append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	return &server{process: p, addr: p.out.Await(t, `msg=serving address=(\S+)`, 1)[1]}
}

func (s *server) ws(path string) string {
	if s.tls {
		return "wss://" + s.addr + path
	}
	return "ws://" + s.addr + path
}

// restart starts another server at the same address.
func (s *server) restart(t *testing.T, args ...string) *server {
	t.Helper()
	p := start(t, nil, tool("server"), append([]string{"--listen", s.addr}, args...)...)
	p.out.Await(t, `msg=serving`, 1)
	return &server{process: p, addr: s.addr}
}

// agent is a running agent that has registered.
type agent struct {
	*process
	id string
	// ssh and sftp are the lines for stock OpenSSH, short the one with wsproxy.
	ssh, sftp, short string
	url              string // the client's
}

// identity is a key pair for the test's user.
type identity struct{ file, public string }

func newIdentity(t *testing.T) identity {
	t.Helper()
	file := filepath.Join(t.TempDir(), "id_ed25519")
	out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return identity{file: file, public: strings.TrimSpace(string(public))}
}

// startAgent starts an agent that stays, and waits for the lines it prints.
func startAgent(t *testing.T, s *server, id identity, args ...string) *agent {
	t.Helper()
	return runAgent(t, s.ws("/agent/"+uniqueID()), id, append([]string{"--keep"}, args...)...)
}

func runAgent(t *testing.T, url string, id identity, args ...string) *agent {
	t.Helper()
	command := agentCommand(url, id, args...)
	return awaitAgent(t, start(t, nil, command[0], command[1:]...))
}

func agentCommand(url string, id identity, args ...string) []string {
	all := []string{
		tool("agent"),
		"--authorized-key", id.public, "--shell", "/bin/bash",
		"--wsproxy", tool("wsproxy"), "--ssh-option=-i" + id.file, "--ssh-option=-oIdentitiesOnly=yes",
		"--ssh-option=-Fnone", "--ssh-option=-oBatchMode=yes",
	}
	return append(append(all, args...), url)
}

func awaitAgent(t *testing.T, p *process) *agent {
	t.Helper()
	a := &agent{process: p}
	a.id = p.out.Await(t, `Its id is (\S+)`, 1)[1]
	a.short = p.out.Await(t, `(?m)^  (\S*wsproxy ssh .*)$`, 1)[1]
	a.ssh = p.out.Await(t, `(?m)^  (ssh .*)$`, 1)[1]
	// As the agent says: sftp in place of ssh.
	a.sftp = "sftp " + strings.TrimPrefix(a.ssh, "ssh ")
	a.url = regexp.MustCompile(`wss?://\S+/client/[^"'\s]+`).FindString(a.ssh)
	p.out.Await(t, `host key: SHA256:\S+`, 1)
	return a
}

func uniqueID() string { return "t-" + strings.ToLower(rand.Text())[:12] }

// result is a finished command.
type result struct {
	stdout, stderr string
	code           int
}

// shell runs a line as a user would type it.
func shell(t *testing.T, stdin io.Reader, line string) result {
	t.Helper()
	return runCommand(t, stdin, "/bin/sh", "-c", line)
}

func runCommand(t *testing.T, stdin io.Reader, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	// Errorf, not Fatalf: this may run in a goroutine of the test.
	if ctx.Err() != nil {
		t.Errorf("%s %q did not end within %v\nstdout: %.400s\nstderr: %s", name, args, patience, &stdout, &stderr)
	}
	if cmd.ProcessState == nil {
		t.Errorf("cannot run %s: %v", name, err)
		return result{code: -1}
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// must fails the test unless the command exited 0.
func (r result) must(t *testing.T) result {
	t.Helper()
	if r.code != 0 {
		t.Fatalf("exit code %d\nstdout: %.400s\nstderr: %s", r.code, r.stdout, r.stderr)
	}
	return r
}

// way is one of the ways to reach an agent.
type way struct {
	name string
	// options go between ssh, sftp or scp and what follows.
	options []string
}

// options that both ways share.
func baseOptions(id identity) []string {
	return []string{
		"-F", "none", "-i", id.file, "-oIdentitiesOnly=yes", "-oBatchMode=yes",
		"-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null", "-oLogLevel=ERROR",
		"-oServerAliveInterval=10",
	}
}

// viaWsproxy is the hand-written ProxyCommand.
func viaWsproxy(id identity, url string, flags ...string) way {
	proxy := strings.Join(append(append([]string{tool("wsproxy")}, flags...), url), " ")
	return way{name: "wsproxy", options: append(baseOptions(id), "-oProxyCommand="+proxy)}
}

// viaTcptows starts tcptows on a free port.
func viaTcptows(t *testing.T, id identity, url string, flags ...string) way {
	t.Helper()
	p := start(t, nil, tool("tcptows"), append(flags, "0", url)...)
	port := p.out.Await(t, `listening on 127\.0\.0\.1:(\d+)`, 1)[1]
	return way{name: "tcptows", options: append(baseOptions(id), "-oPort="+port)}
}

func (w way) ssh(t *testing.T, stdin io.Reader, command ...string) result {
	t.Helper()
	return runCommand(t, stdin, "ssh", append(append(append([]string{}, w.options...), "abc@localhost"), command...)...)
}

// sftp runs a batch of commands.
func (w way) sftp(t *testing.T, batch string) result {
	t.Helper()
	args := append(append([]string{"-b", "-"}, w.options...), "abc@localhost")
	return runCommand(t, strings.NewReader(batch), "sftp", args...)
}

func (w way) scp(t *testing.T, args ...string) result {
	t.Helper()
	return runCommand(t, nil, "scp", append(append([]string{}, w.options...), args...)...)
}

// randomFile makes a file of random bytes and returns its name and digest.
func randomFile(t *testing.T, size int64) (name, sum string) {
	t.Helper()
	name = filepath.Join(t.TempDir(), "random")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(f, h))
	if _, err := io.CopyN(w, rand.Reader, size); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name, fmt.Sprintf("%x", h.Sum(nil))
}

func fileSum(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
