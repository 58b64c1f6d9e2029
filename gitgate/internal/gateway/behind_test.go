package gateway

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/queue"
	"example.com/converge/gitgate/internal/receive"
	"example.com/converge/pkg/webhook"
)

// TestBehind: a forge may tell of a push before the machine that is asked has it,
// so that is worth another try; but it is no failure, since an old push may have
// been replaced.
func TestBehind(t *testing.T) {
	for name, publish := range map[string]config.Publish{"in place": config.InPlace, "published": config.Symlink} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New(t)
			c := follow(t, r)
			c.Publish = publish
			g, log := make1(t, c)
			work := func(id string, last bool) bool {
				push := pushed(c, "refs/heads/master")
				push.After = id
				return g.work(t.Context(), "/hook", job{Job: receive.Job{Push: push, Deliveries: []string{"a"}}, why: "webhook"}, last)
			}
			before := r.Head()
			for range 2 {
				if work(before, false) {
					t.Fatalf("what is here is to be fetched again\n%s", log)
				}
			}
			r.Commit() // the server has got this one
			r.Write("a", "later")
			gittest.Git(t, r.Work, "commit", "--quiet", "--all", "--message", "later")
			for range 2 { // with something new, and without
				if !work(r.Head(), false) || gittest.Read(c.Directory, "a") != r.Number() {
					t.Errorf("what the server has not got is not tried again\n%s", log)
				}
			}
			if strings.Count(log.String(), "msg=updated") != 1 {
				t.Errorf("the log does not tell of what came in between\n%s", log)
			}
			if work(r.Head(), true) || g.states[c.Path].failing != "" || !strings.Contains(log.String(), "without what was pushed") {
				t.Errorf("what was replaced is a failure\n%s", log)
			}
			gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:master")
			if work(r.Head(), false) || gittest.Read(c.Directory, "a") != "later" {
				t.Errorf("what the server has is not here\n%s", log)
			}
			if work(before, false) {
				t.Errorf("an old push is to be fetched again\n%s", log)
			}
		})
	}
}

// deliveries has g take webhooks from anybody, which go to add, and returns what
// sends one of a push, the same each time, and returns the status of the answer.
func deliveries(g *gateway, add func(receive.Job)) func(after string) int {
	c := g.config.Load().Repos[0]
	c.Insecure = true
	g.receiver = receive.New(receive.Options{Config: g.config.Load, Log: g.log, Add: func(_ string, j receive.Job) bool { add(j); return true }})
	return func(after string) int {
		body := `{"ref":"` + c.Ref() + `","before":"` + strings.Repeat("0", 40) + `","after":"` + after + `","repository":{"clone_url":"` + c.URL + `"}}`
		request := httptest.NewRequest(http.MethodPost, c.Path, strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-GitHub-Event", "push")
		request.Header.Set("X-GitHub-Delivery", after)
		w := httptest.NewRecorder()
		g.receiver.ServeHTTP(w, request)
		return w.Code
	}
}

// TestNewRef: a server that lags behind does not know of a tag that was just made,
// so that is tried again; and a webhook of which nothing came may be sent again.
func TestNewRef(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r)
	c.Label, c.Tag = "v1", true
	g, log := make1(t, c)
	var j job
	send := deliveries(g, func(r receive.Job) { j = job{Job: r, why: "webhook"} })
	if g.work(t.Context(), "/hook", job{why: "poll", unasked: true}, false) {
		t.Errorf("a tag of which nobody has told is tried again\n%s", log)
	}
	work := func(last, again bool, repeated int) {
		t.Helper()
		if g.work(t.Context(), "/hook", j, last) != again {
			t.Errorf("tried again: %v\n%s", !again, log)
		}
		if code := send(j.Push.After); code != repeated {
			t.Errorf("the delivery is answered %d when it is repeated, want %d\n%s", code, repeated, log)
		}
	}
	send(r.Head())
	work(false, true, http.StatusOK)
	work(true, false, http.StatusAccepted)
	gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:refs/tags/v1")
	work(false, false, http.StatusOK)
	r.Write("a", "later")
	gittest.Git(t, r.Work, "commit", "--quiet", "--all", "--message", "later")
	send(r.Head())
	work(false, true, http.StatusOK)
	work(true, false, http.StatusAccepted)
	gittest.Git(t, r.Work, "push", "--quiet", "--force", "origin", "HEAD:refs/tags/v1")
	if work(false, false, http.StatusOK); gittest.Read(c.Directory, "a") != "later" {
		t.Errorf("what the server has is not here\n%s", log)
	}
}

