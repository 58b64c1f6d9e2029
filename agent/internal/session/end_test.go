//go:build unix

package session

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/link"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/rendezvous"
)

// TestSignal has a shell, a command and a connection with nothing open, and
// wants them to end in this order: users told, sessions over, goodbye to the
// server, folder removed.
func TestSignal(t *testing.T) {
	a := start(t, func(c *Config) { c.TimeoutExitCode = 7 })
	first, second := a.login(), a.login()
	a.login()
	s := a.shell(first)
	command, err := second.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start("sleep 3600"); err != nil {
		t.Fatal(err)
	}
	dirs, err := os.ReadDir(a.tmp)
	if err != nil || len(dirs) != 2 { // its own, and its socket's
		t.Errorf("temporary folders: %v, %v", dirs, err)
	}
	a.stop()
	a.ends(0)
	const sentence = "The session ended because the agent was told to stop by a signal."
	if !strings.Contains(s.out.String(), "\r\n"+sentence+"\r\n") {
		t.Errorf("the shell shows %q", s.out)
	}
	for _, session := range []*ssh.Session{s.Session, command} {
		var exit *ssh.ExitError
		if err := session.Wait(); !errors.As(err, &exit) || exit.Signal() != "HUP" {
			t.Errorf("it ended with %v", err)
		}
	}
	if strings.Count(a.atBye, "logged out\n") != 3 {
		t.Errorf("at the goodbye to the server it had said %q", a.atBye)
	}
	if !strings.HasSuffix(a.out.String(), "logged out\nconverge: "+sentence+"\n") {
		t.Errorf("it said %q", a.out)
	}
}

// Neither commands that do not want to go nor a server that takes nothing make
// the end late.
func TestEndIsBounded(t *testing.T) {
	// The hub may take a tenth of a second more than it is given.
	if most := endWait + streamsWait + 100*time.Millisecond + link.GoodbyeMost; most >= endMost {
		t.Errorf("the end takes up to %v", most)
	}
}

// A signal before anybody came, and before there is a server.
func TestSignalEarly(t *testing.T) {
	t.Run("registered", func(t *testing.T) {
		a := start(t, nil)
		a.said(`host key: SHA256:`)
		a.stop()
		a.ends(0)
		if a.atBye == "" {
			t.Error("no goodbye to the server")
		}
	})
	t.Run("registering", func(t *testing.T) {
		server := newServer(t)
		a := launch(t, server, nil)
		if _, err := server.Control(a.context()); err != nil {
			t.Fatal(err)
		}
		a.stop()
		a.ends(0)
		if strings.Contains(a.out.String(), "can be entered") {
			t.Errorf("it said %q", a.out)
		}
	})
}

func TestNobodyComes(t *testing.T) {
	for name, c := range map[string]expiry.Config{
		"expiry":        {Expiry: 1},
		"first connect": {Expiry: time.Hour, FirstConnect: 1},
	} {
		t.Run(name, func(t *testing.T) {
			a := launch(t, newServer(t), func(cfg *Config) { cfg.Expiry, cfg.TimeoutExitCode = c, 42 })
			a.ends(42)
			if !strings.HasSuffix(a.out.String(), "because nobody logged in in time.\n") {
				t.Errorf("it said %q", a.out)
			}
		})
	}
	t.Run("cap", func(t *testing.T) {
		a := launch(t, newServer(t), func(cfg *Config) { cfg.Expiry.MaxDuration = 1 })
		a.ends(0)
		if !strings.HasSuffix(a.out.String(), "reached its maximum duration, which nothing extends.\n") {
			t.Errorf("it said %q", a.out)
		}
	})
}

// TestExpires takes away the .hold that alone keeps a session with a user.
func TestExpires(t *testing.T) {
	dir := t.TempDir()
	a := start(t, func(c *Config) {
		c.AgentDir, c.TimeoutExitCode = dir, 42
		c.Expiry = expiry.Config{Expiry: 1, FirstConnect: time.Hour, Keep: true}
	})
	touch(t, dir, 1000*time.Hour)
	a.logged(`msg=deadline`)
	s := a.shell(a.login())
	if err := os.Remove(filepath.Join(dir, ".hold")); err != nil {
		t.Fatal(err)
	}
	a.ends(42)
	if !strings.Contains(s.out.String(), "\r\nThe session ended because it expired: ") {
		t.Errorf("the shell shows %q", s.out)
	}
	if !strings.Contains(a.atBye, "logged out\n") {
		t.Errorf("at the goodbye to the server it had said %q", a.atBye)
	}
}

