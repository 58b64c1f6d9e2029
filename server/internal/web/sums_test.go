package web

import (
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestSums(t *testing.T) {
	dir := makeFolder(t, programs)
	h := newHandler(t, Config{Downloads: dir})
	res := request(h, "GET", "/docs/SHA256SUMS")
	text := body(t, res)
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || res.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("status %d, header %v", res.StatusCode, res.Header)
	}
	want := ""
	for _, name := range []string{"agent-linux-amd64", "agent-linux-armv7", "agent-darwin-arm64", "agent-windows-amd64.exe", "wsproxy-linux-amd64", "wsproxy-windows-amd64.exe"} {
		want += sumOf(programs[name]) + "  " + name + "\n"
	}
	if text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	if again := request(h, "GET", "/docs/SHA256SUMS", "If-None-Match", res.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("revalidation: status %d, want 304", again.StatusCode)
	}
	if runtime.GOOS != "linux" {
		return
	}
	check := func() (string, error) {
		cmd := exec.Command("sha256sum", "-c", "--ignore-missing")
		cmd.Dir, cmd.Stdin = dir, strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, out)
	}
	writeFile(t, filepath.Join(dir, "agent-linux-amd64"), "forged")
	if out, err := check(); err == nil {
		t.Errorf("sha256sum took a forged file:\n%s", out)
	}
}

// Two writes within the granularity of the file system's clock leave the same
// size and time behind; the bubble's clock stands still between them.
func TestSumsOfFileJustWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		h := newHandler(t, Config{Downloads: dir})
		file, now := filepath.Join(dir, "agent-linux-amd64"), time.Now()
		for _, content := range []string{"one", "two"} {
			if err := errors.Join(os.WriteFile(file, []byte(content), 0o644), os.Chtimes(file, now, now)); err != nil {
				t.Fatal(err)
			}
			if got, want := body(t, request(h, "GET", "/docs/SHA256SUMS")), sumOf(content)+"  agent-linux-amd64\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// gate is a hash that says when it is being computed and waits to be let on.
type gate struct {
	hash.Hash
	entered chan<- struct{}
	leave   <-chan struct{}
	once    *sync.Once
	running *atomic.Int32
}

func (g gate) Sum(b []byte) []byte {
	g.running.Add(-1)
	return g.Hash.Sum(b)
}

func (g gate) Write(p []byte) (int, error) {
	g.once.Do(func() {
		g.entered <- struct{}{}
		<-g.leave
	})
	return g.Hash.Write(p)
}

func TestSumsComputedOnce(t *testing.T) {
	dir := makeFolder(t, programs)
	h := newHandler(t, Config{Downloads: dir})
	var made, running, tooMany atomic.Int32
	entered, leave := make(chan struct{}, 100), make(chan struct{})
	h.downloads.sums.newHash = func() hash.Hash {
		made.Add(1)
		if running.Add(1) > maxHashing {
			tooMany.Add(1)
		}
		return gate{sha256.New(), entered, leave, new(sync.Once), &running}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ask := func(ctx context.Context, path string) *http.Response {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil).WithContext(ctx))
		return w.Result()
	}
	var all sync.WaitGroup
	files := slices.Collect(maps.Keys(h.downloads.files))
	for range 4 {
		for _, name := range files {
			all.Go(func() {
				if res := ask(context.Background(), "/docs/"+name); programs[name] != "" && res.StatusCode != 200 {
					t.Errorf("%s: status %d", name, res.StatusCode)
				}
			})
		}
	}
	for range maxHashing { // really at the same time
		<-entered
	}
	// Who does not want to wait any more is let go meanwhile.
	cancel()
	if res := ask(ctx, "/docs/SHA256SUMS"); res.StatusCode != 503 {
		t.Errorf("given up: status %d, want 503", res.StatusCode)
	}
	if res := ask(ctx, "/"); res.StatusCode != 503 {
		t.Errorf("page given up: status %d, want 503", res.StatusCode)
	}
	close(leave)
	all.Wait()
	if tooMany.Load() != 0 {
		t.Errorf("more than %d files were hashed at a time", maxHashing)
	}
	if got := made.Load(); got != 6 {
		t.Errorf("%d checksums were computed for 6 files", got)
	}
	if res := ask(context.Background(), "/docs/SHA256SUMS"); res.StatusCode != 200 || made.Load() != 6 {
		t.Errorf("status %d after %d computations, want 200 from memory", res.StatusCode, made.Load())
	}
}

func TestSumsOfChangingFile(t *testing.T) {
	dir := makeFolder(t, map[string]string{"agent-linux-amd64": "old", "wsproxy-linux-amd64": "there"})
	h := newHandler(t, Config{Downloads: dir})
	file := filepath.Join(dir, "agent-linux-amd64")
	grow := true
	h.downloads.sums.newHash = func() hash.Hash {
		if grow {
			f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("+")
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Error(err)
			}
		}
		return sha256.New()
	}
	for _, path := range []string{"/docs/agent", "/docs/SHA256SUMS"} {
		res := request(h, "GET", path)
		if res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", path)
		}
		wantText(t, res, 503)
	}
	if page := body(t, request(h, "GET", "/")); !strings.Contains(page, "agent: not on this server") || !strings.Contains(page, `href="docs/wsproxy-linux-amd64"`) {
		t.Error("the page does not go on without the file that is being replaced")
	}
	grow = false
	if res := request(h, "GET", "/docs/agent"); res.StatusCode != 200 {
		t.Errorf("afterwards: status %d", res.StatusCode)
	}
}

func TestSumsOfUnreadableFile(t *testing.T) {
	dir := makeFolder(t, map[string]string{"agent-linux-amd64": "x"})
	h := newHandler(t, Config{Downloads: dir})
	f, info, err := openRegular(dir, "agent-linux-amd64")
	if err != nil {
		t.Fatal(err)
	}
	f.Close() // so that reading fails
	_, err = h.downloads.sums.of(context.Background(), "agent-linux-amd64", f, info)
	if !errors.Is(err, errUnreadable) {
		t.Fatalf("error %v, want errUnreadable", err)
	}
	w := httptest.NewRecorder()
	h.downloads.refuse(w, err, "Not there.")
	wantText(t, w.Result(), 500)
}
