//go:build unix

package e2e

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// wrapped starts an agent around a shell line; its standard output goes to a
// file, and what it says itself to out.
func wrapped(t *testing.T, s *server, id identity, line string, options ...string) (p *process, stdout string) {
	t.Helper()
	stdout = filepath.Join(t.TempDir(), "stdout")
	args := append([]string{
		"--authorized-key", id.public, "--shell", "/bin/bash", "--wsproxy", tool("wsproxy"),
		"--ssh-option=-i" + id.file, "--ssh-option=-oIdentitiesOnly=yes", "--ssh-option=-Fnone", "--ssh-option=-oBatchMode=yes",
	}, options...)
	args = append(args, s.ws("/agent/"+uniqueID()), "--", "/bin/sh", "-c", line)
	// A home without start-up files: they may wait for one another.
	return start(t, []string{"HOME=" + t.TempDir()}, "/bin/sh", append([]string{"-c", `out=$1; shift; exec "$@" > "$out"`, "sh", stdout, tool("agent")}, args...)...), stdout
}

func hasContent(t *testing.T, file, want string) {
	t.Helper()
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v, want %q", filepath.Base(file), got, err, want)
	}
}

// visit logs in to a shell and leaves it.
func visit(t *testing.T, id identity, a *agent) {
	t.Helper()
	w := viaWsproxy(id, a.url)
	w.options = append(w.options, "-tt")
	w.ssh(t, strings.NewReader("exit\n"))
}

// TestCommandSucceeds: the agent is not noticed, by anybody.
func TestCommandSucceeds(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	connected := make(chan error, 1)
	go func() {
		conn, err := nobody.Accept()
		if err == nil {
			conn.Close()
		}
		connected <- err
	}()
	input := "a\x00\xff\r\nno newline"
	r := runCommand(t, strings.NewReader(input), tool("agent"), "ws://"+nobody.Addr().String()+"/agent/x",
		"--", "/bin/sh", "-c", `cat; echo "err $1" >&2`, "sh", "--always")
	if r.code != 0 || r.stdout != input || r.stderr != "err --always\n" {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	nobody.Close()
	if err := <-connected; err == nil {
		t.Error("the agent called out")
	}
}

// TestCommandFails: the session opens, and ends with the command's own status.
func TestCommandFails(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	for _, test := range []struct {
		line string
		code int
		says string
	}{
		{"echo out; exit 42", 42, "the command ended with exit code 42; opening a session"},
		{"echo out; kill -KILL $$", 137, "the command was killed by SIGKILL; opening a session"},
	} {
		p, stdout := wrapped(t, s, id, test.line)
		a := awaitAgent(t, p)
		visit(t, id, a)
		if code := a.wait(t); code != test.code || !strings.Contains(a.out.String(), test.says) ||
			!strings.Contains(a.out.String(), "because its last user logged out") {
			t.Errorf("%s: exit code %d:\n%s", test.line, code, a.out)
		}
		hasContent(t, stdout, "out\n")
	}
	t.Run("and nobody comes", func(t *testing.T) {
		p, _ := wrapped(t, s, id, "exit 3", "--expiry", "1s")
		if code := p.wait(t); code != 3 || !strings.Contains(p.out.String(), "nobody logged in in time") {
			t.Errorf("exit code %d:\n%s", code, p.out)
		}
	})
	t.Run("and there is no server", func(t *testing.T) {
		r := runCommand(t, nil, tool("agent"), "--connect-timeout", "0", "ws://127.0.0.1:1/agent/x", "--", "false")
		if r.code != 1 || !strings.Contains(r.stderr, "agent: ") || r.stdout != "" {
			t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
		}
	})
	t.Run("and it is not there", func(t *testing.T) {
		p, _ := wrapped(t, s, id, "exec no-such-program", "--expiry", "1s")
		if code := p.wait(t); code != 127 {
			t.Errorf("exit code %d:\n%s", code, p.out)
		}
	})
}

// TestAlways: a command that succeeds is followed by a session, too.
func TestAlways(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	p, stdout := wrapped(t, s, id, "echo out", "--always")
	a := awaitAgent(t, p)
	visit(t, id, a)
	if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "the command succeeded; opening a session") {
		t.Errorf("exit code %d:\n%s", code, a.out)
	}
	hasContent(t, stdout, "out\n")
}

