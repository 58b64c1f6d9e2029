package after_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/gitgate/internal/after"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTouch(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trigger")
	if err := after.Touch(name); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.WriteFile(name, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	if err := after.Touch(name); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil || time.Since(info.ModTime()) > time.Minute {
		t.Errorf("%v, %v", info, err)
	}
	if text, _ := os.ReadFile(name); string(text) != "text" {
		t.Errorf("it holds %q", text)
	}
	if err := after.Touch(filepath.Join(name, "none")); err == nil {
		t.Error("no error")
	}
}

func TestCommand(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no sh
	}
	t.Setenv("GITGATE_SECRET", "hidden")
	dir := t.TempDir()
	run := func(script string, timeout time.Duration) (string, error) {
		return after.Command{Args: []string{"sh", "-c", script}, Dir: dir, Env: []string{"GITGATE_HASH=abc"}, Timeout: timeout}.Run(t.Context())
	}
	said, err := run(`echo "$GITGATE_HASH-$GITGATE_SECRET-$PWD"; echo err >&2`, time.Minute)
	if err != nil || said != "abc--"+dir+" | err" {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := run("exit 3", time.Minute); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	// What it has started ends with it.
	pid := filepath.Join(dir, "pid")
	if _, err := run("sleep 600 & echo $! >"+pid+"; wait", 3*time.Second); err == nil || !strings.Contains(err.Error(), "execTimeout") {
		t.Error(err)
	}
	number, err := os.ReadFile(pid)
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); alive(strings.TrimSpace(string(number))); {
		if time.Now().After(deadline) {
			t.Fatal("what it started is there still")
		}
		runtime.Gosched()
	}
	if _, err := (after.Command{Args: []string{filepath.Join(dir, "none")}, Timeout: time.Minute}).Run(t.Context()); err == nil {
		t.Error("no error")
	}
	if said, err := run("yes | head -c 1000000", time.Minute); err != nil || len(said) > 4096 {
		t.Errorf("%d bytes, %v", len(said), err)
	}
}

// alive reports whether a process is there, and no zombie.
func alive(pid string) bool {
	text, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && !strings.Contains(string(text), ") Z ")
}

func TestNotices(t *testing.T) {
	type sent struct{ path, body string }
	got := make(chan sent, 10)
	fail := 1
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/json" && fail > 0 {
			fail--
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if r.URL.Path == "/echo/T0SECRET0" {
			http.Error(w, "nothing at "+r.URL.String(), http.StatusNotFound)
			return
		}
		got <- sent{r.URL.Path, string(body)}
	}))
	defer server.Close()
	var log strings.Builder
	n := after.NewNotifier(slog.New(slog.NewTextHandler(&log, nil)))
	n.Tell([]string{"slack+" + server.URL + "/slack-s3cret"}, after.Notice{Event: "failure", Repo: "a<b>", Ref: "refs/heads/main", Reason: "network", Error: "x & y"})
	n.Tell([]string{"json+" + server.URL + "/json"}, after.Notice{Event: "success", Repo: "a", Hash: "0123456789abcdef", Ref: "refs/heads/main"})
	n.Tell([]string{"json+http://127.0.0.1:1/s3cret-part"}, after.Notice{Event: "success", Repo: "a"})
	n.Tell([]string{"json+" + server.URL + "/echo/T0SECRET0?key=S1GNATURE9"}, after.Notice{Event: "success", Repo: "a"})
	n.Close(context.Background())
	slack, object := <-got, <-got
	if slack.path != "/slack-s3cret" || slack.body != `{"text":"a\u0026lt;b\u0026gt; could not be brought to refs/heads/main (network): x \u0026amp; y"}` {
		t.Errorf("%+v", slack)
	}
	var notice after.Notice
	if err := json.Unmarshal([]byte(object.body), &notice); err != nil || notice.Event != "success" || notice.Hash != "0123456789abcdef" {
		t.Errorf("%+v, %v", object, err)
	}
	if strings.Count(log.String(), "could not be delivered") != 2 || strings.Contains(log.String(), "s3cret") || strings.Contains(log.String(), "S1GNATURE9") || strings.Contains(log.String(), "T0SECRET0") ||
		!strings.Contains(log.String(), "404 Not Found: nothing at /echo/…?key=…") {
		t.Error(log.String())
	}
}
