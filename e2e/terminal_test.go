package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// screen is a tmux session of the test's own server.
type screen struct {
	t      *testing.T
	socket string
}

func newScreen(t *testing.T, width, height string) *screen {
	t.Helper()
	s := &screen{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	s.tmux("-f", "/dev/null", "new-session", "-d", "-x", width, "-y", height, "/bin/sh")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", s.socket, "kill-server").Run() })
	return s
}

func (s *screen) tmux(args ...string) string {
	s.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", s.socket}, args...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (s *screen) typeLine(line string) {
	s.t.Helper()
	s.tmux("send-keys", "-l", line)
	s.tmux("send-keys", "Enter")
}

// waitFor looks at the screen until the pattern is there. tmux has no event
// for that; the pace of looking decides nothing.
func (s *screen) waitFor(pattern string) []string {
	s.t.Helper()
	re := regexp.MustCompile(pattern)
	deadline := time.After(patience)
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		content := s.tmux("capture-pane", "-p", "-J", "-S", "-200")
		if m := re.FindStringSubmatch(content); m != nil {
			return m
		}
		select {
		case <-look.C:
		case <-deadline:
			s.t.Fatalf("%q did not appear:\n%s", pattern, content)
		}
	}
}

// TestTerminal: the printed line, pasted into a terminal, opens a shell on a
// pty of the right size that follows the window.
func TestTerminal(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	screen := newScreen(t, "100", "30")
	screen.typeLine(a.ssh)
	screen.waitFor(`Welcome to this job`)
	screen.typeLine("echo size=$(stty size) tty=$(tty) term=$TERM.")
	screen.waitFor(`size=30 100 tty=/dev/pts/\d+ term=(tmux|screen)\S*\.`)
	screen.typeLine(`trap 'echo "resized to $(stty size)."' WINCH; echo tr''apped`)
	screen.waitFor(`trapped`)
	screen.tmux("resize-window", "-x", "72", "-y", "21")
	screen.waitFor(`resized to 21 72\.`)
	// Job control: a stopped command gives the terminal back.
	// Only what runs in the foreground already is stopped by the key.
	screen.typeLine("(echo run''ning; exec sleep 1000)")
	screen.waitFor(`running`)
	screen.tmux("send-keys", "C-z")
	screen.waitFor(`Stopped\s+\( echo`)
	screen.typeLine("kill -KILL %1; disown -a; exit 3")
	screen.waitFor(`Connection to localhost closed`)
	screen.typeLine("echo status=$?.")
	screen.waitFor(`status=3\.`)
}

// TestPasteTwice: two jobs in a row from one home. The printed lines never
// collide; the hand-written ones do, as the home page says, unless the agent
// keeps its key.
func TestPasteTwice(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	for range 2 {
		a := startAgent(t, s, id)
		if r := shell(t, nil, a.ssh+" echo in").must(t); strings.TrimSpace(r.stdout) != "in" {
			t.Errorf("the printed ssh line gave %q", r.stdout)
		}
		shell(t, strings.NewReader("pwd\n"), a.sftp).must(t)
	}

	// known_hosts stands for a home; ssh finds the real one by the user
	// database and would write there.
	handWritten := func(knownHosts, url string) result {
		return runCommand(t, nil, "ssh", "-F", "none", "-i", id.file, "-oIdentitiesOnly=yes", "-oBatchMode=yes",
			"-oUserKnownHostsFile="+knownHosts, "-oStrictHostKeyChecking=accept-new",
			"-oServerAliveInterval=10", "-oProxyCommand="+tool("wsproxy")+" "+url, "abc@localhost", "true")
	}
	home := filepath.Join(t.TempDir(), "known_hosts")
	handWritten(home, startAgent(t, s, id).url).must(t)
	if r := handWritten(home, startAgent(t, s, id).url); r.code != 255 || !strings.Contains(r.stderr, "REMOTE HOST IDENTIFICATION HAS CHANGED") {
		t.Errorf("the second job under the name localhost: exit code %d, stderr %q", r.code, r.stderr)
	}
	kept := filepath.Join(t.TempDir(), "known_hosts")
	hostKey := newIdentity(t)
	for range 2 {
		handWritten(kept, startAgent(t, s, id, "--host-key", hostKey.file).url).must(t)
	}
}

// TestPin: the printed line does not lead to another agent: wsproxy refuses its
// key, and where wsproxy does not know it, stock ssh does.
func TestPin(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a, other := startAgent(t, s, id), startAgent(t, s, id)
	line := strings.ReplaceAll(a.ssh, "/client/"+a.id, "/client/"+other.id)
	if r := shell(t, nil, line+" true"); r.code != 255 || !strings.Contains(r.stderr, "wsproxy: cannot open a resumable stream: the far end is not the agent that the URL names") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	line = regexp.MustCompile(`#[^'"]+`).ReplaceAllString(line, "")
	if r := shell(t, nil, line+" true"); r.code != 255 || !strings.Contains(r.stderr, "Host key verification failed") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
}

// TestPassword: without any key there is a random password, and no other
// method.
func TestPassword(t *testing.T) {
	s := startServer(t)
	p := start(t, nil, tool("agent"), "--keep", "--wsproxy", tool("wsproxy"), s.ws("/agent/"+uniqueID()))
	a := awaitAgent(t, p)
	password := p.out.Await(t, `password: (\S+)`, 1)[1]
	if r := shell(t, nil, a.ssh+" -F none -oBatchMode=yes true"); !strings.Contains(r.stderr, "Permission denied (password)") {
		t.Errorf("methods: %q", r.stderr)
	}
	screen := newScreen(t, "100", "30")
	screen.typeLine(a.ssh + " -F none -oPubkeyAuthentication=no")
	screen.waitFor(`password:`)
	screen.typeLine("wrong")
	screen.waitFor(`(?s)password:.*Permission denied.*password:`)
	screen.typeLine(password)
	screen.waitFor(`Welcome to this job`)
	screen.typeLine("exit")
	screen.waitFor(`Connection to localhost closed`)
}
