//go:build unix

package session

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/control"
	"example.com/converge/pkg/expiry"
)

const lingering = `msg=phase from=active to=lingering`

// After a shell the end comes at once, however long the grace is.
func TestLeaveShell(t *testing.T) {
	a := start(t, func(c *Config) { c.Expiry.Grace = time.Hour; c.TimeoutExitCode = 7 })
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
	out := a.out.String()
	if !strings.HasSuffix(out, logout) {
		t.Errorf("it said %q", out)
	}
	login, gone := position(t, out, "converge: abc logged in from "+remote+"\n"), position(t, out, "converge: abc from "+remote+" logged out\n")
	if login > gone {
		t.Errorf("it said %q", out)
	}
}

// After a command there is the grace, so that a copy can precede a login.
func TestLeaveCommand(t *testing.T) {
	a := start(t, func(c *Config) { c.Expiry.Grace = time.Hour })
	client := a.login()
	if got := a.run(client, "echo done"); got != "done\n" {
		t.Errorf("%q", got)
	}
	_ = client.Close()
	a.logged(lingering)
	client = a.login()
	a.shell(client).leave(client)
	a.ends(0)
}

func TestLeaveCommandWithoutGrace(t *testing.T) {
	a := start(t, nil)
	client := a.login()
	a.run(client, "true")
	_ = client.Close()
	a.ends(0)
	if !strings.HasSuffix(a.out.String(), logout) {
		t.Errorf("it said %q", a.out)
	}
}

// A shell whose connection breaks has not been left: its user may come back,
// and so does the agent where it was the server that went.
func TestConnectionBreaks(t *testing.T) {
	for name, cut := range map[string]func(*agent, *ssh.Client){
		"client": func(_ *agent, client *ssh.Client) { _ = client.Close() },
		"server": func(a *agent, _ *ssh.Client) { a.server.Cut(); a.register() },
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, func(c *Config) { c.Expiry.Grace = time.Hour })
			client := a.login()
			a.shell(client)
			cut(a, client)
			a.logged(lingering)
			client = a.login()
			a.shell(client).leave(client)
			a.ends(0)
		})
	}
}

// With two users the last one counts.
func TestLastOfTwo(t *testing.T) {
	a := start(t, nil)
	first, second := a.login(), a.login()
	session, err := second.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("cat"); err != nil {
		t.Fatal(err)
	}
	a.shell(first).leave(first)
	a.said(`logged out\n`)
	third := a.login()
	a.shell(third).leave(third)
	a.said(`(?s)logged out\n.*logged out\n`)
	if _, err := io.WriteString(in, "here\n"); err != nil {
		t.Fatal(err)
	}
	echo := make([]byte, 5)
	if _, err := io.ReadFull(out, echo); err != nil || string(echo) != "here\n" {
		t.Fatalf("%q, %v", echo, err)
	}
	if strings.Contains(a.log.String(), lingering) {
		t.Error("it counted as empty in between")
	}
	_ = second.Close()
	a.ends(0)
}

// Who never logs in is nobody.
func TestStrangerIsNobody(t *testing.T) {
	a := start(t, nil)
	data, err := a.server.Visit(a.context(), a.control, remote)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := data.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	_ = data.Close()
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
	if n := strings.Count(a.out.String(), "logged"); n != 3 { // in, out, and the last sentence
		t.Errorf("it said %q", a.out)
	}
}

func TestKeep(t *testing.T) {
	a := start(t, func(c *Config) { c.Expiry.Keep = true })
	client := a.login()
	s := a.shell(client)
	s.shows(`It stays when the last user logs out\.\r\n`)
	s.leave(client)
	a.logged(lingering)
	client = a.login()
	a.run(client, "true")
	a.stop()
	a.ends(0)
}