// TestUndone: what comes while a job fails, or is tried again, takes nothing away
// from it: neither its deliveries, nor what was pushed.
func TestUndone(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r)
	g, log := make1(t, c)
	running, proceed, ended, over := make(chan job), make(chan bool), make(chan bool), make(chan bool)
	g.queue = queue.New(queue.Options[job]{Threads: 1, Tries: 2, Merge: merge, Run: func(ctx context.Context, path string, j job, last bool) bool {
		select {
		case running <- j:
		case <-over:
			return false
		}
		<-proceed
		again := g.work(ctx, path, j, last)
		ended <- again
		return again
	}})
	defer close(over)
	deliver := deliveries(g, func(r receive.Job) { g.queue.Add("/hook", job{Job: r, why: "webhook"}) })
	send := func(commit string) {
		t.Helper()
		if code := deliver(commit); code != http.StatusAccepted {
			t.Fatalf("a webhook is answered %d\n%s", code, log)
		}
	}
	work := func(meanwhile func(), pushed string, deliveries int, again bool) {
		t.Helper()
		j := <-running
		meanwhile()
		proceed <- true
		if got := <-ended; got != again || j.Push == nil || j.Push.After != pushed || len(j.Deliveries) != deliveries {
			t.Fatalf("tried again: %v, %+v\n%s", got, j, log)
		}
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	nothing, look := func() {}, func() { g.queue.Add("/hook", job{why: poll, unasked: true}) }
	first, second := r.Head(), r.Commit()
	move(r.Bare, r.Bare+".away")
	send(first)
	work(func() { send(second) }, first, 1, true)
	work(look, second, 2, true)
	work(nothing, second, 2, false)
	move(r.Bare+".away", r.Bare)
	send(first) // nothing has come of either
	work(func() { send(second) }, first, 1, false)
	work(nothing, second, 1, false)
	r.Write("a", "later")
	gittest.Git(t, r.Work, "commit", "--quiet", "--all", "--message", "later")
	send(r.Head()) // before the server has it
	work(look, r.Head(), 1, true)
	gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:master")
	if work(nothing, r.Head(), 1, false); gittest.Read(c.Directory, "a") != "later" {
		t.Errorf("what was pushed is not here\n%s", log)
	}
}

func TestMerge(t *testing.T) {
	first, second := &webhook.Push{Ref: "refs/heads/a"}, &webhook.Push{Ref: "refs/heads/b"}
	j, anew := merge(job{Job: receive.Job{Push: first, Deliveries: []string{"1"}}, why: "webhook"}, job{Job: receive.Job{Push: second, Deliveries: []string{"2"}}, why: "webhook"})
	if j.Push != second || len(j.Deliveries) != 2 || j.unasked || !anew {
		t.Errorf("the newest does not win: %+v", j)
	}
	if j, anew = merge(j, job{why: poll, unasked: true}); j.Push != second || j.why != "webhook" || !j.unasked || anew {
		t.Errorf("a poll makes a push forgotten, or is one: %+v", j)
	}
	for range 2000 {
		j, _ = merge(j, job{Job: receive.Job{Push: first, Deliveries: []string{"n"}}})
	}
	if len(j.Deliveries) != 1000 || !j.unasked {
		t.Errorf("%d deliveries are remembered", len(j.Deliveries))
	}
}

// TestTagIsHere: the webhook of an annotated tag names the tag's object.
func TestTagIsHere(t *testing.T) {
	r := gittest.New(t)
	gittest.Git(t, r.Work, "tag", "-a", "-m", "x", "v1")
	gittest.Git(t, r.Work, "push", "--quiet", "origin", "v1")
	c := follow(t, r)
	c.Label, c.Tag = "v1", true
	for range 2 {
		if o := Sync(t.Context(), c, gittest.Git(t, r.Work, "rev-parse", "v1"), slog.New(slog.DiscardHandler)); o.Err != nil || o.Behind || o.Hash != r.Head() {
			t.Errorf("%+v", o)
		}
	}
}
