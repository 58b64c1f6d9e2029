//go:build linux

package sshd

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// terminalSession is a session on a terminal.
type terminalSession struct {
	*ssh.Session
	in  io.WriteCloser
	out *watchtest.Output
}

// terminal opens a session on a terminal and starts the command, or a shell.
func (b *bench) terminal(client *ssh.Client, modes ssh.TerminalModes, command string) *terminalSession {
	b.t.Helper()
	s := &terminalSession{Session: b.session(client), out: new(watchtest.Output)}
	if err := s.RequestPty("xterm-test", 25, 81, modes); err != nil {
		b.t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	s.in, s.Stdout = in, s.out
	if command == "" {
		err = s.Shell()
	} else {
		err = s.Start(command)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (s *terminalSession) typeIn(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(s.in, text); err != nil {
		t.Fatal(err)
	}
}

func TestShell(t *testing.T) {
	b := newBench(t, func(c *Config) {
		c.Banner = func(u UserInfo) string { return "hello " + u.User + "\nsecond line\n" }
	})
	s := b.terminal(b.dial(), ssh.TerminalModes{ssh.ECHO: 0}, "")
	s.typeIn(t, "echo argv0=$0 term=$TERM tty=$SSH_TTY; tty; stty size\n")
	s.out.Expect(t, "25 81")
	s.typeIn(t, "exit 7\n")
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("%v", err)
	}
	out := s.out.String()
	if !strings.HasPrefix(out, "hello abc\r\nsecond line\r\n") {
		t.Errorf("no banner at the start of %q", out)
	}
	if !strings.Contains(out, "argv0=-bash term=xterm-test tty=/dev/") || strings.Contains(out, "not a tty") {
		t.Errorf("%q", out)
	}
	b.events.wait(t, "closed 1 shell", 1)
	if b.events.count("activity 1") == 0 {
		t.Error("typing is no activity")
	}
}

func TestTerminalEndOfFile(t *testing.T) {
	b := newBench(t, nil)
	s := b.terminal(b.dial(), nil, "")
	// What is typed before the shell reads keys is not a key.
	s.typeIn(t, "PS1=pro'mpt:'\n")
	s.out.Expect(t, "prompt:")
	s.typeIn(t, "\x04")
	if err := s.Wait(); err != nil {
		t.Errorf("ctrl-D: %v", err)
	}
}

func TestTerminalInterrupt(t *testing.T) {
	b := newBench(t, nil)
	s := b.terminal(b.dial(), nil, "echo ready; sleep 3600; echo never")
	s.out.Expect(t, "ready")
	s.typeIn(t, "\x03")
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.Signal() != "INT" {
		t.Errorf("ctrl-C: %v", err)
	}
}

// Job control works: a stopped job comes back.
func TestJobControl(t *testing.T) {
	b := newBench(t, nil)
	s := b.terminal(b.dial(), ssh.TerminalModes{ssh.ECHO: 0}, "")
	s.typeIn(t, "cat\n")
	s.typeIn(t, "echoed\n")
	s.out.Expect(t, "echoed\r\n")
	s.typeIn(t, "\x1a")
	s.out.Expect(t, "Stopped")
	s.typeIn(t, "fg\nonce more\n")
	s.out.Expect(t, "once more\r\n")
	s.typeIn(t, "\x04")
	s.typeIn(t, "exit 0\n")
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
}

// Bytes go as they are: a program that turns output processing off sends a
// bare line feed, and every byte comes in and out.
func TestTerminalRawBytes(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	cooked := b.terminal(client, nil, `printf 'a\nb\n'`)
	if err := cooked.Wait(); err != nil || cooked.out.String() != "a\r\nb\r\n" {
		t.Errorf("with OPOST: %q %v", cooked.out.String(), err)
	}
	raw := b.terminal(client, nil, `stty raw; printf 'a\nb\r\nc\n'`)
	if err := raw.Wait(); err != nil || raw.out.String() != "a\nb\r\nc\n" {
		t.Errorf("without OPOST: %q %v", raw.out.String(), err)
	}
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	s := b.terminal(client, nil, "stty raw -echo; echo ready; head -c 256")
	s.out.Expect(t, "ready\n")
	s.typeIn(t, string(every))
	if err := s.Wait(); err != nil || s.out.String() != "ready\n"+string(every) {
		t.Errorf("%q %v", s.out.String(), err)
	}
}

// No output of a program that ends at once is lost, however much it is.
func TestTerminalOutputComplete(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	for range 20 {
		s := b.terminal(client, nil, "stty -opost; seq 20000; exit 3")
		var exit *ssh.ExitError
		if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 3 {
			t.Errorf("%v", err)
		}
		if out := s.out.String(); strings.Count(out, "\n") != 20000 || !strings.HasSuffix(out, "20000\n") {
			t.Errorf("%d lines, ending in %q", strings.Count(out, "\n"), out[max(0, len(out)-20):])
		}
	}
}

func TestTerminalModes(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	show := func(modes ssh.TerminalModes) string {
		t.Helper()
		s := b.terminal(client, modes, "stty -a")
		if err := s.Wait(); err != nil {
			t.Fatal(err)
		}
		return " " + strings.NewReplacer("\r\n", " ", ";", " ;", "\n", " ").Replace(s.out.String()) + " "
	}
	plain := show(nil)
	for _, word := range []string{" echo ", " icanon ", " isig ", " onlcr ", " -istrip ", "intr = ^C", "erase = ^?"} {
		if !strings.Contains(plain, word) {
			t.Errorf("without modes: no %q in %q", word, plain)
		}
	}
	set := show(ssh.TerminalModes{
		ssh.ECHO: 0, ssh.ICANON: 0, ssh.ISIG: 0, ssh.ONLCR: 0, ssh.ISTRIP: 1, ssh.IXANY: 1,
		ssh.VINTR: 1, ssh.VERASE: 8, ssh.VKILL: 255, ssh.VSUSP: 2, ssh.TOSTOP: 1,
		ssh.TTY_OP_ISPEED: 38400, ssh.TTY_OP_OSPEED: 38400,
	})
	for _, word := range []string{" -echo ", " -icanon ", " -isig ", " -onlcr ", " istrip ", " ixany ",
		"intr = ^A", "erase = ^H", "kill = <undef>", "susp = ^B", " tostop "} {
		if !strings.Contains(set, word) {
			t.Errorf("with modes: no %q in %q", word, set)
		}
	}
}

func TestTerminalSize(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	s := b.terminal(client, nil, `trap 'stty size' WINCH; stty size; while :; do sleep 0.01; done`)
	s.out.Expect(t, "25 81\r\n")
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	s.out.Expect(t, "50 132\r\n")

	// Pixels, and numbers that do not fit.
	p := b.session(client)
	request := struct {
		Term       string
		C, R, X, Y uint32
		Modes      string
	}{"dumb", 70000, 24, 640, 480, ""}
	if ok, err := p.SendRequest("pty-req", true, ssh.Marshal(request)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, _ := p.SendRequest("pty-req", true, ssh.Marshal(request)); ok {
		t.Error("a second terminal is accepted")
	}
	out, err := p.Output(`python3 -c 'import fcntl,struct,termios; print(struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0"*8)))'`)
	if err != nil || string(out) != "(24, 65535, 640, 480)\r\n" {
		t.Errorf("%q %v", out, err)
	}
	if ok, _ := b.session(client).SendRequest("window-change", true, ssh.Marshal(struct{ C, R, X, Y uint32 }{})); ok {
		t.Error("a size without terminal is accepted")
	}
}

// A terminal ends with its shell, whatever still has it open.
func TestTerminalEndsWithShell(t *testing.T) {
	b := newBench(t, nil)
	s := b.terminal(b.dial(), nil, "setsid -f sleep "+nap(3601)+"; echo done")
	if err := s.Wait(); err != nil || !strings.Contains(s.out.String(), "done") {
		t.Errorf("%q %v", s.out.String(), err)
	}
	for _, p := range sleeping(3601) {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
	}
}

// What OpenSSH's client asks for with -tt arrives.
func TestOpenSSHTerminal(t *testing.T) {
	b := newBench(t, nil)
	cmd := b.client("ssh", nil, "-tt", testUser+"@127.0.0.1", "stty size; echo $TERM; tty; echo error >&2; exit 6")
	cmd.Env = append(cmd.Env, "TERM=vt220")
	stdout, _, code := run(t, cmd)
	if code != 6 || !strings.Contains(stdout, "vt220\r\n") || !strings.Contains(stdout, "error\r\n") || strings.Contains(stdout, "not a tty") {
		t.Errorf("%d %q", code, stdout)
	}
	b.events.wait(t, "closed 1 exec", 1)
}

// Messages reach shells on terminals, and nobody else.
func TestWall(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	shell := b.terminal(client, nil, "")
	command := b.terminal(client, nil, "echo ready; cat")
	command.out.Expect(t, "ready")
	shell.typeIn(t, "echo re'ad'y\n")
	shell.out.Expect(t, "ready")
	b.server.Wall("five minutes\nleft\x1b[2J")
	shell.out.Expect(t, "\r\nfive minutes\r\nleft?[2J\r\n")
	command.typeIn(t, "x\x04\x04")
	if err := command.Wait(); err != nil || strings.Contains(command.out.String(), "minutes") {
		t.Errorf("%q %v", command.out.String(), err)
	}
}

// A shell whose client takes nothing holds up neither the messages nor other
// sessions.
func TestStalledClient(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	// The Go client gives window back only for what is read.
	ch, requests, err := client.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := ch.SendRequest("pty-req", true, ssh.Marshal(struct {
		Term       string
		C, R, X, Y uint32
		Modes      string
	}{Term: "dumb"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if ok, err := ch.SendRequest("shell", true, nil); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := io.WriteString(ch, "yes; exit\n"); err != nil {
		t.Fatal(err)
	}
	stalled := b.server.loggedIn()[0].list()[0]
	looks := 0
	watchtest.Eventually(t, "a writer that waits for the client", func() bool {
		looks++
		if stalled.out.TryLock() {
			stalled.out.Unlock()
			looks = 0
		}
		return looks == 20
	})
	for range maxWall + 3 {
		b.server.Wall("a message")
	}
	if out, err := b.session(client).Output("echo alive"); err != nil || string(out) != "alive\n" {
		t.Errorf("%q %v", out, err)
	}
	// Closing it is possible at any time.
	if err := ch.Close(); err != nil {
		t.Error(err)
	}
	b.events.wait(t, "closed 1 shell", 1)
}