func TestHold(t *testing.T) {
	a := start(t, func(c *Config) { c.Expiry.Expiry = 1000 * time.Hour })
	client := a.login()
	s := a.shell(client)
	// The far future moves the deadline, for which there is a line in the log.
	s.typeIn("touch -d 2100-01-01T00:00:00 \"$agentdir/.hold\"; echo \"dir is <$agentdir>\"\n")
	dir := s.shows(`dir is <(/[^>]*)>`)[1]
	a.logged(`msg=deadline`)
	s.leave(client)
	a.logged(lingering)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(dir) != a.tmp {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
	client = a.login()
	s = a.shell(client)
	s.shows(`It is held: it stays when the last user logs out\.`)
	s.leave(client)
	a.logged(lingering + `(?s).*` + lingering)
	if err := os.Remove(filepath.Join(dir, ".hold")); err != nil {
		t.Fatal(err)
	}
	a.ends(0)
}

// A session is held although its folder takes no .hold, as on a full disk; whoever
// asks for it is told.
func TestHoldWithoutFile(t *testing.T) {
	dir := t.TempDir()
	// What stands where the file is prepared keeps even root from writing it.
	if err := os.MkdirAll(filepath.Join(dir, ".hold.new", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := start(t, func(c *Config) { c.AgentDir = dir })
	t.Setenv("CONVERGE_AGENTDIR", dir)
	do := func(op control.Op) string {
		t.Helper()
		answer, err := control.Environment().Do(a.context(), "", control.Request{Op: op})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Text
	}
	const without = "But there is no .hold to remove: "
	if text := do(control.Hold); !strings.Contains(text, "It is held") || !strings.Contains(text, without) {
		t.Errorf("%q", text)
	}
	a.logged(`held, but not by a file`)
	client := a.login()
	a.shell(client).leave(client)
	a.logged(lingering)
	if text := do(control.Resume); strings.Contains(text, without) || !strings.Contains(text, "told to resume") {
		t.Errorf("%q", text)
	}
	a.ends(0)
}

// A folder that was given is made if need be, and stays; a .hold from before
// keeps nobody.
func TestGivenAgentDir(t *testing.T) {
	t.Run("made", func(t *testing.T) {
		t.Chdir(t.TempDir())
		a := start(t, func(c *Config) { c.AgentDir = filepath.Join("new", "dir") })
		client := a.login()
		dir := strings.TrimSpace(a.run(client, `echo "$agentdir"; test "$agentdir" = "$CONVERGE_AGENTDIR"`))
		_ = client.Close()
		a.ends(0)
		here, err := os.Getwd()
		if err != nil || dir != filepath.Join(here, "new", "dir") {
			t.Errorf("agentdir is %q in %q, %v", dir, here, err)
		}
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
	})
	t.Run("there", func(t *testing.T) {
		dir := t.TempDir()
		old := filepath.Join(dir, ".hold")
		if err := os.WriteFile(old, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a := start(t, func(c *Config) { c.AgentDir = dir })
		a.logged(`ignoring a \.hold from before`)
		client := a.login()
		a.shell(client).leave(client)
		a.ends(0)
		if _, err := os.Stat(old); err != nil {
			t.Error(err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a := launch(t, newServer(t), func(c *Config) { c.AgentDir = file })
		<-a.ended.Done()
		if a.err == nil || !strings.Contains(a.err.Error(), "cannot make the folder of --agentdir") {
			t.Errorf("%v", a.err)
		}
	})
}

// The temporary folder may be none.
func TestNoTemporaryFolder(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "nowhere"))
	if _, _, err := agentDir(""); err == nil || !strings.Contains(err.Error(), "name one with --agentdir") {
		t.Errorf("%v", err)
	}
}

// What the parts cannot use is said before anything else happens.
func TestConfigRefused(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"expiry":  {func(c *Config) { c.Expiry = expiry.Config{Grace: -1} }, "the grace is negative"},
		"sshd":    {func(c *Config) { c.SSH.Keys = nil }, "nobody could log in to"},
		"link":    {func(c *Config) { c.Link.ID = "../x" }, "invalid id"},
		"pattern": {func(c *Config) { c.SSH.AcceptEnv = []string{"["} }, "pattern"},
	} {
		t.Run(name, func(t *testing.T) {
			a := launch(t, newServer(t), test.change)
			<-a.ended.Done()
			if a.err == nil || !strings.Contains(a.err.Error(), test.want) || a.out.String() != "" {
				t.Errorf("%v, %q", a.err, a.out)
			}
			a.tidy()
		})
	}
}