// touch touches .hold, dated ahead of now.
func touch(t *testing.T, dir string, ahead time.Duration) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hold")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	date := time.Now().Add(ahead)
	if err := os.Chtimes(file, date, date); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file, filepath.Join(dir, ".hold")); err != nil {
		t.Fatal(err)
	}
}

// fails waits for the end of Run with an error that holds the text.
func (a *agent) fails(text string) {
	a.t.Helper()
	<-a.ended.Done()
	a.listening.Wait()
	if a.err == nil || !strings.Contains(a.err.Error(), text) {
		a.t.Errorf("%v, want %q", a.err, text)
	}
	a.tidy()
}

func TestNoRegistration(t *testing.T) {
	server := newServer(t)
	a := launch(t, server, nil)
	c, err := server.Control(a.context())
	if err == nil {
		err = c.Refuse(rendezvous.RefusedVersion, "the agent is too old: download it again")
	}
	if err != nil {
		t.Fatal(err)
	}
	a.fails("the agent is too old: download it again")
	if a.out.String() != "" {
		t.Errorf("it said %q", a.out)
	}
}

// TestPlaceLost has a user in it when the agent comes back to a server where
// somebody else has its id by now: the user may stay, but nobody can come.
func TestPlaceLost(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep %t", keep), func(t *testing.T) {
			a := start(t, func(c *Config) { c.Link.KeepID, c.Expiry.Keep = true, keep })
			client := a.login()
			s := a.shell(client)
			_ = a.control.Close()
			c, err := a.server.Control(a.context())
			if err == nil {
				err = c.Refuse(rendezvous.RefusedTaken, "the id is taken\x1b[2J")
			}
			if err == nil {
				_, err = c.Hear() // the agent hangs up when it has heard it
			}
			if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			s.typeIn("echo still he''re\n")
			s.shows(`still here`)
			s.leave(client)
			if keep {
				a.fails("the id is taken?[2J: choose another --id")
			} else {
				a.ends(0)
			}
			if told := strings.HasSuffix(a.out.String(), logout); told == keep {
				t.Errorf("it said %q", a.out)
			}
		})
	}
}

// TestAnotherID is announced: who pastes the first line would come to another
// job.
func TestAnotherID(t *testing.T) {
	server := newServer(t)
	a := launch(t, server, nil)
	c, err := server.Control(a.context())
	if err == nil {
		err = c.Refuse(rendezvous.RefusedTaken, "the id is taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	a.register()
	id := a.said(`Its id is (team/job-\S+)\n(?s:.*)host key`)[1]
	if a.control.ID != id || strings.Count(a.out.String(), "/client/"+id+"#") != 2 || strings.Count(a.out.String(), "Its id is") != 1 {
		t.Errorf("registered as %s, it said %q", a.control.ID, a.out)
	}
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
}

// TestTwoAgents in one process share nothing.
func TestTwoAgents(t *testing.T) {
	server := newServer(t)
	one := launch(t, server, func(c *Config) { c.Link.ID = "one" })
	one.register()
	two := launch(t, server, func(c *Config) { c.Link.ID = "two" })
	two.register()
	first, second := one.login(), two.login()
	const where = `printf %s "$agentdir"`
	dirs := []string{one.run(first, where), two.run(second, where)}
	if dirs[0] == dirs[1] {
		t.Errorf("both have %q", dirs)
	}
	_ = first.Close()
	one.ends(0)
	if _, err := os.Stat(dirs[1]); err != nil {
		t.Error(err)
	}
	if got := two.run(second, "echo here"); got != "here\n" {
		t.Errorf("%q", got)
	}
	_ = second.Close()
	two.ends(0)
	for _, dir := range dirs {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

// broken is a log that nobody takes any more.
type broken struct{ io.Writer }

func (b broken) Write(p []byte) (int, error) {
	_, _ = b.Writer.Write(p)
	return 0, io.ErrClosedPipe
}

func TestOutputBroken(t *testing.T) {
	a := start(t, func(c *Config) { c.Out = broken{c.Out} })
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
	if !strings.HasSuffix(a.out.String(), logout) {
		t.Errorf("it tried to say %q", a.out)
	}
}
