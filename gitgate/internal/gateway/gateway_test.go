package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/gitgate/internal/after"
	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/meter"
	"example.com/converge/gitgate/internal/queue"
	"example.com/converge/gitgate/internal/receive"
	"example.com/converge/gitgate/internal/tree"
	"example.com/converge/pkg/webhook"
)

// follow is a repository to keep in step with r.
func follow(t *testing.T, r *gittest.Repo) *config.Repo {
	t.Helper()
	c := &config.Repo{
		Name: "site", Path: "/hook", URL: r.URL(), Directory: filepath.Join(t.TempDir(), "site"), Label: "master", Remote: "origin",
		Timeout: time.Minute, ExecTimeout: time.Minute, Secrets: []string{"s"},
	}
	var err error
	if c.Identity, err = webhook.ParseRemote(c.URL); err != nil {
		t.Fatal(err)
	}
	return c
}

// make1 is a gateway of one repository that serves nothing.
func make1(t *testing.T, repo *config.Repo) (*gateway, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	g := &gateway{log: slog.New(slog.NewTextHandler(&log, nil)), states: map[string]*state{}, repoll: make(chan struct{}, 1)}
	g.o.Log = g.log
	g.config.Store(&config.Config{Initialise: true, RetryCount: 1, Threads: 1, MaxBody: 1 << 20, ReplayWindow: time.Hour, Repos: []*config.Repo{repo}})
	g.began = g.config.Load()
	g.queue = queue.New(queue.Options[job]{Threads: 1, Tries: 1, Run: g.work, Merge: merge})
	g.meter = meter.New(g.queue.Busy)
	g.notifier = after.NewNotifier(g.log)
	g.receiver = receive.New(receive.Options{Config: g.config.Load, Log: g.log, Add: func(string, receive.Job) bool { return true }})
	t.Cleanup(func() {
		g.queue.Close(context.Background())
		g.notifier.Close(context.Background())
	})
	return g, &log
}

func pushed(repo *config.Repo, ref string) *webhook.Push {
	return &webhook.Push{Ref: ref, After: strings.Repeat("1", 40), Repository: webhook.Repository{URLs: []string{repo.URL}}}
}

// TestCheckedOnceMore: a push is checked against what is configured when its turn
// comes, since a reload may lie between.
func TestCheckedOnceMore(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*config.Repo)
		unasked bool
		want    bool
	}{
		"the same":               {func(*config.Repo) {}, false, true},
		"another branch":         {func(c *config.Repo) { c.Label = "other" }, false, false},
		"a tag":                  {func(c *config.Repo) { c.Tag = true }, false, false},
		"another repository":     {func(c *config.Repo) { c.Identity = webhook.Remote{Host: "h", Path: "p"} }, false, false},
		"another path":           {func(c *config.Repo) { c.Path = "/elsewhere" }, false, false},
		"another branch, reload": {func(c *config.Repo) { c.Label = "other" }, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New(t)
			gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:refs/heads/other")
			old := follow(t, r)
			next := *old
			test.change(&next)
			g, log := make1(t, &next)
			j := job{Job: receive.Job{Push: pushed(old, "refs/heads/master"), Deliveries: []string{"a"}}, why: "webhook"}
			if test.unasked {
				j, _ = merge(j, job{why: "its configuration has changed", unasked: true})
			}
			if again := g.work(t.Context(), "/hook", j, true); again {
				t.Error("it is to be tried again")
			}
			if got := gittest.Read(next.Directory, "a") == r.Number(); got != test.want {
				t.Errorf("updated: %v\n%s", got, log)
			}
			if !test.want && !strings.Contains(log.String(), "nothing is updated") {
				t.Errorf("the log does not tell:\n%s", log)
			}
		})
	}
}

