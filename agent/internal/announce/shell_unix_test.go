//go:build !windows

package announce

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/shellword"
)

// patience is for what takes milliseconds on an idle machine.
const patience = time.Minute

// odd are names of a file and options that a shell, or ssh, would take for
// something else.
var odd = []string{
	"plain", "with space", " at the ends ", "it's", "''", `say "hi"`, "$HOME", "${x}", "$(id)", "`id`", "!!", "wow!", "!'\"$",
	"%h", "100%", "%%", "#x", "a#b", "a;b", "a&b", "a|b", "a>b", "<a", "*", "?", "[a]", "{a,b}", "(a)", "~", "~root", "=ls", "a=b", "-x", "^a^b",
	`back\slash`, `at the end\`, `\`, `\\`, `\'`, `\"`, `'\`, `"\'`, `\!`, `\$`, `C:\bin\wsproxy.exe`, "ünï", "日本", "none", "%T", "a,b:c@d+e",
}

// shells are ways to paste a line. The interactive one has a history.
var shells = map[string]func(ctx context.Context, line string) *exec.Cmd{
	"sh":   func(ctx context.Context, line string) *exec.Cmd { return exec.CommandContext(ctx, "sh", "-c", line) },
	"bash": func(ctx context.Context, line string) *exec.Cmd { return exec.CommandContext(ctx, "bash", "-c", line) },
	"interactive": func(ctx context.Context, line string) *exec.Cmd {
		c := exec.CommandContext(ctx, "bash", "--norc", "--noprofile", "-i")
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it would take the terminal
		c.Stdin = strings.NewReader("echo earlier line with words\n" + line + "\n")
		return c
	},
}

// run runs a line in a shell with the home and variables, and returns what it
// said and its error.
func run(t *testing.T, shell, line, home string, env ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := shells[shell](ctx, line)
	c.Dir = home
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "SHELL=/bin/sh", "LC_ALL=C", "HISTFILE="}, env...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

// recorder is a program that adds the number of its arguments, its name and
// them to the file that a variable names, each with a zero byte behind it.
const (
	recorder  = "#!/bin/sh\n" + `printf '%s\0' "$#" "$0" "$@" >>"$` + recordVar + "\"\n"
	recordVar = "ANNOUNCE_TEST_RECORD"
)

// install makes a program.
func install(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// recorded returns the calls that a file holds, and removes it.
func recorded(t *testing.T, file string) (calls [][]string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("nothing was called: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for words := strings.Split(string(data), "\x00"); len(words) > 1; {
		n, err := strconv.Atoi(words[0])
		if err != nil {
			t.Fatalf("%q: %v", data, err)
		}
		calls = append(calls, words[1:n+2])
		words = words[n+2:]
	}
	return calls
}

// TestPasted pastes lines into shells and compares what ssh is called with.
func TestPasted(t *testing.T) {
	home := t.TempDir()
	calls := filepath.Join(home, "calls")
	fake := filepath.Join(home, "fake")
	install(t, filepath.Join(fake, "ssh"), recorder)
	install(t, filepath.Join(fake, "sftp"), recorder)
	a := fixed(t)
	a.Server.Host, a.ID = "[::1]:80", "a~b"
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			// All options at once, and each path of wsproxy for itself.
			for i, wsproxy := range odd {
				a.Wsproxy, a.Options = wsproxy, nil
				line, program := a.SSH(), "ssh"
				if i == 0 {
					a.Options = odd
					line, program = a.SFTP(), "sftp"
				}
				out, err := run(t, shell, line, home, "PATH="+fake+":"+os.Getenv("PATH"), recordVar+"="+calls)
				if err != nil {
					t.Fatalf("%s: %v\n%s", line, err, out)
				}
				got := recorded(t, calls)
				want := slices.Concat([]string{filepath.Join(fake, program)}, a.Options, []string{
					"-oServerAliveInterval=10", "-oServerAliveCountMax=36",
					"-oProxyCommand=" + shellword.Percent(shellword.ProxyPath(wsproxy)+" 'ws://[::1]:80/client/a~b#"+hostPin+"'"),
					"-oKnownHostsCommand=/bin/echo %H " + hostKey,
					"-oStrictHostKeyChecking=yes", "-oUserKnownHostsFile=none", "-oGlobalKnownHostsFile=none", "-oControlPath=none",
					"abc@localhost",
				})
				if len(got) != 1 || !slices.Equal(got[0], want) {
					t.Errorf("%s\n calls %q\n  want %q", line, got, want)
				}
			}
		})
	}
}

