//go:build linux

package sshd

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// view opens a subsystem on a terminal of its own connection.
func (b *bench) view(name string) *terminalSession {
	b.t.Helper()
	s := &terminalSession{Session: b.session(b.dial()), out: new(watchtest.Output)}
	if err := s.RequestPty("xterm", 20, 100, nil); err != nil {
		b.t.Fatal(err)
	}
	var err error
	if s.in, err = s.StdinPipe(); err != nil {
		b.t.Fatal(err)
	}
	// The library copies the output of shells and commands only.
	for _, pipe := range []func() (io.Reader, error){s.StdoutPipe, s.StderrPipe} {
		r, err := pipe()
		if err != nil {
			b.t.Fatal(err)
		}
		b.accept.Go(func() { _, _ = io.Copy(s.out, r) })
	}
	if err := s.RequestSubsystem(name); err != nil {
		b.t.Fatal(err)
	}
	return s
}

func status(err error) int {
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitStatus()
	}
	return -1
}

// Somebody joins: both see and type the same, in a terminal that fits both, and
// hear how it ended.
func TestJoin(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo be'fore'\n")
	owner.out.Expect(t, "before\r\n")
	joiner := b.view("converge-join")
	joiner.out.Expect(t, "converge: you type in shell 1 of abc from 127.0.0.1")
	joiner.out.Expect(t, "before\r\n")
	owner.out.Expect(t, "converge: abc from 127.0.0.1")
	owner.out.Expect(t, "joined this shell and types here too")
	b.events.wait(t, "opened 2 join", 1)

	joiner.typeIn(t, "stty size; echo from'joiner'\n")
	for _, s := range []*terminalSession{owner, joiner} {
		s.out.Expect(t, "20 81\r\n")
		s.out.Expect(t, "fromjoiner\r\n")
	}
	b.events.wait(t, "activity 2", 1)
	owner.typeIn(t, "echo from'owner'\n")
	joiner.out.Expect(t, "fromowner\r\n")
	if err := joiner.WindowChange(50, 60); err != nil {
		t.Fatal(err)
	}
	watchtest.Eventually(t, "a terminal of the smallest size", func() bool {
		return b.server.shells.all()[0].room.Size().String() == "60x25"
	})
	info := b.server.Shells()
	if len(info) != 1 || info[0].Number != 1 || info[0].Owner.ID != 1 || len(info[0].Joined) != 1 || len(info[0].Watching) != 0 || info[0].Recorded {
		t.Errorf("%+v", info)
	}
	// When the joiner has gone the size is the owner's again.
	joiner.Close()
	owner.out.Expect(t, "left this shell")
	owner.typeIn(t, "stty size\n")
	owner.out.Expect(t, "\r\n25 81\r\n")
	b.events.wait(t, "closed 2 join", 1)

	joiner = b.view("converge-join")
	joiner.out.Expect(t, "you type in shell 1")
	watcher := b.view("converge-watch 1")
	watcher.out.Expect(t, "types\r\n") // who is there
	joiner.typeIn(t, "exit 5\n")
	if err := owner.Wait(); status(err) != 5 {
		t.Errorf("owner: %v", err)
	}
	for _, s := range []*terminalSession{joiner, watcher} {
		s.out.Expect(t, "converge: the shell has ended\r\n")
	}
	b.events.wait(t, "closed 3 join", 1)
	b.events.wait(t, "closed 4 watch", 1)
	if len(b.server.Shells()) != 0 {
		t.Error("an ended shell can be joined")
	}
}

