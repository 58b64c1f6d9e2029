//go:build unix

package session

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/control"
	"example.com/converge/agent/internal/joblog"
	"example.com/converge/agent/internal/keys"
	"example.com/converge/agent/internal/servertest"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/rendezvous"
)

// telling runs the part of a session that tells how it stands, without a
// server, in a bubble. It returns the lines of the job's log since it was asked
// last, with the minutes since the start before each.
func telling(t *testing.T, cfg Config) (r *run, since func(time.Duration) []string) {
	t.Helper()
	out := &stamped{start: time.Now()}
	if cfg.SSH.User == "" {
		cfg.SSH = sshd.Config{User: "abc", HostKey: signer(t), Password: "secret"}
	}
	cfg.Access = announce.Access{Server: rendezvous.Server{Host: "relay.example"}, User: "abc", HostKey: cfg.SSH.HostKey.PublicKey(), Wsproxy: "wsproxy"}
	cfg.Link.ID = "job"
	r = &run{
		cfg: cfg, log: slog.New(slog.DiscardHandler), phase: make(chan struct{}),
		job: joblog.New(out, func(string) string { return "" }),
	}
	var err error
	if r.sshd, err = sshd.New(cfg.SSH); err != nil {
		t.Fatal(err)
	}
	if r.loop, err = expiry.NewLoop(cfg.Expiry, r.effect); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{}, 2)
	go func() { _, _ = r.loop.Run(ctx); ended <- struct{}{} }()
	go func() { r.job.Run(ctx, r.progress); ended <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-ended
		<-ended
	})
	return r, func(d time.Duration) []string {
		time.Sleep(d)
		synctest.Wait()
		return out.take()
	}
}

// stamped is a log with the time of each line.
type stamped struct {
	start time.Time

	mu    sync.Mutex
	lines []string
}

func (s *stamped) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		s.lines = append(s.lines, time.Since(s.start).String()+" "+strings.TrimSpace(line))
	}
	return len(p), nil
}

func (s *stamped) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return lines
}

// wantLines compares lines with patterns.
func wantLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !regexp.MustCompile("^"+want[i]+"$").MatchString(got[i]) {
			t.Errorf("it said\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
			return
		}
	}
}

const (
	once    = `converge: waiting for somebody to log in, for `
	pasting = `: wsproxy ssh "ws://relay\.example/client/job#[\w-]{43}"`
)

// TestWaiting: with the times that everybody has, the log counts down in four
// lines, and each after the first has what to paste.
func TestWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, since := telling(t, Config{Expiry: expiry.DefaultConfig()})
		r.registered("job")
		lines := since(time.Second)
		wantLines(t, lines[len(lines)-1:], `0s `+once+`10 min more \(until \S+ \S+\)`)
		wantLines(t, since(time.Hour),
			`5m0s `+once+`5 min more \(until \S+ \S+\)`+pasting,
			`7m30s `+once+`2 min 30 s more \(until \S+ \S+\)`+pasting,
			`8m45s `+once+`1 min 15 s more \(until \S+ \S+\)`+pasting,
		)
	})
}

// TestWaitingLong: a log that would be silent for long is not; where a program
// has the line it stays out of the log.
func TestWaitingLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var object servertest.Output
		r, since := telling(t, Config{Print: announce.JSON, Object: &object, Expiry: expiry.Config{Keep: true}})
		r.registered("job")
		wantLines(t, since(time.Second), `0s converge: waiting for somebody to log in`)
		wantLines(t, since(13*time.Minute), `6m0s converge: waiting for somebody to log in`, `12m0s converge: waiting for somebody to log in`)
		if !strings.HasPrefix(object.String(), `{"id":"job",`) {
			t.Errorf("%q", &object)
		}
	})
}

// TestCommandRuns: while the job's command has the log the agent is silent, and
// afterwards says where the way in is.
func TestCommandRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		end := make(chan JobEnd, 1)
		r, since := telling(t, Config{Job: end, Expiry: expiry.Config{Expiry: 10 * time.Minute, Busy: true}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { r.awaitJob(ctx, end); close(done) }()
		defer func() { cancel(); <-done }()
		r.registered("job")
		if lines := since(time.Second); strings.Contains(strings.Join(lines, "\n"), "waiting") {
			t.Errorf("%q", lines)
		}
		wantLines(t, since(time.Hour))
		end <- JobEnd{Text: "ended with exit code 1", Stay: true}
		wantLines(t, since(time.Second),
			`\S+ converge: The job's command ended with exit code 1\.`,
			`\S+ `+once+`10 min more \(until \S+ \S+\)`+pasting)
	})
}

