package guestfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
)

// The programs of the tests: static ones for two platforms.
var amd64, arm64 string

func TestMain(m *testing.M) {
	folder, err := os.MkdirTemp("", "guestfile-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	source := filepath.Join(folder, "main.go")
	amd64, arm64 = filepath.Join(folder, "amd64"), filepath.Join(folder, "arm64")
	err = os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"here\") }\n"), 0o600)
	for arch, to := range map[string]string{"amd64": amd64, "arm64": arm64} {
		if err != nil {
			break
		}
		build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", to, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		build.Stderr = os.Stderr
		err = build.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(folder)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// world is a server that hands out files, by name, with their checksums unless
// it has others.
type world struct {
	files map[string][]byte
	asked atomic.Int32 // for other things than checksums
	*httptest.Server
}

func serve(t *testing.T, files map[string][]byte) *world {
	t.Helper()
	w := &world{files: files}
	w.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/docs/")
		if name == sumsName && w.files[name] == nil {
			for file, data := range w.files {
				fmt.Fprintf(rw, "%x  %s\n", sha256.Sum256(data), file)
			}
			return
		}
		if name != sumsName {
			w.asked.Add(1)
		}
		data, ok := w.files[name]
		if !ok {
			http.Error(rw, "This server does not offer it; its home page shows what it has.", http.StatusNotFound)
			return
		}
		_, _ = rw.Write(data)
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *world) source(t *testing.T, self string) *Source {
	t.Helper()
	s := New(Config{Docs: w.URL + "/docs/", Client: &http.Transport{}, Self: self, Cache: filepath.Join(t.TempDir(), "cache")})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSelf: where platform and linking allow it, nobody is asked.
func TestSelf(t *testing.T) {
	s := New(Config{Self: amd64})
	if got, err := s.Guest(t.Context(), "linux", "amd64"); got != amd64 || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := s.Guest(t.Context(), "linux", "arm64"); err == nil || !strings.Contains(err.Error(), "this agent cannot be copied there: it is not for linux/arm64; and none can be downloaded: there is no server to ask: name a file with --guest") {
		t.Errorf("%v", err)
	}
	if _, err := s.Guest(t.Context(), "windows", "amd64"); err == nil || !strings.Contains(err.Error(), "and not of windows") {
		t.Errorf("%v", err)
	}
	for _, arch := range []string{"", "../x", "AMD64", strings.Repeat("a", 33)} {
		if _, err := s.Guest(t.Context(), "linux", arch); err == nil || !strings.Contains(err.Error(), "is not the name of a platform") {
			t.Errorf("%q: %v", arch, err)
		}
	}
	if Self() == "" || read(t, Self()) == nil {
		t.Error("the program's own file is not found")
	}
}

// TestManyPlatforms: what an engine says takes no memory without end.
func TestManyPlatforms(t *testing.T) {
	s := New(Config{Self: amd64})
	for i := range 2 * maxPlatforms {
		_, _ = s.Guest(t.Context(), "linux", fmt.Sprintf("arch%d", i))
	}
	if len(s.platforms) > maxPlatforms {
		t.Errorf("%d platforms", len(s.platforms))
	}
}

// TestDownload: it is compared, kept for the next run, and fetched once however
// many ask.
func TestDownload(t *testing.T) {
	program := read(t, arm64)
	w := serve(t, map[string][]byte{"agent-linux-arm64": program, "guest-linux-arm64": []byte("another")})
	s := w.source(t, amd64)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got, err := s.Guest(t.Context(), "linux", "arm64")
			if err != nil || !bytes.Equal(read(t, got), program) {
				t.Errorf("%s, %v", got, err)
			}
		})
	}
	wg.Wait()
	if n := w.asked.Load(); n != 1 {
		t.Errorf("it was downloaded %d times", n)
	}
	// The next run finds it in the cache.
	next := New(s.cfg)
	got, err := next.Guest(t.Context(), "linux", "arm64")
	if err != nil || w.asked.Load() != 1 {
		t.Errorf("%v, downloaded %d times", err, w.asked.Load())
	}
	// What was changed there is not used.
	if err := os.WriteFile(got, []byte("something else"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := New(s.cfg).Guest(t.Context(), "linux", "arm64"); err != nil || !bytes.Equal(read(t, got), program) {
		t.Errorf("%v", err)
	}
	// A file that is gone is fetched again by who knew it.
	if err := os.Remove(got); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Guest(t.Context(), "linux", "arm64"); err != nil || !bytes.Equal(read(t, got), program) {
		t.Errorf("%v", err)
	}
	// Another version takes its place.
	w.files["agent-linux-arm64"] = append(bytes.Clone(program), 0)
	if got, err := New(s.cfg).Guest(t.Context(), "linux", "arm64"); err != nil || !bytes.Equal(read(t, got), w.files["agent-linux-arm64"]) {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(s.cfg.Cache); err != nil || len(entries) != 1 {
		t.Errorf("in the cache are %v, %v", entries, err)
	}
}

// TestGuestAlone: without an agent for the platform the guest will do.
func TestGuestAlone(t *testing.T) {
	w := serve(t, map[string][]byte{"guest-linux-arm64": read(t, arm64)})
	if got, err := w.source(t, amd64).Guest(t.Context(), "linux", "arm64"); err != nil || !strings.Contains(got, "guest-linux-arm64") {
		t.Errorf("%s, %v", got, err)
	}
}

// TestRefused: what is not right is not kept.
func TestRefused(t *testing.T) {
	program := read(t, arm64)
	for name, test := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"nothing":         {nil, "this server hands out no agent and no guest for linux/arm64"},
		"wrong checksum":  {map[string][]byte{"agent-linux-arm64": program, sumsName: []byte(strings.Repeat("0", 64) + "  agent-linux-arm64\n")}, "its checksum is "},
		"no file":         {map[string][]byte{sumsName: []byte(strings.Repeat("0", 64) + "  agent-linux-arm64\n")}, "This server does not offer it"},
		"other platform":  {map[string][]byte{"agent-linux-arm64": read(t, amd64)}, "is not for linux/arm64"},
		"no program":      {map[string][]byte{"agent-linux-arm64": []byte("#!/bin/sh\n")}, "is no program for Linux"},
		"checksums large": {map[string][]byte{sumsName: bytes.Repeat([]byte("x"), maxSums+1)}, "is larger than 64 KiB"},
		"no checksums":    {map[string][]byte{"agent-linux-arm64": program, sumsName: []byte("deadbeef  agent-linux-arm64\n")}, "hands out no agent"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, test.files).source(t, amd64)
			if got, err := s.Guest(t.Context(), "linux", "arm64"); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%s, %v, want %q", got, err, test.want)
			}
			if entries, _ := os.ReadDir(s.cfg.Cache); len(entries) > 0 {
				t.Errorf("it kept %v", entries)
			}
		})
	}
}

