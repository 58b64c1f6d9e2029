//go:build unix

package web

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
)

// chromium is a browser without a window, told what to do by the DevTools protocol
// through a pipe (https://chromedevtools.github.io/devtools-protocol/).
type chromium struct {
	t       *testing.T
	in      *os.File
	session string

	mu      sync.Mutex
	last    int
	answers map[int]chan answer
	loads   chan struct{}
	errors  []string // what the page complained of
}

type answer struct {
	ID        int             `json:"id"`
	Method    string          `json:"method"`
	SessionID string          `json:"sessionId"`
	Params    json.RawMessage `json:"params"`
	Result    json.RawMessage `json:"result"`
	Error     *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// newChromium starts one with an empty page; the test's end ends it.
func newChromium(t *testing.T) *chromium {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("this test wants Debian's chromium, as scripts/deps installs it: %v", err)
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Root, as in containers, has no sandbox; what is loaded is this test's own.
	cmd := exec.Command(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"),
		"--force-color-profile=srgb", "--window-size=1200,900", "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	c := &chromium{t: t, in: in, answers: map[int]chan answer{}, loads: make(chan struct{}, 100)}
	var reading sync.WaitGroup
	reading.Go(func() { c.read(out) })
	t.Cleanup(func() {
		in.Close() // which ends it
		if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
			t.Error(err)
		}
		out.Close()
		reading.Wait()
	})
	var target struct{ TargetID, SessionID string }
	c.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	c.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	c.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log"} {
		c.call(domain+".enable", nil, nil)
	}
	return c
}

// read hands answers on, until the browser ends.
func (c *chromium) read(out *os.File) {
	messages := bufio.NewReader(out)
	for {
		text, err := messages.ReadBytes(0)
		c.mu.Lock()
		if err != nil {
			for _, waiting := range c.answers {
				close(waiting)
			}
			c.answers = nil
			c.mu.Unlock()
			return
		}
		var a answer
		if json.Unmarshal(text[:len(text)-1], &a) == nil {
			switch a.Method {
			case "":
				if waiting := c.answers[a.ID]; waiting != nil {
					waiting <- a
					delete(c.answers, a.ID)
				}
			case "Page.loadEventFired":
				select {
				case c.loads <- struct{}{}:
				default:
				}
			case "Runtime.exceptionThrown", "Log.entryAdded":
				c.errors = append(c.errors, string(a.Params))
			}
		}
		c.mu.Unlock()
	}
}

// call makes a request and decodes its result.
func (c *chromium) call(method string, params map[string]any, result any) {
	c.t.Helper()
	c.mu.Lock()
	c.last++
	id := c.last
	waiting := make(chan answer, 1)
	if c.answers == nil {
		c.mu.Unlock()
		c.t.Fatal("the browser has ended")
	}
	c.answers[id] = waiting
	c.mu.Unlock()
	request := map[string]any{"id": id, "method": method}
	if params != nil {
		request["params"] = params
	}
	if c.session != "" {
		request["sessionId"] = c.session
	}
	text, err := json.Marshal(request)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(text, 0)); err != nil {
		c.t.Fatal(err)
	}
	select {
	case a, ok := <-waiting:
		if !ok || a.Error != nil {
			c.t.Fatalf("%s: %+v", method, a.Error)
		}
		if result != nil {
			if err := json.Unmarshal(a.Result, result); err != nil {
				c.t.Fatal(err)
			}
		}
	case <-time.After(2 * time.Minute):
		c.t.Fatalf("%s: the browser does not answer", method)
	}
}

// load makes something happen that loads a page, and waits for it.
func (c *chromium) load(happen func()) {
	c.t.Helper()
	for len(c.loads) > 0 {
		<-c.loads
	}
	happen()
	select {
	case <-c.loads:
	case <-time.After(2 * time.Minute):
		c.t.Fatal("no page was loaded")
	}
}

func (c *chromium) visit(address string) {
	c.t.Helper()
	c.load(func() { c.call("Page.navigate", map[string]any{"url": address}, nil) })
}

// eval returns what an expression is, or what its promise becomes, as text.
func (c *chromium) eval(expression string) string {
	c.t.Helper()
	var said struct {
		Result           struct{ Value any }
		ExceptionDetails json.RawMessage
	}
	c.call("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &said)
	if said.ExceptionDetails != nil {
		c.t.Fatalf("%s: %s", expression, said.ExceptionDetails)
	}
	return fmt.Sprint(said.Result.Value)
}

// wait waits until an expression is true, which is asked at every change of the
// page.
func (c *chromium) wait(expression string) {
	c.t.Helper()
	c.eval(`new Promise((done) => {
		const watch = new MutationObserver(look);
		function look() { if (` + expression + `) { watch.disconnect(); done(true); } }
		watch.observe(document, {subtree: true, childList: true, characterData: true, attributes: true});
		look();
	})`)
}

// picture keeps what the page looks like, where go test -artifacts keeps such.
func (c *chromium) picture(name string) {
	c.t.Helper()
	var shot struct{ Data string }
	c.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	text, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(c.t.ArtifactDir(), name+".png"), text, 0o600)
	}
	if err != nil || len(text) < 1000 {
		c.t.Errorf("%d bytes, %v", len(text), err)
	}
}

