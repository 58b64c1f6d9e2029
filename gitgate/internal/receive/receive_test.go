package receive_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/receive"
	"example.com/converge/pkg/webhook"
)

const (
	secret = "s3cret"
	id     = "bffeb74224043ba2feb48d137756c8a9331c449a"
	zeros  = "0000000000000000000000000000000000000000"
)

// gate is a receiver with what it handed on.
type gate struct {
	*receive.Receiver
	jobs   []receive.Job
	ending bool
	config *config.Config
	log    bytes.Buffer
}

func newGate(t *testing.T, change func(*config.Config)) *gate {
	t.Helper()
	text := `max_body: 4096
repos:
- {url: "git@h.example:group/project.git", path: /hook, directory: /srv/a, secret: s3cret, label: main, labelType: branch}
- {url: "https://h.example/group/project", path: /tag, directory: /srv/b, secret: s3cret, label: main, labelType: tag}
- {url: "https://h.example/other", path: /open, directory: /srv/c, insecure: true, label: main, labelType: branch}
`
	c, _, err := config.Parse([]byte(text), "config.yaml", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(c)
	}
	g := &gate{config: c}
	g.Receiver = receive.New(receive.Options{
		Config: func() *config.Config { return g.config },
		Add: func(path string, j receive.Job) bool {
			if !g.ending {
				g.jobs = append(g.jobs, j)
			}
			return !g.ending
		},
		Log: slog.New(slog.NewTextHandler(&g.log, nil)),
	})
	return g
}

func push(ref, after, url string) string {
	return fmt.Sprintf(`{"ref":%q,"before":%q,"after":%q,"repository":{"clone_url":%q}}`, ref, id, after, url)
}

const url = "https://h.example/Group/Project.git"

// send sends a body with headers, name and value by turns.
func (g *gate) send(method, path, body string, pairs ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(pairs); i += 2 {
		r.Header.Set(pairs[i], pairs[i+1])
	}
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	return w
}

func sign(key, body string) string {
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(body))
	return hex.EncodeToString(mac.Sum(nil))
}

var deliveries int

// github sends it as GitHub does.
func (g *gate) github(path, event, body string) *httptest.ResponseRecorder {
	deliveries++
	return g.send("POST", path, body, "X-GitHub-Event", event, "X-GitHub-Delivery", fmt.Sprint(deliveries), "X-Hub-Signature-256", "sha256="+sign(secret, body))
}

