//go:build linux

package sshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// named returns the processes whose command line is, with NUL after each
// argument, the text.
func named(text string) []*os.Process {
	var list []*os.Process
	for _, pid := range processes() {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || string(line) != text {
			continue
		}
		if p, err := os.FindProcess(pid); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// nap is the argument of a sleep that only this run of the tests has.
func nap(seconds int) string { return fmt.Sprintf("%d.%d", seconds, os.Getpid()) }

// sleeping returns the processes that run sleep with nap's argument.
func sleeping(seconds ...int) []*os.Process {
	var list []*os.Process
	for _, n := range seconds {
		list = append(list, named("sleep\x00"+nap(n)+"\x00")...)
	}
	return list
}

// zombies returns how many of this process's children wait to be reaped.
func zombies() int {
	n := 0
	for _, pid := range processes() {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && strings.Contains(string(stat), ") Z "+strconv.Itoa(os.Getpid())+" ") {
			n++
		}
	}
	return n
}

func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A client that goes away takes its processes with it, in whatever group of
// the session they are, but not those that have left the session.
func TestDisconnectHangsUp(t *testing.T) {
	for name, leave := range map[string]func(*ssh.Client, ssh.Channel){
		"connection": func(c *ssh.Client, _ ssh.Channel) { c.Close() },
		"channel":    func(_ *ssh.Client, ch ssh.Channel) { ch.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			client := b.dial()
			ch, requests, err := client.OpenChannel("session", nil)
			if err != nil {
				t.Fatal(err)
			}
			go ssh.DiscardRequests(requests)
			// set -m gives each job a process group of its own.
			script := fmt.Sprintf(`set -m; sleep %s & setsid -f sleep %s; sleep %s & kill -STOP $!; echo ready; sleep %s`,
				nap(3611), nap(3612), nap(3613), nap(3614))
			if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ S string }{script})); !ok || err != nil {
				t.Fatal(ok, err)
			}
			ready := make([]byte, 6)
			if _, err := io.ReadFull(ch, ready); err != nil {
				t.Fatal(err)
			}
			watchtest.Eventually(t, "a process that has left the session", func() bool { return len(sleeping(3612)) == 1 })
			leave(client, ch)
			// Nobody has left a command that was cut off: see TestGoodbyes.
			b.events.wait(t, map[string]string{"connection": "logout 1", "channel": "closed 1 exec"}[name], 1)
			watchtest.Eventually(t, "the end of the processes", func() bool { return len(sleeping(3611, 3613, 3614)) == 0 })
			detached := sleeping(3612)
			if len(detached) != 1 {
				t.Errorf("%d processes that had left the session", len(detached))
			}
			for _, p := range detached {
				_ = p.Kill()
			}
		})
	}
}

// What a command leaves behind in its session ends, what has left it stays.
func TestLeftBehind(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	// The shell ends when the second has left: what has not yet has a moment alone.
	left := filepath.Join(t.TempDir(), "left")
	if err := syscall.Mkfifo(left, 0o600); err != nil {
		t.Fatal(err)
	}
	err := b.session(client).Run(fmt.Sprintf(
		`sleep %s >&- 2>&- <&- & setsid sh -c 'echo >%s; exec sleep %s' >/dev/null 2>&1 </dev/null & read x <%s`, nap(3631), left, nap(3632), left))
	if err != nil {
		t.Fatal(err)
	}
	watchtest.Eventually(t, "the end of the processes", func() bool { return len(sleeping(3631)) == 0 })
	watchtest.Eventually(t, "the process that had left the session", func() bool { return len(sleeping(3632)) == 1 })
	for _, p := range sleeping(3632) {
		_ = p.Kill()
	}
}