// TestActive: while somebody is in, the log says until when, and a warning of the
// cap promises nothing.
func TestActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, since := telling(t, Config{Expiry: expiry.Config{MaxDuration: 20 * time.Minute, Warning: 7 * time.Minute}})
		r.loop.Send(expiry.Login(1))
		r.loop.Send(expiry.Opened(1, expiry.Shell))
		wantLines(t, since(14*time.Minute),
			`6m0s converge: The session ends at \S+ \S+, 14 min from now: nothing extends it further\.`,
			`12m0s converge: The session ends at \S+ \S+, 8 min from now: nothing extends it further\.`,
			`13m0s converge: This session ends in 7 min, at \S+ \S+\. Nothing extends it\.`)
	})
}

// github is an environment of GitHub's with a summary.
func github(file string) func(string) string {
	return func(name string) string {
		return map[string]string{"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": file}[name]
	}
}

// TestSummary: who came and why it ended is in the step's summary, and nothing
// that more people than those of the log should not have.
func TestSummary(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary")
	a := start(t, func(c *Config) {
		c.Getenv = github(file)
		c.SSH.Password, c.Access.Password = "abcde-fghij", "abcde-fghij"
		c.Access.Options = []string{"-oSetEnv=X=1"}
	})
	a.said(`(?s)password: abcde-fghij\n.*::group::Converge: [^\n]*\nWith stock ssh.*  host key: SHA256:\S+ \(ed25519\)\n\n::endgroup::\n`)
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	const at = `    \d\d:\d\d:\d\d \S+  `
	want := `^\n#### Converge: this job could be entered\n\n` +
		at + `people could log in; the host key is ` + regexp.QuoteMeta(ssh.FingerprintSHA256(a.host)) + ` \(ed25519\)\n\n\n` +
		`#### Converge: the session is over\n\n` +
		at + `abc logged in\n` + at + `abc logged out\n` + at + `The session ended because its last user logged out\.\n\n$`
	if !regexp.MustCompile(want).MatchString(text) {
		t.Errorf("%q does not match\n%s", text, want)
	}
	for _, secret := range []string{"abcde-fghij", "192.0.2.7", "team/job", "ws://", "wsproxy"} {
		if strings.Contains(text, secret) {
			t.Errorf("the summary has %q:\n%s", secret, text)
		}
	}
}

// TestSummaryOfFailure says why nobody could be let in.
func TestSummaryOfFailure(t *testing.T) {
	file := filepath.Join(t.TempDir(), "summary")
	server := newServer(t)
	a := launch(t, server, func(c *Config) { c.Getenv, c.Link.KeepID = github(file), true })
	c, err := server.Control(a.context())
	if err == nil {
		err = c.Refuse(rendezvous.RefusedTaken, "the id is taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	<-a.ended.Done()
	text, err := os.ReadFile(file)
	if a.err == nil || err != nil || !strings.Contains(string(text), "#### Converge: the session failed\n\n") || !strings.Contains(string(text), a.err.Error()) {
		t.Errorf("%v, %v, %q", a.err, err, text)
	}
	a.tidy()
}

// TestSummaryLost is told, and changes nothing.
func TestSummaryLost(t *testing.T) {
	a := start(t, func(c *Config) { c.Getenv = github(filepath.Join(t.TempDir(), "nowhere", "summary")) })
	a.logged(`summary lacks something.*GITHUB_STEP_SUMMARY`)
	client := a.login()
	a.shell(client).leave(client)
	a.ends(0)
}

// TestOwner: whose key it was is in the log, shown to others, and in the status.
func TestOwner(t *testing.T) {
	user := signer(t)
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(user.PublicKey())))
	a := start(t, func(c *Config) {
		set, err := keys.NewSet(nil, []string{line + " alice ##vso[task.x]"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		c.SSH.Keys = set
	})
	a.user = user
	client := a.login()
	a.said(`\nconverge: abc \(key "alice #\?vso\[task\.x\]"\) logged in from ` + remote + `\n`)
	a.shell(client)
	a.shell(a.login()).shows(`Also here: abc \(key "alice`)
	env := control.Env{AgentDir: a.run(client, `printf %s "$agentdir"`)}
	answer, err := env.Do(a.context(), "", control.Request{Op: control.StatusOp})
	if err != nil {
		t.Fatal(err)
	}
	if users := answer.Status.Users; len(users) != 2 || users[0].Owner != `key "alice #?vso[task.x]"` || !strings.Contains(answer.Text, `Here: abc (key "alice`) {
		t.Errorf("%+v, %q", users, answer.Text)
	}
	a.stop()
	a.ends(0)
}