func TestStatuses(t *testing.T) {
	good := push("refs/heads/main", id, url)
	oldSum := hmac.New(sha1.New, []byte(secret))
	oldSum.Write([]byte(good))
	old := hex.EncodeToString(oldSum.Sum(nil))
	for name, test := range map[string]struct {
		do   func(*gate) *httptest.ResponseRecorder
		code int
		jobs int
	}{
		"push":        {func(g *gate) *httptest.ResponseRecorder { return g.github("/hook", "push", good) }, 202, 1},
		"slash":       {func(g *gate) *httptest.ResponseRecorder { return g.github("/hook/", "push", good) }, 202, 1},
		"ping":        {func(g *gate) *httptest.ResponseRecorder { return g.github("/hook", "ping", `{"zen":""}`) }, 200, 0},
		"other event": {func(g *gate) *httptest.ResponseRecorder { return g.github("/hook", "issues", `{}`) }, 200, 0},
		"other branch": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/hook", "push", push("refs/heads/main2", id, url))
		}, 200, 0},
		"a tag of the branch's name": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/hook", "push", push("refs/tags/main", id, url))
		}, 200, 0},
		"a branch of the tag's name": {func(g *gate) *httptest.ResponseRecorder { return g.github("/tag", "push", good) }, 200, 0},
		"tag": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/tag", "push", push("refs/tags/main", id, url))
		}, 202, 1},
		"deletion": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/hook", "push", push("refs/heads/main", zeros, url))
		}, 200, 0},
		"another repository": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/hook", "push", push("refs/heads/main", id, "https://h.example/group/project2"))
		}, 400, 0},
		"unknown path": {func(g *gate) *httptest.ResponseRecorder { return g.github("/hook2", "push", good) }, 404, 0},
		"GET":          {func(g *gate) *httptest.ResponseRecorder { return g.send("GET", "/hook", "") }, 405, 0},
		"nobody's":     {func(g *gate) *httptest.ResponseRecorder { return g.send("POST", "/hook", good) }, 400, 0},
		"unsigned": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-GitHub-Event", "push")
		}, 401, 0},
		"signed with nothing": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256="+sign("", good))
		}, 401, 0},
		"sha1": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+old)
		}, 401, 0},
		"sha1 allowed": {func(g *gate) *httptest.ResponseRecorder {
			g.config.Repos[0].AllowSHA1 = true
			return g.send("POST", "/hook", good, "X-GitHub-Event", "push", "X-Hub-Signature", "sha1="+old)
		}, 202, 1},
		"unsigned ping": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-GitHub-Event", "ping")
		}, 401, 0},
		"gitea": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-Gitea-Event", "push", "X-Gitea-Delivery", "1", "X-Gitea-Signature", sign(secret, good))
		}, 202, 1},
		"forgejo": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/hook", good, "X-Forgejo-Event", "push", "X-Forgejo-Signature", sign(secret, good))
		}, 202, 1},
		"gitlab": {func(g *gate) *httptest.ResponseRecorder {
			body := fmt.Sprintf(`{"object_kind":"push","ref":"refs/heads/main","before":%q,"after":%q,"project":{"git_ssh_url":"git@h.example:group/project.git"}}`, id, id)
			return g.send("POST", "/hook", body, "X-Gitlab-Event", "Push Hook", "X-Gitlab-Token", secret)
		}, 202, 1},
		"insecure": {func(g *gate) *httptest.ResponseRecorder {
			return g.send("POST", "/open", push("refs/heads/main", id, "https://h.example/other"), "X-GitHub-Event", "push")
		}, 202, 1},
		"too large": {func(g *gate) *httptest.ResponseRecorder {
			return g.github("/hook", "push", good+strings.Repeat(" ", 5000))
		}, 413, 0},
		"too large, of unknown length": {func(g *gate) *httptest.ResponseRecorder {
			r := httptest.NewRequest("POST", "/hook", io.MultiReader(strings.NewReader(good), strings.NewReader(strings.Repeat(" ", 5000))))
			r.ContentLength = -1
			r.Header.Set("X-GitHub-Event", "push")
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			return w
		}, 413, 0},
		"ending": {func(g *gate) *httptest.ResponseRecorder { g.ending = true; return g.github("/hook", "push", good) }, 503, 0},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGate(t, nil)
			w := test.do(g)
			if w.Code != test.code || len(g.jobs) != test.jobs {
				t.Errorf("%d %s, %d jobs", w.Code, w.Body, len(g.jobs))
			}
			if strings.Contains(w.Body.String()+g.log.String(), secret) || w.Body.Len() == 0 {
				t.Errorf("%s\n%s", w.Body, &g.log)
			}
			if test.jobs > 0 && (g.jobs[0].Push == nil || g.jobs[0].Push.After != id) {
				t.Errorf("%+v", g.jobs)
			}
			if (w.Code == 503) != (w.Header().Get("Retry-After") != "") || (w.Code == 405) != (w.Header().Get("Allow") == "POST") {
				t.Errorf("%v", w.Header())
			}
		})
	}
}

// TestCrafted: JSON that is crafted crashes nothing.
func TestCrafted(t *testing.T) {
	g := newGate(t, nil)
	for _, body := range []string{``, `null`, `[]`, `{}`, `{"ref":1}`, `{"repository":null}`, `{"ref":"refs/heads/main"}`, strings.Repeat("[", 4000), `{"repository":{"clone_url":{}}}`} {
		if w := g.github("/hook", "push", body); w.Code != 400 {
			t.Errorf("%.40q: %d %s", body, w.Code, w.Body)
		}
	}
	if len(g.jobs) != 0 {
		t.Error(g.jobs)
	}
}