// TestBackground: the session is open while the command runs, and its clocks
// begin with the command's end.
func TestBackground(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	// A command that ends when somebody writes how into a pipe.
	gate := func(t *testing.T) (line string, open func(how string)) {
		t.Helper()
		fifo := filepath.Join(t.TempDir(), "gate")
		if err := syscall.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		return "echo begun; read code < " + fifo + "; exit $code", func(how string) {
			if err := os.WriteFile(fifo, []byte(how+"\n"), 0); err != nil {
				t.Error(err)
			}
		}
	}
	t.Run("nobody there at success", func(t *testing.T) {
		line, open := gate(t)
		p, stdout := wrapped(t, s, id, line, "--background", "--expiry", "1s")
		a := awaitAgent(t, p)
		visit(t, id, a) // its logout ends nothing
		open("0")
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "the job's command has ended and nobody is here") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
		hasContent(t, stdout, "begun\n")
	})
	t.Run("nobody there at failure", func(t *testing.T) {
		line, open := gate(t)
		p, _ := wrapped(t, s, id, line, "--background")
		a := awaitAgent(t, p)
		visit(t, id, a)
		open("5")
		visit(t, id, a)
		if code := a.wait(t); code != 5 || !strings.Contains(a.out.String(), "because its last user logged out") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("somebody there at success", func(t *testing.T) {
		line, open := gate(t)
		p, _ := wrapped(t, s, id, line, "--background")
		a := awaitAgent(t, p)
		screen := newScreen(t, "100", "30")
		screen.typeLine(a.ssh)
		screen.waitFor(`The job's command is still running`)
		screen.typeLine(`"$CONVERGE_AGENT" status`)
		screen.waitFor(`still running; the session does not end before it`)
		open("0")
		screen.waitFor(`The job's command succeeded\.`)
		screen.typeLine("exit")
		if code := a.wait(t); code != 0 || !strings.Contains(a.out.String(), "because its last user logged out") {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
	t.Run("resumed before a failure", func(t *testing.T) {
		line, open := gate(t)
		p, _ := wrapped(t, s, id, line, "--background")
		a := awaitAgent(t, p)
		runCommand(t, nil, tool("agent"), "resume", "--id", a.id).must(t)
		a.out.Await(t, `told to resume the job`, 1)
		open("6")
		a.out.Await(t, `Its id is (\S+)`, 2) // a session of its own
		visit(t, id, a)
		if code := a.wait(t); code != 6 {
			t.Errorf("exit code %d:\n%s", code, a.out)
		}
	})
}

// TestSignalsToCommand: a signal from the CI system is the command's; no session
// delays the end.
func TestSignalsToCommand(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	for _, test := range []struct {
		line   string
		option string
		signal syscall.Signal
		code   int
	}{
		{"echo begun >&2; exec sleep 1000", "--on-failure-only", syscall.SIGTERM, 143},
		{"echo begun >&2; exec sleep 1000", "--on-failure-only", syscall.SIGINT, 130},
		{"sleep 1000 & trap 'kill $!; exit 9' TERM; echo begun >&2; wait", "--always", syscall.SIGTERM, 9},
		{"echo begun >&2; exec sleep 1000", "--background", syscall.SIGTERM, 143},
	} {
		p, _ := wrapped(t, s, id, test.line, test.option)
		p.out.Await(t, `begun`, 1)
		if test.option == "--background" {
			awaitAgent(t, p)
		}
		p.signal(test.signal)
		if code := p.wait(t); code != test.code || strings.Contains(p.out.String(), "opening a session") {
			t.Errorf("%v %s: exit code %d:\n%s", test.signal, test.line, code, p.out)
		}
	}
}

func TestWrapUsage(t *testing.T) {
	for says, args := range map[string][]string{
		"no command after --":        {"ws://h/agent/x", "--"},
		"exclude each other":         {"--always", "--on-failure-only", "ws://h/agent/x", "--", "true"},
		"--background needs a":       {"--background", "ws://h/agent/x"},
		"--always needs a command":   {"--always", "ws://h/agent/x"},
		"--timeout-exit-code does":   {"--timeout-exit-code", "3", "ws://h/agent/x", "--", "true"},
		"hold is a command: write":   {"--user", "u", "hold"},
		"give one duration":          {"extend"},
		"is no duration above 0":     {"extend", "0"},
		"unknown option --json":      {"hold", "--json"},
		"status takes no argument":   {"status", "x"},
		"give one URL, such as ws:/": {"--", "true"},
	} {
		if r := runCommand(t, nil, tool("agent"), args...); r.code != 2 || !strings.Contains(r.stderr, says) || r.stdout != "" {
			t.Errorf("%q: exit code %d, %q", args, r.code, r.stderr)
		}
	}
}

// TestProcessOne: as the first process of a container the agent reaps everybody's
// orphans, and loses nobody's status.
func TestProcessOne(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	count := filepath.Join(t.TempDir(), "count")
	line := `
		i=0
		while [ $i -lt 1000 ]; do
			( ( echo x >> ` + count + ` ) & )
			i=$((i+1))
		done
		left=1
		while [ $left != 0 ]; do
			left=0
			for p in /proc/[0-9]*; do
				case ${p#/proc/} in 1|$$|$PPID) continue ;; esac
				[ -e $p ] && left=$((left+1))
			done
		done
		echo nobody left
		exit 42`
	args := []string{"--pid", "--fork", "--kill-child", "--mount-proc", tool("agent"), "--authorized-key", id.public,
		"--expiry", "1s", s.ws("/agent/" + uniqueID()), "--", "/bin/sh", "-c", line}
	if os.Geteuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	r := runCommand(t, nil, "unshare", args...)
	if r.code != 42 || r.stdout != "nobody left\n" || !strings.Contains(r.stderr, "nobody logged in in time") {
		t.Errorf("exit code %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	if lines, err := os.ReadFile(count); err != nil || bytes.Count(lines, []byte("x")) != 1000 {
		t.Errorf("%d orphans ran, %v", len(lines)/2, err)
	}
}

// TestTerminalKeys: ctrl-C in a terminal is the command's, once.
func TestTerminalKeys(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	script := filepath.Join(t.TempDir(), "script")
	count := "n=0; trap 'n=$((n+1)); echo got $n.' INT; echo be''gun; while [ $n -lt 2 ]; do sleep 0.1; done; exit 7"
	if err := os.WriteFile(script, []byte(count), 0o600); err != nil {
		t.Fatal(err)
	}
	screen := newScreen(t, "100", "30")
	screen.typeLine(tool("agent") + " --expiry 1s --authorized-key '" + id.public + "' " + s.ws("/agent/"+uniqueID()) + " -- bash " + script)
	screen.waitFor(`begun`)
	screen.tmux("send-keys", "C-c")
	screen.waitFor(`got 1\.`)
	screen.tmux("send-keys", "C-c")
	screen.waitFor(`got 2\.`)
	screen.typeLine("echo status=$?.")
	screen.waitFor(`status=7\.`)
}
