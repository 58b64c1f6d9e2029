package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/html"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/dispatch/internal/settings"
)

var job = "job=" + url.QueryEscape(id)

// TestAnswers: what is asked wrongly has a clear answer, and what is asked well
// has the headers of every page.
func TestAnswers(t *testing.T) {
	w := open(t, true, true)
	w.write(id, build.Stdout, "out\n")
	w.write(secret, build.Stdout, "done\n")
	w.change(func() { w.ended[secret+" stdout"] = true })
	c := w.browser()
	for _, test := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/", 303, ""},
		{"GET", "/builds", 200, "acme/app"},
		{"HEAD", "/builds", 200, ""},
		{"GET", "/build?" + job, 200, "out"},
		{"GET", "/build?job=" + url.QueryEscape(secret) + "&log=stdout", 200, "done\n"},
		{"HEAD", "/build?" + job + "&log=stdout", 200, ""},
		{"GET", "/build?" + job + "&log=stdout&follow=0", 200, "out\n"},
		{"GET", "/builds/" + id, 303, ""},
		{"GET", "/assets/style.css", 200, ".log .f1{"},
		{"GET", "/assets/live.js", 200, "EventSource"}, {"GET", "/assets/build.js", 200, "follow"}, {"GET", "/assets/builds.js", 200, "follow"},
		{"GET", "/build", 400, "which build"},
		{"GET", "/build?log=stdout", 400, "which build"},
		{"GET", "/build?" + job + "&log=stdin", 400, "stdout or stderr"},
		{"GET", "/build?" + job + "&log=", 400, "stdout or stderr"},
		{"GET", "/build?job=none", 404, "no such build"},
		{"GET", "/build?job=none&log=stdout", 404, "no such build"},
		{"GET", "/build?job=" + strings.Repeat("x", maxID+1), 404, "no such build"},
		{"GET", "/builds/none/events", 404, "no such build"},
		{"POST", "/build?" + job, 405, "use GET"},
		{"POST", "/builds", 405, "use GET"},
		{"GET", "/builds/" + id + "/cancel", 405, "use POST"},
		{"GET", "/builds/" + id + "/debug", 405, "use POST"},
		{"POST", "/builds/" + id + "/cancel", 403, "dispatch cancel ID"},
		{"GET", "/none", 404, "nothing at this address"},
		{"GET", "/signin", 404, "nothing"},
		{"POST", "/signout", 404, "nothing"},
		{"GET", "/assets/", 404, "nothing"},
		{"GET", "/assets/none", 404, "nothing"},
	} {
		resp, body := w.ask(c, test.method, test.path, "")
		if resp.StatusCode != test.status || !strings.Contains(body, test.want) {
			t.Errorf("%s %s: %s\n%s", test.method, test.path, resp.Status, body)
		}
		h := resp.Header
		if h.Get("Content-Security-Policy") != policy || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s: %v", test.path, h)
		}
		if test.status == 405 && h.Get("Allow") == "" {
			t.Errorf("%s: no Allow", test.path)
		}
		if test.status == 303 && !strings.HasPrefix(h.Get("Location"), "/ci/build") {
			t.Errorf("%s leads to %s", test.path, h.Get("Location"))
		}
	}
	for _, word := range []string{"unsafe", "*", "data:", "http:"} {
		if strings.Contains(policy, word) {
			t.Errorf("the policy permits %s", word)
		}
	}
	// A proxy may take the path of the public URL away.
	resp, err := c.Get(w.URL + "/taken/away/build?" + job)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if resp.Body.Close(); err != nil || resp.StatusCode != 200 || !strings.Contains(string(text), `href="/ci/builds"`) {
		t.Errorf("%s %v", resp.Status, err)
	}
	// A program has no use for a page.
	if resp, body := w.ask(c, "GET", "/build?job=none", "", "Accept: */*"); resp.StatusCode != 404 || strings.Contains(body, "<") {
		t.Errorf("%s %s", resp.Status, body)
	}
	// A file that is there already is not sent again.
	resp, _ = w.ask(c, "GET", "/assets/style.css", "")
	if again, _ := w.ask(c, "GET", "/assets/style.css", "", "If-None-Match: "+resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("%s", again.Status)
	}
	w.change(func() { w.away = true })
	for _, path := range []string{"/builds", "/build?" + job, "/build?" + job + "&log=stdout"} {
		if resp, body := w.ask(c, "GET", path, ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "try again") {
			t.Errorf("%s: %s %s", path, resp.Status, body)
		}
	}
	w.change(func() { w.away, w.gone = false, true })
	if resp, _ := w.ask(c, "GET", "/build?"+job+"&log=stdout", ""); resp.StatusCode != http.StatusGone {
		t.Errorf("%s", resp.Status)
	}
	if resp, body := w.ask(c, "GET", "/build?"+job, ""); resp.StatusCode != 200 || !strings.Contains(body, "The log is gone") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if w.opened != 0 {
		t.Errorf("%d logs are open", w.opened)
	}
}

