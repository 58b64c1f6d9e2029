//go:build unix

package session

import (
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/agent/internal/link"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
)

func TestGreeting(t *testing.T) {
	a := start(t, func(c *Config) { c.Expiry = expiry.Config{Expiry: 100 * time.Hour, MaxDuration: 1000 * time.Hour} })
	first := a.login()
	alone := a.shell(first)
	for _, want := range []string{
		`^Welcome to this job, by way of Converge\.\r\nThe session ends at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+, 100 h from now, unless you work on\.\r\n`,
		`It ends when the last user logs out\. To keep or extend it:\r\n  touch "\$agentdir/\.hold"\r\n`,
		`Nothing extends it past \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+\.\r\n`,
	} {
		alone.shows(want)
	}
	if strings.Contains(alone.out.String(), "Also here") {
		t.Errorf("%q", alone.out)
	}
	second := a.login()
	a.shell(second).shows(`\r\nAlso here: abc from 192\.0\.2\.7:4711, since \d\d:\d\d:\d\d\r\n`)
	a.shell(first).shows(`Also here: abc from`)

	_ = second.Close()
	a.said(`logged out`)
	last := a.shell(first)
	last.shows(`past`)
	if strings.Contains(last.out.String(), "Also here") {
		t.Errorf("%q", last.out)
	}
}

// TestGreetingWaits for the events of the shell that it greets: before, the
// machine would tell of an end that the login has put off.
func TestGreetingWaits(t *testing.T) {
	host := signer(t)
	synctest.Test(t, func(t *testing.T) {
		server, err := sshd.New(sshd.Config{User: "abc", HostKey: host, Password: "secret"})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name   string
			events []expiry.Event
			want   string
		}{
			{"login", []expiry.Event{expiry.Login(1), expiry.Opened(1, expiry.Shell)}, ", 48 h from now, unless you work on"},
			{"end", []expiry.Event{expiry.Signal()}, "The session does not expire"},
		} {
			r := &run{log: slog.New(slog.DiscardHandler), sshd: server, phase: make(chan struct{})}
			r.loop, err = expiry.NewLoop(expiry.Config{Expiry: 48 * time.Hour, FirstConnect: time.Hour}, r.effect)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			for _, e := range test.events {
				r.loop.Send(e)
			}
			text := make(chan string, 1)
			go func() { text <- r.greeting(sshd.UserInfo{ID: 1}) }()
			synctest.Wait()
			if len(text) != 0 {
				t.Errorf("%s: too early: %q", test.name, <-text)
				continue
			}
			go func() { _, _ = r.loop.Run(ctx) }()
			if got := <-text; !strings.Contains(got, test.want) {
				t.Errorf("%s: %q", test.name, got)
			}
		}
	})
}

// TestWarning is told in the job's log and to shells; typing arms it anew.
func TestWarning(t *testing.T) {
	for _, test := range []struct {
		name   string
		noWall bool
	}{{"wall", false}, {"no wall", true}} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			a := start(t, func(c *Config) {
				// It is due a moment after the last activity.
				c.Expiry = expiry.Config{Expiry: time.Hour, Warning: time.Hour - time.Millisecond}
				c.AgentDir, c.NoWall = dir, test.noWall
			})
			client := a.login()
			s := a.shell(client)
			s.typeIn("echo ty''ped\n")
			s.shows(`typed`)
			const warning = `This session ends in 1 h, at (\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d \S+\. To extend it: touch "\$agentdir/\.hold"`
			if test.noWall {
				a.said(`\nconverge: ` + warning + `\n`)
				// What comes later has been through the machine's hands.
				touch(t, dir, 1000*time.Hour)
				a.logged(`msg=deadline`)
			} else {
				s.shows(`\r\n` + warning + `\r\n`)
				a.said(`\nconverge: ` + warning + `\n`)
				touch(t, dir, 1000*time.Hour)
				a.logged(`msg=deadline`)
			}
			s.typeIn("exit\n")
			_ = s.Wait()
			if walled := strings.Contains(s.out.String(), "This session ends in"); walled == test.noWall {
				t.Errorf("the shell shows %q", s.out)
			}
		})
	}
}

func TestChildEnv(t *testing.T) {
	job := []string{
		"PATH=/bin", "agentdir=/old", "CONVERGE_AGENTDIR=/old", "CONVERGE_AGENT_HEADER=Authorization: secret",
		"CONVERGE_AGENT_=x", "CONVERGE_AGENT=/old/agent", "CONVERGE_AGENTS_X=mine", "CONVERGE_SERVER_LISTEN=:1", "agentdir2=x",
		"EMPTY=", "odd", "A=b=c", "converge_agent_x=mine",
	}
	want := []string{
		"PATH=/bin", "CONVERGE_AGENTS_X=mine", "CONVERGE_SERVER_LISTEN=:1", "agentdir2=x",
		"EMPTY=", "odd", "A=b=c", "converge_agent_x=mine", "agentdir=/new", "CONVERGE_AGENTDIR=/new", "CONVERGE_AGENT=/new/agent",
	}
	if got := childEnv(job, "/new", "/new/agent"); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if got := childEnv(job, "/new", ""); !slices.Equal(got, want[:len(want)-1]) {
		t.Errorf("without a program: %q", got)
	}
	if len(job) != 13 || job[1] != "agentdir=/old" {
		t.Error("the job's own was changed")
	}
}

// TestEnvironment is what commands really get.
func TestEnvironment(t *testing.T) {
	t.Setenv("CONVERGE_AGENT_HEADER", "Authorization: secret")
	t.Setenv("CONVERGE_TEST_JOB", "a job's")
	t.Setenv("agentdir", "/somebody/elses")
	a := start(t, nil)
	client := a.login()
	env := a.run(client, "env")
	if strings.Contains(env, "secret") || strings.Contains(env, "/somebody/elses") ||
		!strings.Contains(env, "CONVERGE_TEST_JOB=a job's\n") || strings.Count(env, "agentdir=") != 1 {
		t.Errorf("%q", env)
	}
	_ = client.Close()
	a.ends(0)
}

func TestVisitor(t *testing.T) {
	var conn net.Conn = visitor{client: link.Client{Remote: "192.0.2.1:1"}}
	if addr := conn.RemoteAddr(); addr.String() != "192.0.2.1:1" || addr.Network() != "converge" {
		t.Errorf("%v", addr)
	}
	if addr := (visitor{}).RemoteAddr(); addr.String() != "an unknown address" {
		t.Errorf("%v", addr)
	}
}