func TestEventsInOrder(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	session := b.session(client)
	session.Stdin = strings.NewReader("x")
	if err := session.Run("cat"); err != nil {
		t.Fatal(err)
	}
	b.events.wait(t, "closed 1 exec", 1)
	client.Close()
	b.events.wait(t, "logout 1", 1)
	want := []string{"login 1", "opened 1 exec", "activity 1", "closed 1 exec", "logout 1"}
	if got := b.events.all(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Output alone is no activity, and input is told of at most once a second.
func TestActivity(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	if err := b.session(client).Run("seq 100000"); err != nil {
		t.Fatal(err)
	}
	if n := b.events.count("activity 1"); n != 0 {
		t.Errorf("%d times for output", n)
	}
	start := time.Now()
	for range 30 {
		session := b.session(client)
		session.Stdin = strings.NewReader("x")
		if err := session.Run("cat"); err != nil {
			t.Fatal(err)
		}
	}
	if n, most := b.events.count("activity 1"), int(time.Since(start)/activityEvery)+1; n < 1 || n > most {
		t.Errorf("%d times for input, want 1 to %d", n, most)
	}
}

func TestShutdownTellsShells(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	shell := b.terminal(client, nil, "")
	shell.typeIn(t, "echo re'ad'y\n")
	shell.out.Expect(t, "ready")
	command := b.session(client)
	said, err := command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start("sleep " + nap(3641)); err != nil {
		t.Fatal(err)
	}
	full := b.terminal(client, nil, `printf '\033[?1049hdrawn'; sleep `+nap(3642))
	full.out.Expect(t, "drawn")
	idle := b.session(client)
	other := b.dial() // nothing open
	stranger, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	watchtest.Eventually(t, "three connections", func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return len(b.server.conns) == 3
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.server.Shutdown(ctx, "the time is over"); err != nil {
		t.Error(err)
	}
	var exit *ssh.ExitError
	if err := shell.Wait(); !errors.As(err, &exit) || exit.Signal() != "HUP" {
		t.Errorf("shell: %v", err)
	}
	if !strings.Contains(shell.out.String(), "\r\nthe time is over\r\n") {
		t.Errorf("%q", shell.out.String())
	}
	if text, err := io.ReadAll(said); string(text) != "converge: the time is over\n" {
		t.Errorf("command: %q, %v", text, err)
	}
	if err := command.Wait(); !errors.As(err, &exit) || exit.Signal() != "HUP" {
		t.Errorf("command: %v", err)
	}
	err = full.Wait()
	if text := full.out.String(); !errors.As(err, &exit) || exit.Signal() != "HUP" ||
		!strings.Contains(text, "\x1b[?1049l") || !strings.HasSuffix(text, "\r\nthe time is over\r\n") {
		t.Errorf("command on a terminal: %v, %q", err, text)
	}
	if err := idle.Run("true"); err == nil {
		t.Error("an idle session goes on")
	}
	if other.Wait() == nil {
		t.Error("an idle connection ended without an error")
	}
	_, _ = io.Copy(io.Discard, stranger)
	for _, line := range []string{"logout 1", "logout 2", "closed 1 shell", "closed 1 exec"} {
		if n := b.events.count(line); n != 1 && (n != 2 || !strings.HasSuffix(line, "exec")) {
			t.Errorf("no %q in %q", line, b.events.all())
		}
	}
	if _, err := b.tryDial(testUser); err == nil {
		t.Error("a login after the end")
	}
}

// OpenSSH's client shows the reason and ends.
func TestShutdownReachesOpenSSH(t *testing.T) {
	b := newBench(t, nil)
	cmd := b.client("ssh", nil, "-tt", testUser+"@127.0.0.1")
	var out watchtest.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(in, "echo re'ad'y\n"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.server.Shutdown(ctx, "the job is ending"); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "the job is ending") {
		t.Errorf("%v %q", err, out.String())
	}
}

// The patience of Shutdown is its caller's: processes that do not care about
// SIGHUP, and clients that take nothing, do not stretch it.
func TestShutdownKills(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	session := b.session(client)
	var out watchtest.Output
	session.Stdout = &out
	if err := session.Start(fmt.Sprintf(
		`trap '' HUP TERM; (sleep %[1]s >&- 2>&-) & echo ready; while :; do sleep %[1]s; done`, nap(3651))); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := b.server.Shutdown(ctx, "now"); !errors.Is(err, ErrPatience) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if n := len(sleeping(3651)); n != 0 {
		t.Errorf("%d processes are left", n)
	}
}

// A client that does not answer is cut off; one that answers, or sends
// anything else, is not.
func TestKeepAlive(t *testing.T) {
	const interval = 500 * time.Millisecond
	b := newBench(t, func(c *Config) { c.KeepAlive = interval })
	answering := b.dial()

	// This one stops to read, and so to answer, once it is in.
	nc, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	deaf := &deafConn{Conn: nc, release: make(chan struct{})}
	conn, chans, reqs, err := ssh.NewClientConn(deaf, "", &ssh.ClientConfig{
		User: testUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.user)},
		HostKeyCallback: ssh.FixedHostKey(b.host.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	deaf.deaf.Store(true)
	b.events.wait(t, "logout 2", 1)
	close(deaf.release)
	client := ssh.NewClient(conn, chans, reqs)
	client.Close()
	_ = client.Wait()

	if out, err := b.session(answering).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("%q %v", out, err)
	}
	if users := b.server.Users(); len(users) != 1 || users[0].ID != 1 {
		t.Errorf("%+v", users)
	}
}

// deafConn gives nothing of what it has read once it is deaf.
type deafConn struct {
	net.Conn
	deaf    atomic.Bool
	release chan struct{}
}

func (c *deafConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.deaf.Load() {
		<-c.release
	}
	return n, err
}

func TestKeepAliveJitter(t *testing.T) {
	for range 1000 {
		if d := jitter(time.Second); d < 800*time.Millisecond || d > 1200*time.Millisecond {
			t.Fatal(d)
		}
	}
	if d := jitter(1); d != 1 {
		t.Error(d)
	}
}

// After many logins, sessions and cuts nothing is left.
func TestNothingLeft(t *testing.T) {
	b := newBench(t, nil)
	round := func() {
		client, err := b.tryDial(testUser)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"true", "kill $$", "cat"} {
			session, err := client.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			_ = session.Run(command)
		}
		shell := b.terminal(client, nil, "")
		shell.typeIn(t, "sleep "+nap(3661)+" & echo re'ad'y\n")
		shell.out.Expect(t, "ready")
		if session, err := client.NewSession(); err != nil || session.RequestSubsystem("sftp") != nil {
			t.Fatal("no sftp", err)
		}
		client.Close()
		_, _ = b.tryDial("nobody")
	}
	settled := func() bool {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		return len(b.server.conns) == 0 && len(sleeping(3661)) == 0 && zombies() == 0
	}
	round()
	watchtest.Eventually(t, "an end of the first round", settled)
	before := descriptors(t)
	for range 10 {
		round()
	}
	watchtest.Eventually(t, "an end of all rounds", settled)
	watchtest.Eventually(t, fmt.Sprintf("%d open files, as before", before), func() bool { return descriptors(t) <= before })
}