// A watcher's keys go nowhere, and q, ctrl-C and ctrl-D leave.
func TestWatch(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo re'ady'\n")
	owner.out.Expect(t, "ready\r\n")
	for _, key := range []string{"q", "\x03", "\x04"} {
		watcher := b.view("converge-watch")
		watcher.out.Expect(t, "converge: you watch shell 1 of abc")
		watcher.out.Expect(t, "The shell is 81x25 and your window 100x20")
		watcher.out.Expect(t, "ready\r\n")
		watcher.typeIn(t, "echo never\n")
		owner.typeIn(t, "echo al'ways'\n")
		watcher.out.Expect(t, "always\r\n")
		watcher.typeIn(t, key)
		watcher.out.Expect(t, "converge: you have left this shell\r\n")
	}
	b.events.wait(t, "closed 4 watch", 1)
	owner.typeIn(t, "exit\n")
	if err := owner.Wait(); err != nil {
		t.Error(err)
	}
	out := owner.out.String()
	if strings.Contains(out, "never") {
		t.Errorf("a watcher has typed: %q", out)
	}
	if n := b.events.count("activity 2") + b.events.count("activity 3"); n != 0 {
		t.Errorf("%d times a watcher was active", n)
	}
}

// The newest shell is the default; a number chooses another one.
func TestChooseShell(t *testing.T) {
	b := newBench(t, nil)
	one, two := b.terminal(b.dial(), nil, ""), b.terminal(b.dial(), nil, "")
	// Both are there, in an order that their starts decide.
	watchtest.Eventually(t, "two shells", func() bool { return len(b.server.Shells()) == 2 })
	for i, s := range map[string]*terminalSession{"first": one, "second": two} {
		s.typeIn(t, "echo this is the "+i+" she''ll\n")
		s.out.Expect(t, i+" shell\r\n")
	}
	names := map[uint64]string{1: "first", 2: "second"}
	shells := b.server.Shells()
	newest := b.view("converge-watch")
	newest.out.Expect(t, names[shells[1].Owner.ID]+" shell\r\n")
	newest.out.Expect(t, "Other shells: ")
	older := b.view("  converge-watch   " + string(rune('0'+shells[0].Number)))
	older.out.Expect(t, names[shells[0].Owner.ID]+" shell\r\n")
}

func TestViewRefused(t *testing.T) {
	b := newBench(t, nil)
	try := func(name string) (string, int) {
		t.Helper()
		ssh := b.client("ssh", nil, "-s", testUser+"@127.0.0.1", name)
		stdout, stderr, code := run(t, ssh)
		return stdout + stderr, code
	}
	for _, name := range []string{"converge-join", "converge-watch 1"} {
		if text, code := try(name); code != 1 || !strings.Contains(text, "converge: there is no shell to join: somebody has to open one first") {
			t.Errorf("%s: %d %q", name, code, text)
		}
	}
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo re'ady'\n")
	owner.out.Expect(t, "ready\r\n")
	for name, want := range map[string]string{
		"converge-join":         "converge: to type in a shell takes a terminal: call ssh with -t before -s",
		"converge-watch 7":      `converge: there is no shell "7"; there is 1 of abc from 127.0.0.1`,
		"converge-join 1\x1b[c": `converge: there is no shell "1?[c"`,
		"converge-watch 1 2":    "converge: give one number",
	} {
		if text, code := try(name); code != 1 || !strings.Contains(text, want) {
			t.Errorf("%q: %d %q", name, code, text)
		}
	}
	for _, name := range []string{"converge-joint", "converge", " "} {
		if text, code := try(name); code != 255 || !strings.Contains(text, "subsystem request failed") {
			t.Errorf("%q: %d %q", name, code, text)
		}
	}
	for _, line := range b.events.all() {
		if strings.Contains(line, "join") || strings.Contains(line, "watch") {
			t.Errorf("nothing was joined, but there is %q", line)
		}
	}

	forced := newBench(t, func(c *Config) { c.ForceCommand = "cat" })
	shell := forced.terminal(forced.dial(), nil, "")
	shell.typeIn(t, "x\n")
	shell.out.Expect(t, "x\r\n")
	if err := forced.session(forced.dial()).RequestSubsystem("converge-join"); err == nil {
		t.Error("a forced command does not keep from joining")
	}
}