// TestReplay: a delivery counts once, unless nothing came of it.
func TestReplay(t *testing.T) {
	g := newGate(t, nil)
	body := push("refs/heads/main", id, url)
	send := func(delivery string, want int) {
		t.Helper()
		pairs := []string{"X-GitHub-Event", "push", "X-Hub-Signature-256", "sha256=" + sign(secret, body)}
		if delivery != "" {
			pairs = append(pairs, "X-GitHub-Delivery", delivery)
		}
		if w := g.send("POST", "/hook", body, pairs...); w.Code != want {
			t.Errorf("%q: %d %s", delivery, w.Code, w.Body)
		}
	}
	send("a", 202)
	send("a", 200)
	send("b", 202)
	send("", 202)
	send("", 200)
	g.Forget(g.jobs[0].Deliveries)
	send("a", 202)
	send("b", 200)
	g.ending = true
	send("c", 503)
	g.ending = false
	send("c", 202)
	if len(g.jobs) != 5 {
		t.Errorf("%d jobs", len(g.jobs))
	}
}

// TestTooMany: who is refused again and again is told to wait, and what is signed
// is taken all the same.
func TestTooMany(t *testing.T) {
	g := newGate(t, nil)
	codes := map[int]int{}
	for range 100 {
		codes[g.send("POST", "/hook", "{}", "X-GitHub-Event", "push").Code]++
	}
	if codes[401] != 30 || codes[429] != 70 {
		t.Errorf("%v", codes)
	}
	if w := g.github("/hook", "push", push("refs/heads/main", id, url)); w.Code != 202 {
		t.Errorf("%d", w.Code)
	}
}

// TestMemory: what strangers promise to send costs nothing, and what they do send
// is bounded for all of them together.
func TestMemory(t *testing.T) {
	g := newGate(t, func(c *config.Config) { c.MaxBody = webhook.MaxBody })
	var wait sync.WaitGroup
	defer wait.Wait()
	begin := func() (*io.PipeWriter, <-chan int) {
		body, in := io.Pipe()
		code := make(chan int, 1)
		wait.Go(func() {
			r := httptest.NewRequest("POST", "/hook", body)
			r.ContentLength = webhook.MaxBody
			r.Header.Set("X-GitHub-Event", "push")
			w := httptest.NewRecorder()
			g.ServeHTTP(w, r)
			_ = body.Close()
			code <- w.Code
		})
		return in, code
	}
	for range 100 {
		in, _ := begin()
		if _, err := in.Write([]byte("{")); err != nil {
			t.Fatal(err)
		}
		defer in.Close()
	}
	send := func(want int) {
		t.Helper()
		if w := g.github("/hook", "push", push("refs/heads/main", id, url)); w.Code != want {
			t.Errorf("answered %d, want %d", w.Code, want)
		}
	}
	send(202)
	large := make([]byte, 21<<20)
	var ends []*io.PipeWriter
	var last <-chan int
	for i := range 4 { // the last has no room
		in, code := begin()
		if _, err := in.Write(large); (err == nil) != (i < 3) {
			t.Errorf("%d: %v", i, err)
		}
		ends, last = append(ends, in), code
	}
	if code := <-last; code != 503 {
		t.Errorf("answered %d", code)
	}
	for _, in := range ends {
		_ = in.Close()
	}
	send(202)
}

func TestPayloadURL(t *testing.T) {
	g := newGate(t, func(c *config.Config) {
		other, err := webhook.ParseRemote("https://mirror.example/x")
		if err != nil {
			t.Fatal(err)
		}
		c.Repos[0].Others = []webhook.Remote{other}
	})
	if w := g.github("/hook", "push", push("refs/heads/main", id, "https://mirror.example/x.git")); w.Code != http.StatusAccepted {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