// TestRedirect: what a server points to is not fetched.
func TestRedirect(t *testing.T) {
	w := serve(t, map[string][]byte{"agent-linux-arm64": read(t, arm64)})
	other := httptest.NewServer(http.RedirectHandler(w.URL+"/docs/"+sumsName, http.StatusFound))
	t.Cleanup(other.Close)
	s := New(Config{Docs: other.URL + "/docs/", Client: &http.Transport{}, Self: amd64, Cache: t.TempDir()})
	t.Cleanup(func() { _ = s.Close() })
	if got, err := s.Guest(t.Context(), "linux", "arm64"); err == nil || !strings.Contains(err.Error(), "302 Found") {
		t.Errorf("%s, %v", got, err)
	}
}

// TestStalled: a server that says nothing is given up with the caller.
func TestStalled(t *testing.T) {
	over := make(chan struct{})
	begun := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	ctx, cancel := context.WithCancel(t.Context())
	s := New(Config{Docs: server.URL + "/docs/", Client: &http.Transport{}, Self: amd64, Cache: t.TempDir()})
	t.Cleanup(func() { _ = s.Close() })
	done := make(chan error, 1)
	go func() { _, err := s.Guest(ctx, "linux", "arm64"); done <- err }()
	<-begun
	cancel()
	if err := <-done; err == nil {
		t.Error("it came back with something")
	}
}

// TestNoCache: without a place to keep it there is a temporary one.
func TestNoCache(t *testing.T) {
	w := serve(t, map[string][]byte{"agent-linux-arm64": read(t, arm64)})
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Docs: w.URL + "/docs/", Client: &http.Transport{}, Self: amd64, Cache: filepath.Join(file, "cache")})
	if got, err := s.Guest(t.Context(), "linux", "arm64"); err != nil || !strings.HasPrefix(got, tmp) {
		t.Errorf("%s, %v", got, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(tmp); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(amd64, "linux", ""); err != nil {
		t.Error(err)
	}
	if err := Check(filepath.Join(t.TempDir(), "none"), "linux", "amd64"); err == nil {
		t.Error("it takes what is not there")
	}
	if IsAgent(amd64) || IsAgent(os.DevNull) {
		t.Error("it takes any program for an agent")
	}
}

// FuzzChoose: what is chosen is one of two names, with a whole checksum.
func FuzzChoose(f *testing.F) {
	f.Fuzz(func(t *testing.T, sums []byte) {
		file, sum, err := choose(sums, "linux", "arm64")
		if err == nil && (file != "agent-linux-arm64" && file != "guest-linux-arm64" || len(sum) != 64 || strings.ToLower(sum) != sum) {
			t.Errorf("%q %q", file, sum)
		}
	})
}