// TestBrowser is the story of a red build as a person sees it in a real browser.
func TestBrowser(t *testing.T) {
	w := open(t, false, false)
	w.web.tick = refresh
	w.write(id, build.Stdout, "$ make test\n\x1b[1;32m✓\x1b[0m 41 tests passed\n\x1b[31m✗ one failed\x1b[0m: <script>window.pwned = 1</script>\n")
	w.write(id, build.Stderr, "\x1b[33mwarning:\x1b[0m <img src=x onerror='window.pwned = 2'>\n")
	c := newChromium(t)

	// A stranger is asked to sign in, and comes back to where he wanted to go.
	c.visit(w.URL + "/ci/build?" + job)
	if said := c.eval(`document.body.innerText`); !strings.Contains(said, "Sign in") || strings.Contains(said, "acme") {
		t.Fatalf("a stranger sees\n%s", said)
	}
	c.picture("door")
	c.load(func() { c.eval(`document.querySelector("a.button").click()`) })
	c.wait(`document.getElementById("state").textContent === "live"`)
	if said := c.eval(`location.pathname + location.search + " " + document.querySelector(".out b").textContent`); said != "/ci/build?"+job+" octo" {
		t.Fatalf("it is at %s", said)
	}

	// Logs grow, with their colours, and nothing in them runs.
	w.write(id, build.Stdout, "\x1b[36mmore\x1b[0m of it\n\x1b[2K50%\r100% <b>done</b>")
	c.wait(`document.querySelector("[data-log=stdout] .rest").textContent === "100% <b>done</b>"`)
	for expression, want := range map[string]string{
		`getComputedStyle([...document.querySelectorAll(".log span")].find((s) => s.className === "f1")).color`:         "rgb(180, 35, 24)",
		`getComputedStyle([...document.querySelectorAll(".log span")].find((s) => s.className === "f6")).color`:         "rgb(11, 106, 117)",
		`getComputedStyle([...document.querySelectorAll(".log span")].find((s) => s.className === "f2 bo")).fontWeight`: "700",
		`String(window.pwned) + document.querySelectorAll(".log script, .log img, .log b").length`:                      "undefined0",
		`document.querySelector("[data-log=stdout] .log").innerText.split("\n").length`:                                 "5",
	} {
		if got := c.eval(expression); got != want {
			t.Errorf("%s is %s, want %s", expression, got, want)
		}
	}
	c.picture("running")

	// It fails, and a shell opens in it.
	w.change(func() {
		w.builds[0].State, w.builds[0].Reason, w.builds[0].Exit = build.Failure, "exit 1, debug session open until 14:30", 1
		w.builds[0].Debug = &build.Session{Line: "wsproxy ssh 'wss://relay.example/client/x#pin'", Until: time.Now().Add(time.Hour)}
	})
	c.wait(`document.querySelector(".session .line") !== null`)
	if got := c.eval(`document.title + " " + document.querySelector(".session .line").textContent`); got != "failure · acme/app · Converge wsproxy ssh 'wss://relay.example/client/x#pin'" {
		t.Errorf("%s", got)
	}
	c.picture("failed")

	// The trusted end it.
	c.load(func() { c.eval(`document.querySelector("form[action$='/cancel'] button").click()`) })
	if did := w.done(); !slices.Contains(did, "cancel "+id+" by octo") {
		t.Errorf("%v", did)
	}
	c.wait(`document.getElementById("state").textContent === "live"`)
	w.finish(build.Failure, "cancelled")
	c.wait(`document.getElementById("state").textContent === "this build is over"`)

	// The list follows, too.
	c.visit(w.URL + "/ci/builds")
	c.wait(`document.getElementById("state").textContent === "live"`)
	w.change(func() {
		w.builds = append([]build.Build{{ID: "builder/dispatch-9", Repo: w.app, Origin: w.app, Commit: sha, Branch: "brand-new", Flavor: "default", State: build.Queued}}, w.builds...)
	})
	c.wait(`document.querySelector(".builds").textContent.includes("brand-new")`)
	c.picture("list")
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": "dark"}}}, nil)
	c.picture("list-dark")

	// Without scripts the page has it all at loading.
	c.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	c.visit(w.URL + "/ci/build?" + job)
	if said := c.eval(`document.body.innerText`); !strings.Contains(said, "as of the loading of this page") || !strings.Contains(said, "100% <b>done</b>") || !strings.Contains(said, "Run again") {
		t.Errorf("without scripts it is\n%s", said)
	}
	c.picture("no-scripts")

	c.mu.Lock()
	defer c.mu.Unlock()
	for _, text := range c.errors {
		if !strings.Contains(text, "401") { // that the stranger was no one is no mistake
			t.Errorf("the page complained: %s", text)
		}
	}
}