// TestFollows: the trigger is touched and the command run for what is new, once;
// also for an annotated tag, whose object has another id than its commit.
func TestFollows(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no sh
	}
	for _, tag := range []bool{false, true} {
		r := gittest.New(t)
		c := follow(t, r)
		move := func() {
			r.Commit()
			if tag {
				gittest.Git(t, r.Work, "tag", "--force", "-a", "-m", "x", "v1")
				gittest.Git(t, r.Work, "push", "--quiet", "--force", "origin", "refs/tags/v1")
			}
		}
		if move(); tag {
			c.Label, c.Tag = "v1", true
		}
		dir := t.TempDir()
		c.Trigger = filepath.Join(dir, "trigger")
		c.Exec = []string{"sh", "-c", "echo ran >>" + filepath.Join(dir, "ran") + "; ! [ -e " + filepath.Join(dir, "fail") + " ]"}
		sync := func(changed bool, reason gitcmd.Reason, ran int) {
			t.Helper()
			_ = os.Remove(c.Trigger)
			o := Sync(t.Context(), c, "", slog.New(slog.DiscardHandler))
			_, err := os.Stat(c.Trigger)
			if o.Changed != changed || o.Reason != reason || (err == nil) != changed || strings.Count(gittest.Read(dir, "ran"), "ran") != ran {
				t.Errorf("%+v, trigger: %v, ran %q", o, err, gittest.Read(dir, "ran"))
			}
		}
		sync(true, "", 1)
		sync(false, "", 1)
		move()
		if err := os.WriteFile(filepath.Join(dir, "fail"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		sync(true, gitcmd.Exec, 2)
		if err := os.Remove(filepath.Join(dir, "fail")); err != nil {
			t.Fatal(err)
		}
		sync(true, "", 3) // it was not done
		sync(false, "", 3)
		// A tree that was changed by hand is put right, and nothing else follows.
		if err := os.WriteFile(filepath.Join(c.Directory, "a"), []byte("changed"), 0o600); err != nil {
			t.Fatal(err)
		}
		sync(false, "", 3)
		if gittest.Read(c.Directory, "a") != r.Number() {
			t.Error("a damaged file stays")
		}
		// What follows makes what somebody has removed.
		if err := os.RemoveAll(c.Directory); err != nil {
			t.Fatal(err)
		}
		sync(true, "", 4)
		sync(false, "", 4)
		// A trigger that cannot be touched is a failure.
		move()
		c.Trigger = filepath.Join(dir, "none", "trigger")
		if o := Sync(t.Context(), c, "", slog.New(slog.DiscardHandler)); o.Reason != gitcmd.Exec {
			t.Errorf("%+v", o)
		}
	}
}

// TestLeft: of a repository that is removed while it is updated nothing is kept,
// so that no figure says for ever that it fails.
func TestLeft(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no sh
	}
	c := follow(t, gittest.New(t))
	dir := t.TempDir()
	began, end := filepath.Join(dir, "began"), filepath.Join(dir, "end")
	c.Exec = []string{"sh", "-c", "mkfifo " + end + " && touch " + began + " && cat " + end + " && exit 1"}
	g, log := make1(t, c)
	ended := make(chan bool)
	go func() { ended <- g.work(context.Background(), "/hook", job{why: "start", unasked: true}, false) }()
	for _, err := os.Stat(began); err != nil; _, err = os.Stat(began) {
		runtime.Gosched()
	}
	next := *g.config.Load()
	next.Repos = nil
	g.o.Load = func() (*config.Config, []config.Warning, error) { return &next, nil, nil }
	g.reload()
	if err := os.WriteFile(end, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if <-ended {
		t.Error("it is to be tried again")
	}
	w := httptest.NewRecorder()
	g.meter.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if strings.Contains(w.Body.String(), `repo="site"`) || len(g.states) > 0 {
		t.Errorf("%v is kept, or figures are\n%s", g.states, log)
	}
}

// TestPublishedAnew: what the command has made in a published tree is made in the
// one that takes its place, too.
func TestPublishedAnew(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no sh
	}
	c := follow(t, gittest.New(t))
	c.Publish, c.Keep, c.Exec = config.Symlink, 2, []string{"sh", "-c", "echo made >made"}
	sync := func(changed bool) {
		t.Helper()
		o := Sync(t.Context(), c, "", slog.New(slog.DiscardHandler))
		if o.Err != nil || o.Changed != changed || gittest.Read(c.Directory, "made") != "made\n" {
			t.Errorf("%+v, made: %q", o, gittest.Read(c.Directory, "made"))
		}
	}
	sync(true)
	sync(false)
	if err := os.WriteFile(filepath.Join(c.Directory, "a"), []byte("changed"), 0o600); err != nil {
		t.Fatal(err)
	}
	sync(true)
	sync(false)
}