// A watcher who takes nothing holds up nobody.
func TestStalledWatcher(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo re'ady'\n")
	owner.out.Expect(t, "ready\r\n")
	ch, requests, err := b.dial().OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{"converge-watch"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	owner.out.Expect(t, "watches this shell")
	// More than the window of a channel and all that is queued.
	owner.typeIn(t, "seq 600000; echo do'ne'\n")
	owner.out.Expect(t, "\r\n600000\r\ndone\r\n")
	owner.typeIn(t, "exit\n")
	if err := owner.Wait(); err != nil {
		t.Error(err)
	}
	// When it reads again it has missed a lot, but not the end.
	all, err := io.ReadAll(ch)
	if err != nil || !strings.Contains(string(all), "too slow for the shell") || !strings.Contains(string(all), "\r\n600000\r\ndone\r\n") ||
		!strings.HasSuffix(string(all), "\r\nconverge: the shell has ended\r\n") {
		t.Errorf("%v, %d bytes, ending in %q", err, len(all), all[max(0, len(all)-200):])
	}
}

// When the owner's connection is lost, those who were with them hear it.
func TestOwnerGone(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	owner := b.terminal(client, nil, "")
	owner.typeIn(t, "echo re'ady'\n")
	owner.out.Expect(t, "ready\r\n")
	joiner := b.view("converge-join")
	joiner.out.Expect(t, "ready\r\n")
	client.Close()
	joiner.out.Expect(t, "converge: its owner's connection is gone, and so is the shell\r\n")
	b.events.wait(t, "closed 2 join", 1)
}

// At the end everybody hears the reason once.
func TestShutdownOfShared(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "echo re'ady'\n")
	owner.out.Expect(t, "ready\r\n")
	joiner, watcher := b.view("converge-join"), b.view("converge-watch")
	all := []*terminalSession{owner, joiner, watcher}
	for _, s := range all[1:] {
		s.out.Expect(t, "ready\r\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.server.Shutdown(ctx, "the time is up"); err != nil {
		t.Error(err)
	}
	for i, s := range all {
		s.out.Expect(t, "the time is up")
		if n := strings.Count(s.out.String(), "the time is up"); n != 1 {
			t.Errorf("%d was told %d times: %q", i, n, s.out.String())
		}
	}
}

// A message does not break a full-screen program, and the last one is seen
// after it.
func TestMessageOverFullScreen(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	// This one leaves its screen only when it is hung up on.
	owner.typeIn(t, `trap 'printf "\033[?1049lback\n"; exit' HUP; printf '\033[?1049hpic''ture'; while :; do read -t 0.01; done`+"\n")
	owner.out.Expect(t, "\x1b[?1049hpicture")
	b.server.Wall("a message")
	owner.out.Expect(t, "\x1b7\x1b[0;7m\x1b[25;1H\x1b[2Ka message\x1b8")
	if strings.Contains(owner.out.String(), "\r\na message") {
		t.Errorf("%q", owner.out.String())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.server.Shutdown(ctx, "the time is up"); err != nil {
		t.Error(err)
	}
	owner.out.Expect(t, "\r\nthe time is up\r\n")
	_, after, found := strings.Cut(owner.out.String(), "\x1b[?1049lback")
	if !found || !strings.Contains(after, "the time is up") {
		t.Errorf("%q", owner.out.String())
	}
}

// Stock ssh with -t and -s: what the printed lines are.
func TestOpenSSHJoins(t *testing.T) {
	b := newBench(t, nil)
	owner := b.terminal(b.dial(), nil, "")
	owner.typeIn(t, "PS1=pro'mpt:'\n")
	owner.out.Expect(t, "prompt:")
	cmd := b.client("ssh", nil, "-tt", "-s", testUser+"@127.0.0.1", "converge-join", "1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out watchtest.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "prompt:")
	if _, err := io.WriteString(in, "echo typed by'ssh'\r"); err != nil {
		t.Fatal(err)
	}
	owner.out.Expect(t, "typed byssh\r\n")
	owner.typeIn(t, "exit 4\n")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Errorf("%v", err)
	}
	out.Expect(t, "converge: the shell has ended")
	if err := owner.Wait(); status(err) != 4 {
		t.Error(err)
	}
}
