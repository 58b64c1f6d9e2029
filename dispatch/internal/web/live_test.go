package web

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
)

// TestFollow: a page hears of every change, and both logs, to their end.
func TestFollow(t *testing.T) {
	w := open(t, true, true)
	w.write(id, build.Stdout, "before\n\x1b[31mred")
	_, body := w.ask(w.browser(), "GET", "/build?"+job, "")
	after := regexp.MustCompile(`data-events="/ci([^"]*)"`).FindStringSubmatch(body)[1]
	events, end := w.events(w.browser(), after)
	until(t, events, "head", "running", "acme/app")
	e := until(t, events, "log", `"rest":"\u003cspan class=\"f1\"\u003ered\u003c/span\u003e"`)
	if strings.Contains(e.data, "before") {
		t.Errorf("what the page has is sent again: %s", e.data)
	}
	w.write(id, build.Stdout, " still\nnext\n")
	e = until(t, events, "log", `red still\u003c/span\u003e\n\u003cspan class=\"f1\"\u003enext`)
	// The connection breaks: the next one goes on with the colours.
	end()
	events, _ = w.events(w.browser(), "/builds/"+url.PathEscape(id)+"/events", "Last-Event-ID: "+e.id)
	w.write(id, build.Stdout, "<script>\n")
	if got := until(t, events, "log", "script"); !strings.Contains(got.data, `"lines":"\u003cspan class=\"f1\"\u003e\u0026lt;script\u0026gt;\u003c/span\u003e\n"`) {
		t.Errorf("%s", got.data)
	}
	w.write(id, build.Stderr, "oops\n")
	until(t, events, "log", `"log":"stderr"`, "oops")
	w.change(func() {
		w.builds[0].State, w.builds[0].Reason = build.Failure, "exit 1, debug session open"
		w.builds[0].Debug = &build.Session{Line: "wsproxy ssh 'wss://x/y#pin'", URL: "javascript:alert(1)", Until: time.Now().Add(time.Hour)}
	})
	got := until(t, events, "head", "failure", "wsproxy ssh &#39;wss://x/y#pin&#39;")
	if strings.Contains(got.data, "javascript") {
		t.Error("a link runs something")
	}
	w.finish(build.Failure, "exit 1")
	until(t, events, "end")
	if _, ok := <-events; ok {
		t.Error("it goes on after the end")
	}
	// One that is over is told so at once.
	events, _ = w.events(w.browser(), after)
	until(t, events, "end")
	for range events {
	}
	if n := w.web.Live(); n != 0 {
		t.Errorf("%d pages follow", n)
	}
}

// TestFollowTrouble: a log that is gone ends its part, and says why.
func TestFollowTrouble(t *testing.T) {
	w := open(t, true, true)
	w.change(func() { w.gone = true })
	w.finish(build.Failure, "exit 1")
	events, _ := w.events(w.browser(), "/builds/"+id+"/events")
	until(t, events, "log", "The log is gone")
	until(t, events, "end")
}

// TestFollowEnds: signing out, losing the right, and the end of the program end a
// page that follows.
func TestFollowEnds(t *testing.T) {
	w := open(t, false, false)
	w.web.quiet = time.Millisecond
	c := w.signedIn("octo")
	events, _ := w.events(c, "/builds/"+id+"/events")
	list, _ := w.events(c, "/builds/events")
	until(t, events, "head", "running")
	until(t, list, "", "acme/app")
	_, body := w.ask(c, "GET", "/builds", "")
	if resp, _ := w.ask(c, "POST", "/signout", "csrf="+csrf(t, body)); resp.StatusCode != 303 {
		t.Fatalf("%s", resp.Status)
	}
	until(t, events, "gone")
	until(t, list, "gone")
	// A token that lets nobody in changes nothing about that.
	c = w.signedIn("octo")
	events, _ = w.events(c, "/builds/"+id+"/events", "Authorization: Bearer wrong")
	until(t, events, "head", "running")
	_, body = w.ask(c, "GET", "/builds", "")
	w.ask(c, "POST", "/signout", "csrf="+csrf(t, body))
	until(t, events, "gone")
	// The right is asked for anew.
	c = w.signedIn("guest")
	events, _ = w.events(c, "/builds/"+id+"/events")
	until(t, events, "head", "running")
	w.change(func() { delete(w.repos, w.app) })
	w.web.places.mu.Lock()
	clear(w.web.places.all)
	w.web.places.mu.Unlock()
	until(t, events, "gone")
	// The end of the program.
	c = w.signedIn("octo")
	list, _ = w.events(c, "/builds/events")
	until(t, list, "", "build")
	w.web.Close()
	for range list {
	}
	if n := w.web.Live(); n != 0 {
		t.Errorf("%d pages follow", n)
	}
	if resp, _ := w.ask(c, "GET", "/builds/events", ""); resp.StatusCode != 503 {
		t.Errorf("%s", resp.Status)
	}
}