// TestSettle: failures are told once for each reason, or when somebody pushed, and
// their end is.
func TestSettle(t *testing.T) {
	g, _ := make1(t, &config.Repo{Name: "site", Path: "/hook", Label: "main"})
	told := make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		told <- string(body)
	}))
	defer server.Close()
	repo := g.config.Load().Repos[0]
	repo.Notify = []string{"json+" + server.URL}
	bad := func(reason gitcmd.Reason) Outcome { return Outcome{Reason: reason, Err: errors.New("it went wrong")} }
	push := pushed(repo, "refs/heads/main")
	var good, changed Outcome
	good.Hash, changed.Hash, changed.Changed = "1", "2", true
	for i, step := range []struct {
		push *webhook.Push
		o    Outcome
		want string // "" is nothing
	}{
		{nil, good, ""}, {nil, changed, `"success"`}, {nil, bad(gitcmd.Network), `"network"`}, {nil, bad(gitcmd.Network), ""},
		{push, bad(gitcmd.Network), `"network"`}, {nil, bad(gitcmd.Auth), `"auth"`}, {nil, good, `"success"`}, {nil, good, ""},
	} {
		g.settle(repo, step.push, step.o)
		if step.want == "" {
			continue // the next one would be seen in its place
		}
		if said := <-told; !strings.Contains(said, step.want) {
			t.Errorf("step %d: told %s, want %s", i, said, step.want)
		}
	}
	if len(told) > 0 {
		t.Errorf("also told %s", <-told)
	}
	if s := g.states["/hook"]; !s.good || s.failing != "" {
		t.Errorf("%+v", s)
	}
}

func TestHealth(t *testing.T) {
	repo := &config.Repo{Name: "site", Path: "/hook"}
	g, _ := make1(t, repo)
	ask := func(method, path string, want int) {
		t.Helper()
		w := httptest.NewRecorder()
		if g.handler().ServeHTTP(w, httptest.NewRequest(method, path, nil)); w.Code != want {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
	ask("GET", "/healthz", 200)
	ask("GET", "/readyz", 503)
	ask("POST", "/healthz", 404) // it may be a repository's path
	ask("GET", "/metrics", 404)
	g.states["/hook"] = &state{good: true}
	ask("GET", "/readyz", 200)
	ask("HEAD", "/readyz", 200)
	delete(g.states, "/hook")
	c := *g.config.Load()
	c.Initialise = false
	g.config.Store(&c)
	ask("GET", "/readyz", 200) // nobody waits for what only webhooks bring
}

// piped is a listener whose connections are pipes.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (piped) Close() error   { return nil }
func (piped) Addr() net.Addr { return &net.TCPAddr{} }

// TestSlowSenders: who sends slowly, or nothing, is not waited for.
func TestSlowSenders(t *testing.T) {
	for name, said := range map[string]string{
		"nothing": "", "half a header": "POST /hook HTTP/1.1\r\nHost: h\r\n",
		"half a body": "POST /hook HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\nContent-Length: 1000\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := make1(t, &config.Repo{Name: "site", Path: "/hook", Secrets: []string{"s"}})
				server, listener := g.server(g.handler()), make(piped)
				ended := make(chan error, 1)
				go func() { ended <- server.Serve(listener) }()
				here, there := net.Pipe()
				listener <- there
				start := time.Now()
				go func() { _, _ = io.WriteString(here, said) }()
				_, _ = io.Copy(io.Discard, here) // until it is closed
				if took := time.Since(start); took > time.Minute {
					t.Errorf("it was waited for %s", took)
				}
				_ = here.Close()
				close(listener)
				_ = server.Close()
				<-ended
			})
		})
	}
}