// TestProxyCommand has the real ssh run wsproxy from odd places.
func TestProxyCommand(t *testing.T) {
	for _, shell := range []string{"/bin/sh", "/bin/bash"} {
		t.Run(filepath.Base(shell), func(t *testing.T) {
			home := t.TempDir()
			calls := filepath.Join(home, "calls")
			a := fixed(t)
			a.Server.Host, a.ID = "[::1]:80", "a~b"
			a.Options = []string{"-Fnone", "-oBatchMode=yes"}
			for _, name := range odd {
				path := filepath.Join(home, "dir of "+name, name)
				install(t, path, recorder)
				for _, wsproxy := range []string{path, "~" + strings.TrimPrefix(path, home)} {
					a.Wsproxy = wsproxy
					out, err := run(t, "sh", a.SSH(), home, "SHELL="+shell, recordVar+"="+calls)
					if err == nil {
						t.Errorf("%s: ssh succeeded with nobody there", a.SSH())
					}
					if _, err := os.Stat(calls); err != nil {
						t.Errorf("%s: wsproxy was not called\n%s", a.SSH(), out)
						continue
					}
					want := []string{path, "ws://[::1]:80/client/a~b#" + hostPin}
					if got := recorded(t, calls); len(got) != 1 || !slices.Equal(got[0], want) {
						t.Errorf("%s\n calls %q\n  want %q", a.SSH(), got, want)
					}
				}
			}
		})
	}
}

// TestSSHTakesTheLine has ssh itself say how it understood a line.
func TestSSHTakesTheLine(t *testing.T) {
	a := fixed(t)
	a.Wsproxy = `~/it's 100%/wsproxy`
	a.Options = []string{"-Fnone", "-oServerAliveInterval=3", "-oSetEnv=GREETING=hello", "-oUserKnownHostsFile=~/mine"}
	out, err := run(t, "sh", "ssh -G"+strings.TrimPrefix(a.SSH(), "ssh"), t.TempDir())
	if err != nil {
		t.Fatalf("ssh refuses %s: %v\n%s", a.SSH(), err, out)
	}
	lines := strings.Split(out, "\n")
	for _, want := range []string{
		"user abc", "hostname localhost", "stricthostkeychecking true", "globalknownhostsfile none",
		`proxycommand ~/'it'\''s 100%%/wsproxy' 'ws://relay.example:8080/client/team/job-1#` + hostPin + `'`,
		"serveralivecountmax 36",
		"knownhostscommand /bin/echo %H " + hostKey,
		// The first of two values is taken: the user's own.
		"serveraliveinterval 3", "setenv GREETING=hello",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("ssh has not understood %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "controlpath") || !strings.Contains(out, "\nuserknownhostsfile ") || strings.Contains(out, "\nuserknownhostsfile none") {
		t.Errorf("ssh shares connections, or has not taken the user's file:\n%s", out)
	}
}

// TestSFTPTakesTheLine has sftp call ssh.
func TestSFTPTakesTheLine(t *testing.T) {
	home := t.TempDir()
	calls := filepath.Join(home, "calls")
	program := filepath.Join(home, "my-ssh")
	install(t, program, recorder)
	a := fixed(t)
	a.Options = []string{"-S" + program}
	out, err := run(t, "sh", a.SFTP(), home, recordVar+"="+calls)
	if err == nil {
		t.Errorf("sftp succeeded with nobody there:\n%s", out)
	}
	got := recorded(t, calls)
	if len(got) != 1 {
		t.Fatalf("sftp calls %q", got)
	}
	for _, want := range []string{
		"ServerAliveInterval=10", "ServerAliveCountMax=36",
		"ProxyCommand=wsproxy 'ws://relay.example:8080/client/team/job-1#" + hostPin + "'",
		"KnownHostsCommand=/bin/echo %H " + hostKey, "StrictHostKeyChecking=yes", "ControlPath=none", "abc", "localhost",
	} {
		if !slices.Contains(got[0], want) {
			t.Errorf("sftp does not pass on %q: %q", want, got[0])
		}
	}
}

// TestHoldCommand types the command in a shell of the job.
func TestHoldCommand(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's $HOME")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hold := filepath.Join(dir, ".hold")
	for shell := range shells {
		for _, again := range []bool{false, true} {
			if out, err := run(t, shell, HoldCommand, t.TempDir(), "agentdir="+dir); err != nil {
				t.Fatalf("%s: %v\n%s", shell, err, out)
			}
			info, err := os.Stat(hold)
			if err != nil {
				t.Fatalf("%s: %v", shell, err)
			}
			if old := time.Unix(1, 0); again && info.ModTime().Equal(old) {
				t.Errorf("%s: the second one does not date the file anew", shell)
			} else if err := os.Chtimes(hold, old, old); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Remove(hold); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShortPasted pastes the short line, with wsproxy in odd places.
func TestShortPasted(t *testing.T) {
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			home := t.TempDir()
			calls := filepath.Join(home, "calls")
			a := fixed(t)
			a.Server.Host, a.ID, a.User = "[::1]:80", "a~b", "bob"
			for _, name := range odd {
				path := filepath.Join(home, "dir of "+name, name)
				install(t, path, recorder)
				for _, wsproxy := range []string{path, "~" + strings.TrimPrefix(path, home)} {
					a.Wsproxy, a.Options = wsproxy, odd[:8]
					out, err := run(t, shell, a.Short(), home, recordVar+"="+calls)
					if err != nil {
						t.Fatalf("%s: %v\n%s", a.Short(), err, out)
					}
					want := slices.Concat([]string{path, "ssh"}, a.Options, []string{"-oUser=bob", "ws://[::1]:80/client/a~b#" + hostPin})
					if got := recorded(t, calls); len(got) != 1 || !slices.Equal(got[0], want) {
						t.Errorf("%s\n calls %q\n  want %q", a.Short(), got, want)
					}
				}
			}
		})
	}
}