// TestTextEnds: signing out, and another token at the hook, end a log that is
// followed as text, and not as its end does.
func TestTextEnds(t *testing.T) {
	w := open(t, false, false)
	w.web.quiet = time.Millisecond
	w.write(id, build.Stdout, "first\n")
	c := w.signedIn("octo")
	_, list := w.ask(c, "GET", "/builds", "")
	for name, test := range map[string]struct {
		header string
		lose   func()
	}{
		"signed out": {lose: func() { w.ask(c, "POST", "/signout", "csrf="+csrf(t, list)) }},
		"script":     {"Authorization: Bearer h00k", func() { w.change(func() { w.repos[w.app].HookToken = "new" }) }},
	} {
		t.Run(name, func(t *testing.T) {
			asking := w.browser()
			if test.header == "" {
				asking = c
			}
			resp := w.begin(asking, "GET", "/build?"+job+"&log=stdout", "", test.header)
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, len("first\n"))); err != nil || resp.StatusCode != 200 {
				t.Fatalf("%s, %v", resp.Status, err)
			}
			test.lose()
			if rest, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || len(rest) > 0 {
				t.Errorf("%q, %v", rest, err)
			}
		})
	}
}

// TestListFollows: a change is seen.
func TestListFollows(t *testing.T) {
	w := open(t, true, true)
	events, _ := w.events(w.browser(), "/builds/events?q=acme")
	until(t, events, "", "acme/app", "running")
	w.change(func() {
		w.builds = append([]build.Build{{ID: "builder/dispatch-9", Repo: w.app, Origin: w.app, Branch: "brand-new", State: build.Queued}}, w.builds...)
	})
	until(t, events, "", "brand-new")
	w.change(func() {
		for i := range 2 * maxShown {
			w.builds = append(w.builds, build.Build{ID: fmt.Sprint(i), Repo: w.app, Origin: w.app, State: build.Success})
		}
	})
	if e := until(t, events, "", "and older ones"); strings.Count(e.data, "<li") != maxShown {
		t.Errorf("%d are shown", strings.Count(e.data, "<li"))
	}
}

// TestApproved: the page of a build that waits has no logs, and leads on when it is
// approved.
func TestApproved(t *testing.T) {
	w := open(t, true, true)
	if _, body := w.ask(w.browser(), "GET", "/build?job="+waits, ""); strings.Contains(body, "<pre") {
		t.Errorf("%s", body)
	}
	events, _ := w.events(w.browser(), "/builds/"+waits+"/events?after=")
	until(t, events, "head", "waiting")
	if w.opened != 0 {
		t.Errorf("%d logs are open", w.opened)
	}
	w.change(func() { w.alias[waits] = id })
	until(t, events, "gone")
}

func TestMarks(t *testing.T) {
	m := marks{{12, parseMarks("0.ff_0.0")[0].style}, {34, parseMarks("x")[0].style}}
	if got := parseMarks(m.String()); got[0] != m[0] || got[1] != m[1] {
		t.Errorf("%v became %v", m, got)
	}
	for _, text := range []string{"", "_", "1", "-1.0_-5.0", "a.b_c.d", strings.Repeat("1", 200), "1.0_2.0_3.0"} {
		for _, at := range parseMarks(text) {
			if at.offset != -tail {
				t.Errorf("%q: %v", text, at)
			}
		}
	}
}

// FuzzParseMarks: whatever a browser sends, it is a place in a log.
func FuzzParseMarks(f *testing.F) {
	f.Add("12.0_34.1ff")
	f.Fuzz(func(t *testing.T, text string) {
		m := parseMarks(text)
		if len(m) != len(streams) {
			t.Fatalf("%v", m)
		}
		for _, at := range m {
			if at.offset < -tail {
				t.Errorf("%q: %v", text, m)
			}
		}
		if again := parseMarks(m.String()); m[0].offset >= 0 && m[1].offset >= 0 && (again[0] != m[0] || again[1] != m[1]) {
			t.Errorf("%v became %v", m, again)
		}
	})
}