// TestPlain: a log as text arrives as it grows, and ends when it does.
func TestPlain(t *testing.T) {
	w := open(t, true, true)
	resp := w.begin(w.browser(), "GET", "/build?"+job+"&log=stdout", "")
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("%s", got)
	}
	lines := bufio.NewReader(resp.Body)
	for _, text := range []string{"first\n", "\x1b[31m<b>second</b>\n", "\xff\x00\n"} {
		w.write(id, build.Stdout, text)
		if got, err := lines.ReadString('\n'); err != nil || got != text {
			t.Fatalf("%q, %v, want %q", got, err, text)
		}
	}
	w.finish(build.Success, "")
	if rest, err := io.ReadAll(lines); err != nil || len(rest) != 0 {
		t.Errorf("%q, %v", rest, err)
	}
	// One that breaks off does not look as if it had ended.
	w.change(func() { clear(w.ended) })
	cut := w.begin(w.browser(), "GET", "/build?"+job+"&log=stdout", "")
	defer cut.Body.Close()
	w.web.Close()
	if _, err := io.ReadAll(cut.Body); err == nil {
		t.Error("it seems to have ended")
	}
	if resp, _ := w.ask(w.browser(), "GET", "/build?"+job+"&log=stdout", ""); resp.StatusCode != 503 {
		t.Errorf("after the end: %s", resp.Status)
	}
}