// TestWatch: a change that came between the first reading and the watching is not
// lost.
func TestWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config.yaml")
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	g, _ := make1(t, &config.Repo{Name: "site", Path: "/hook"})
	first := *g.config.Load()
	first.File, first.Sum, first.Repos = file, config.Digest([]byte("first")), nil
	g.config.Store(&first)
	read := make(chan string, 10)
	g.o.Load = func() (*config.Config, []config.Warning, error) {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		next := first
		next.Sum = config.Digest(text)
		read <- string(text)
		return &next, nil, nil
	}
	put("second")
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	wait.Go(func() { _ = g.watch(ctx) })
	if got := <-read; got != "second" {
		t.Errorf("read %q", got)
	}
	put("third")
	if got := <-read; got != "third" {
		t.Errorf("read %q", got)
	}
}

// TestQuiet: where something in the folder never rests, such as our own log, the
// file is read all the same.
func TestQuiet(t *testing.T) {
	const every = settled / 2
	since := time.Duration(0)
	for quiet(since) > every {
		if since += every; since > time.Minute {
			t.Fatal("it is never read")
		}
	}
	if quiet(0) != settled || quiet(time.Hour) != 0 {
		t.Errorf("%s, %s", quiet(0), quiet(time.Hour))
	}
}

// TestRestart: what counts at a start only is compared with what it was then.
func TestRestart(t *testing.T) {
	g, log := make1(t, &config.Repo{Name: "site", Path: "/hook"})
	for _, test := range []struct {
		port int
		want bool
	}{{1, true}, {1, true}, {g.began.Port, false}} {
		next := *g.began
		next.Port = test.port
		g.o.Load = func() (*config.Config, []config.Warning, error) { return &next, nil, nil }
		log.Reset()
		if g.reload(); strings.Contains(log.String(), "needs a restart") != test.want {
			t.Errorf("port %d: %s", test.port, log)
		}
	}
}

// TestReported: a failure of what follows an update does not say that the old files
// stay.
func TestReported(t *testing.T) {
	for want, o := range map[string]Outcome{
		"what was there stays":      {Err: errors.New("no"), Reason: gitcmd.Network},
		"what follows has failed":   {Err: errors.New("no"), Reason: gitcmd.Exec, Changed: true},
		"msg=updated .*from=before": {Changed: true, Result: tree.Result{Previous: "before", Hash: "after"}},
	} {
		var log bytes.Buffer
		report(slog.New(slog.NewTextHandler(&log, nil)), &config.Repo{Name: "site"}, o, "poll", false)
		if !regexp.MustCompile(want).MatchString(log.String()) {
			t.Errorf("want %q: %s", want, &log)
		}
	}
}

// TestReloadAtomic: what cannot be taken in as a whole changes nothing.
func TestReloadAtomic(t *testing.T) {
	g, log := make1(t, &config.Repo{Name: "site", Path: "/hook"})
	before := g.config.Load()
	var used []config.Logging
	g.o.Logging = func(l config.Logging) error {
		if l.Output == "bad" {
			return errors.New("no such folder")
		}
		used = append(used, l)
		return nil
	}
	next := *before
	next.Repos = nil
	next.Logging.Output = "bad"
	g.o.Load = func() (*config.Config, []config.Warning, error) { return &next, nil, nil }
	if g.reload(); g.config.Load() != before || !strings.Contains(log.String(), "nothing has changed") || len(used) != 0 {
		t.Errorf("%v\n%s", used, log)
	}
	g.o.Load = func() (*config.Config, []config.Warning, error) {
		return nil, []config.Warning{{Line: 3, Text: "odd"}}, errors.Join(errors.New("one"), errors.New("two"))
	}
	if g.reload(); g.config.Load() != before || !strings.Contains(log.String(), "line 3: odd") || !strings.Contains(log.String(), "one; two") {
		t.Error(log)
	}
}