// TestPage: everything that is known is shown, and nothing is markup that did not
// come from here.
func TestPage(t *testing.T) {
	w := open(t, true, true)
	w.write(id, build.Stdout, "\x1b[32mok\x1b[0m <script>alert(1)</script>\n\x1b]8;;javascript:alert(2)\x07click\x1b]8;;\x07")
	w.write(id, build.Stderr, "<img src=x onerror=alert(3)>\n")
	_, body := w.ask(w.browser(), "GET", "/build?"+job, "")
	for _, want := range []string{
		`<span class="badge">running</span>`, ">acme/app</a>", "main", sha[:10], "/acme/app/commit/" + sha, "by <b>octo</b>", "with the repository&#39;s secrets", "a110c",
		`<span class="f2">ok</span> &lt;script&gt;alert(1)&lt;/script&gt;`, "click</span>", "&lt;img src=x onerror=alert(3)&gt;",
		`<noscript><meta http-equiv="refresh" content="5"></noscript>`, "dispatch cancel", "as text",
	} {
		if !strings.Contains(strings.ReplaceAll(body, "with the repository's", "with the repository&#39;s"), want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	harmless(t, body)
	_, body = w.ask(w.browser(), "GET", "/build?job="+waits, "")
	for _, want := range []string{"&lt;script&gt;alert(1)", "eve?[2J", "pull request <a", "/acme/app/pulls/12", "from the fork https://fork.example/eve/app.git", "without secrets", "dispatch approve"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	harmless(t, body)
	_, body = w.ask(w.browser(), "GET", "/builds", "")
	harmless(t, body)
	for _, want := range []string{"<b>3</b> builds, <b>1</b> running, <b>1</b> waiting", "exit 3", "took 1 min 15 s", "&lt;script&gt;"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	_, body = w.ask(w.browser(), "GET", "/builds?q=HUSH", "")
	if !strings.Contains(body, "acme/secret") || strings.Contains(body, "acme/app") {
		t.Error("the filter does not filter")
	}
	_, body = w.ask(w.browser(), "GET", "/builds?q=%3Cscript%3E%22", "")
	if harmless(t, body); !strings.Contains(body, "No build") {
		t.Error("the filter finds something")
	}
}

// harmless wants a page to run nothing and to load nothing but ours.
func harmless(t *testing.T, page string) {
	t.Helper()
	z := html.NewTokenizer(strings.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			switch token.Data {
			case "img", "iframe", "object", "embed", "svg", "style", "base":
				t.Errorf("there is %v", token)
			}
			for _, a := range token.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" || (a.Key == "href" || a.Key == "src" || a.Key == "action") && !regexp.MustCompile(`^(/ci/|http://127\.)`).MatchString(a.Val) {
					t.Errorf("there is %v", token)
				}
				if a.Key == "src" && token.Data == "script" && !strings.HasPrefix(a.Val, "/ci/assets/") {
					t.Errorf("there is %v", token)
				}
			}
			if token.Data == "script" && (len(token.Attr) == 0 || z.Next() != html.EndTagToken) {
				t.Errorf("a script is in the page: %v", token)
			}
		}
	}
}

// TestTail: of a long log a page shows the end, from a line's beginning.
func TestTail(t *testing.T) {
	w := open(t, true, true)
	for i := range 3 * tail / 16 {
		w.logs[id+" stdout"] = fmt.Appendf(w.logs[id+" stdout"], "line %010d\n", i)
	}
	_, body := w.ask(w.browser(), "GET", "/build?"+job, "")
	first := regexp.MustCompile(`<span class="done">(line \d{10})\n`).FindStringSubmatch(body)
	if first == nil || !strings.Contains(body, "There is more before this") || !strings.Contains(body, fmt.Sprintf("line %010d\n</span>", 3*tail/16-1)) || len(body) > 2*tail {
		t.Errorf("%d bytes, beginning with %v", len(body), first)
	}
	// What follows goes on where the page ended.
	after := regexp.MustCompile(`data-events="/ci([^"]*)"`).FindStringSubmatch(body)[1]
	events, _ := w.events(w.browser(), after)
	w.write(id, build.Stdout, "more\n")
	if e := until(t, events, "log", "stdout"); !strings.Contains(e.data, `"lines":"more\n"`) || strings.Contains(e.data, "anew") {
		t.Errorf("%+v", e)
	}
}

func TestLimits(t *testing.T) {
	w := open(t, true, true)
	for range maxLive {
		if !w.web.enter() {
			t.Fatal("there is no place")
		}
	}
	for _, path := range []string{"/builds/events", "/builds/" + id + "/events"} {
		if resp, _ := w.ask(w.browser(), "GET", path, ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s: one too many: %s", path, resp.Status)
		}
	}
	for range maxLive {
		w.web.leave()
	}
	for range maxPlain {
		w.web.plain <- struct{}{}
	}
	if resp, _ := w.ask(w.browser(), "GET", "/build?"+job+"&log=stdout", ""); resp.StatusCode != 503 {
		t.Errorf("one too many: %s", resp.Status)
	}
}

// TestAlias: the id of a build that waited leads to what it has become.
func TestAlias(t *testing.T) {
	w := open(t, true, true)
	w.change(func() { w.alias["wait-old"] = id })
	resp, _ := w.ask(w.browser(), "GET", "/build?job=wait-old&log=stderr", "")
	if got := resp.Header.Get("Location"); resp.StatusCode != 303 || got != "/ci/build?"+job+"&log=stderr" {
		t.Errorf("%s %s", resp.Status, got)
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0 s", 70 * time.Second: "1 min 10 s", 60 * time.Minute: "1 h 00 min", -time.Hour: "0 s"} {
		if got := exactSpan(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	for text, want := range map[string]string{"https://u:p@x/y": "https://x/y", "git@x:y": "git@x:y", "https://x/y": "https://x/y"} {
		if got := bare(text); got != want {
			t.Errorf("%q is %q", text, got)
		}
	}
	for text, want := range map[string]string{"https://x/y": "https://x/y", "javascript:alert(1)": "", "https:": "", "": "", "//x": ""} {
		if got := webAddress(text); got != want {
			t.Errorf("%q is %q", text, got)
		}
	}
}

func TestFail(t *testing.T) {
	w := open(t, true, true)
	for err, want := range map[error]int{
		build.ErrUnknown: 404, build.ErrGone: 410, build.ErrRefused: 403, build.ErrState: 409, build.ErrToken: 401, build.ErrAway: 503, repos.ErrAway: 503,
		fmt.Errorf("at 10.0.0.7: %w", build.ErrAway): 503, errors.New("the disk 10.0.0.7 is full"): 500,
	} {
		rec := httptest.NewRecorder()
		w.web.fail(rec, httptest.NewRequest("GET", "/x", nil), err)
		if rec.Code != want || strings.Contains(rec.Body.String(), "10.0.0.7") {
			t.Errorf("%v: %d %s", err, rec.Code, rec.Body)
		}
	}
	if _, err := New(Options{Settings: &settings.Settings{SignIn: settings.SignIn{Kind: "x"}}}); err == nil {
		t.Error("any sign-in does")
	}
}

// noted notes the order of what is done with an answer.
type noted struct {
	*httptest.ResponseRecorder
	mu    sync.Mutex
	order []string
}

func (n *noted) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order = append(n.order, what)
}

func (n *noted) SetWriteDeadline(time.Time) error { n.note("deadline"); return nil }
func (n *noted) FlushError() error                { n.note("flush"); return nil }
func (n *noted) Write(p []byte) (int, error) {
	n.note("write")
	return n.ResponseRecorder.Write(p)
}
func (n *noted) WriteString(s string) (int, error) { return n.Write([]byte(s)) }

// TestLastDeadline: the end of an answer that lasted has a time of its own: that
// of the last line may have passed.
func TestLastDeadline(t *testing.T) {
	w := open(t, true, true)
	w.write(id, build.Stdout, "a line\n")
	w.finish(build.Failure, "exit 2")
	for _, path := range []string{"/build?" + job + "&log=stdout", "/builds/" + id + "/events"} {
		n := &noted{ResponseRecorder: httptest.NewRecorder()}
		w.web.ServeHTTP(n, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if n.Code != http.StatusOK || !strings.Contains(n.Body.String(), "a line") || n.order[len(n.order)-1] != "deadline" {
			t.Errorf("%s: %d %q, %q", path, n.Code, n.Body, n.order)
		}
	}
}

// hung is an answer that nobody reads.
type hung struct {
	*httptest.ResponseRecorder
	began, end chan struct{}
}

func (h *hung) Write(p []byte) (int, error) {
	h.began <- struct{}{}
	<-h.end
	return h.ResponseRecorder.Write(p)
}

// TestSlowReaders: those who do not read their pages keep nobody else from his.
func TestSlowReaders(t *testing.T) {
	w := open(t, true, true)
	began, end := make(chan struct{}), make(chan struct{})
	var slow sync.WaitGroup
	for i := range maxPages {
		path := []string{"/builds", "/build?" + job}[i%2]
		slow.Go(func() {
			w.web.ServeHTTP(&hung{httptest.NewRecorder(), began, end}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		})
		<-began
	}
	for _, path := range []string{"/builds", "/build?" + job} {
		n := httptest.NewRecorder()
		w.web.ServeHTTP(n, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if n.Code != http.StatusOK {
			t.Errorf("%s: %d", path, n.Code)
		}
	}
	for range maxSending - maxPages {
		w.web.sending <- struct{}{}
	}
	n := httptest.NewRecorder()
	w.web.ServeHTTP(n, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/builds", nil))
	if n.Code != http.StatusServiceUnavailable || n.Header().Get("Retry-After") == "" {
		t.Errorf("one too many: %d", n.Code)
	}
	close(end)
	slow.Wait()
}
