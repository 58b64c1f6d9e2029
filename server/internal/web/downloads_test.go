package web

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// programs is a downloads folder with some of the programs and with what must
// never be served.
var programs = map[string]string{
	"agent-linux-amd64":         "agent for linux on amd64",
	"agent-darwin-arm64":        "agent for darwin on arm64",
	"agent-windows-amd64.exe":   "agent for windows on amd64",
	"wsproxy-linux-amd64":       strings.Repeat("wsproxy", 1000),
	"agent-linux-armv7":         "agent for linux on 32-bit ARM",
	"agent-darwin-armv7":        "secret",
	"wsproxy-windows-amd64.exe": strings.Repeat("wsproxy.exe", 200000),
	"server-linux-amd64":        "secret",
	"notes.txt":                 "secret",
	"agent":                     "secret",
	"sub/agent-linux-arm64":     "secret",
}

func TestDownloads(t *testing.T) {
	h := newHandler(t, Config{Downloads: makeFolder(t, programs)})
	for path, c := range map[string]struct{ file, saveAs string }{
		"/docs/agent":                                {"agent-linux-amd64", "agent"},
		"/docs/agent?":                               {"agent-linux-amd64", "agent"},
		"/docs/agent?os=&arch=":                      {"agent-linux-amd64", "agent"},
		"/docs/agent?os=linux&arch=amd64":            {"agent-linux-amd64", "agent"},
		"/docs/agent?os=darwin&arch=arm64":           {"agent-darwin-arm64", "agent"},
		"/docs/agent?arch=armv7":                     {"agent-linux-armv7", "agent"},
		"/docs/agent?os=windows":                     {"agent-windows-amd64.exe", "agent.exe"},
		"/docs/agent?utm=1&os=windows&x=%zz&arch=":   {"agent-windows-amd64.exe", "agent.exe"},
		"/docs/wsproxy":                              {"wsproxy-linux-amd64", "wsproxy"},
		"/docs/wsproxy?os=windows&arch=amd64":        {"wsproxy-windows-amd64.exe", "wsproxy.exe"},
		"/docs/agent-linux-amd64":                    {"agent-linux-amd64", "agent-linux-amd64"},
		"/docs/wsproxy-windows-amd64.exe":            {"wsproxy-windows-amd64.exe", "wsproxy-windows-amd64.exe"},
		"/docs/agent-linux-amd64?os=windows&arch=no": {"agent-linux-amd64", "agent-linux-amd64"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			t.Run(method+" "+path, func(t *testing.T) {
				res := request(h, method, path)
				want := programs[c.file]
				if got := body(t, res); res.StatusCode != 200 || method == "GET" && got != want || method == "HEAD" && got != "" {
					t.Errorf("status %d, %d bytes; want 200 and the %d bytes of %s", res.StatusCode, len(got), len(want), c.file)
				}
				if res.ContentLength != int64(len(want)) {
					t.Errorf("Content-Length %d, want %d", res.ContentLength, len(want))
				}
				for name, value := range map[string]string{
					"Content-Type":           "application/octet-stream",
					"Content-Disposition":    `attachment; filename="` + c.saveAs + `"`,
					"ETag":                   `"sha256-` + sumOf(want) + `"`,
					"Cache-Control":          "no-cache",
					"Accept-Ranges":          "bytes",
					"X-Content-Type-Options": "nosniff",
					"Last-Modified":          settled.Format(http.TimeFormat),
				} {
					if got := res.Header.Get(name); got != value {
						t.Errorf("%s: %q, want %q", name, got, value)
					}
				}
			})
		}
	}
}

func TestDownloadsRefused(t *testing.T) {
	with := newHandler(t, Config{Downloads: makeFolder(t, programs)})
	without := newHandler(t, Config{})
	for path, status := range map[string]int{
		"/docs/agent?os=linux&arch=arm64":   404,
		"/docs/agent?os=darwin&arch=armv7":  404,
		"/docs/agent-darwin-armv7":          404,
		"/docs/tcptows":                     404,
		"/docs/tcptows-linux-amd64":         404,
		"/docs/agent-windows-amd64":         404,
		"/docs/agent.exe":                   404,
		"/docs/server-linux-amd64":          404,
		"/docs/server":                      404,
		"/docs/notes.txt":                   404,
		"/docs/sub/agent-linux-arm64":       404,
		"/docs/./agent-linux-amd64":         404,
		"/docs/../docs/agent":               404,
		"/docs//agent":                      404,
		"/docs/agent/":                      404,
		"/docs/AGENT":                       404,
		"/docs/":                            404,
		"/docs":                             404,
		"/docs/sha256sums":                  404,
		"/docs/agent?os=plan9":              400,
		"/docs/agent?arch=386":              400,
		"/docs/agent?os=../../etc/passwd":   400,
		"/docs/agent?os=LINUX":              400,
		"/docs/agent?os=linux&arch=amd64/x": 400,
	} {
		t.Run(path, func(t *testing.T) {
			text := wantText(t, request(with, "GET", path), status)
			if strings.Contains(text, "secret") || strings.Contains(text, "passwd") {
				t.Errorf("%q", text)
			}
			if status == 400 && !(strings.Contains(text, "linux, darwin, windows") && strings.Contains(text, "amd64, arm64")) {
				t.Errorf("%q does not name the choices", text)
			}
			wantText(t, request(without, "GET", path), status)
		})
	}
	for _, path := range []string{"/docs/agent", "/docs/agent-linux-amd64", "/docs/SHA256SUMS"} {
		wantText(t, request(without, "GET", path), 404)
	}
	wantText(t, request(newHandler(t, Config{Downloads: t.TempDir()}), "GET", "/docs/SHA256SUMS"), 404)
}

func TestDownloadsRangesAndRevalidation(t *testing.T) {
	h := newHandler(t, Config{Downloads: makeFolder(t, programs)})
	const path = "/docs/agent-linux-amd64"
	whole := programs["agent-linux-amd64"]
	tag := `"sha256-` + sumOf(whole) + `"`
	for name, c := range map[string]struct {
		header []string
		status int
		body   string
	}{
		"first bytes":      {[]string{"Range", "bytes=0-4"}, 206, "agent"},
		"the rest":         {[]string{"Range", "bytes=6-"}, 206, whole[6:]},
		"last bytes":       {[]string{"Range", "bytes=-5"}, 206, "amd64"},
		"same file":        {[]string{"Range", "bytes=0-4", "If-Range", tag}, 206, "agent"},
		"another file":     {[]string{"Range", "bytes=0-4", "If-Range", `"sha256-0"`}, 200, whole},
		"not modified":     {[]string{"If-None-Match", tag}, 304, ""},
		"modified":         {[]string{"If-None-Match", `"sha256-0"`}, 200, whole},
		"beyond the end":   {[]string{"Range", "bytes=9999-"}, 416, "invalid range: failed to overlap\n"},
		"precondition":     {[]string{"If-Match", `"sha256-0"`}, 412, ""},
		"unknown unit":     {[]string{"Range", "lines=1-2"}, 416, "invalid range\n"},
		"not since change": {[]string{"If-Modified-Since", settled.Format(http.TimeFormat)}, 304, ""},
	} {
		t.Run(name, func(t *testing.T) {
			res := request(h, "GET", path, c.header...)
			if got := body(t, res); res.StatusCode != c.status || got != c.body {
				t.Errorf("%d %q, want %d %q", res.StatusCode, got, c.status, c.body)
			}
		})
	}
}

func TestDownloadReplaced(t *testing.T) {
	for name, age := range map[string]time.Duration{"just now": 0, "long ago": 24 * time.Hour, "in the future": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			h := newHandler(t, Config{Downloads: dir})
			file := filepath.Join(dir, "agent-linux-amd64")
			when := time.Now().Add(-age)
			check := func(want string) {
				t.Helper()
				res := request(h, "GET", "/docs/agent")
				if got := body(t, res); got != want || res.Header.Get("ETag") != etag(sumOf(want)) {
					t.Errorf("got %q with ETag %s, want %q", got, res.Header.Get("ETag"), want)
				}
				if got := body(t, request(h, "GET", "/docs/SHA256SUMS")); got != sumOf(want)+"  agent-linux-amd64\n" {
					t.Errorf("sums %q", got)
				}
			}
			// Same size and same time: another file under the same name.
			for _, content := range []string{"one", "two"} {
				writeFile(t, file+".new", content)
				if err := os.Chtimes(file+".new", when, when); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(file+".new", file); err != nil {
					t.Fatal(err)
				}
				check(content)
			}
			// Another size or time: the same file rewritten.
			if err := os.WriteFile(file, []byte("three"), 0o644); err != nil {
				t.Fatal(err)
			}
			check("three")
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			wantText(t, request(h, "GET", "/docs/agent"), 404)
		})
	}
}

func TestDownloadFolderSwapped(t *testing.T) {
	base := t.TempDir()
	old, next, link := filepath.Join(base, "v1"), filepath.Join(base, "v2"), filepath.Join(base, "current")
	writeFile(t, filepath.Join(old, "agent-linux-amd64"), "v1")
	writeFile(t, filepath.Join(next, "agent-linux-amd64"), "v2")
	if err := os.Symlink(old, link); err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, Config{Downloads: link})
	if got := body(t, request(h, "GET", "/docs/agent")); got != "v1" {
		t.Errorf("got %q, want v1", got)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(next, link)); err != nil {
		t.Fatal(err)
	}
	if got := body(t, request(h, "GET", "/docs/agent")); got != "v2" {
		t.Errorf("after the swap: got %q, want v2", got)
	}
}

func TestDownloadLinks(t *testing.T) {
	outside := makeFolder(t, map[string]string{"secret": "secret"})
	dir := makeFolder(t, map[string]string{"builds/7/agent": "inside"})
	for name, to := range map[string]string{
		"agent-linux-amd64":   filepath.Join("builds", "7", "agent"),
		"agent-linux-arm64":   filepath.Join(outside, "secret"),
		"wsproxy-linux-amd64": filepath.Join("..", filepath.Base(outside), "secret"),
		"tcptows-linux-amd64": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "tcptows-linux-arm64"), 0o755); err != nil {
		t.Fatal(err)
	}
	h := newHandler(t, Config{Downloads: dir})
	if got := body(t, request(h, "GET", "/docs/agent")); got != "inside" {
		t.Errorf("link inside the folder: %q", got)
	}
	for _, path := range []string{"/docs/agent-linux-arm64", "/docs/wsproxy", "/docs/tcptows", "/docs/tcptows-linux-arm64"} {
		wantText(t, request(h, "GET", path), 404)
	}
	if got, want := body(t, request(h, "GET", "/docs/SHA256SUMS")), sumOf("inside")+"  agent-linux-amd64\n"; got != want {
		t.Errorf("sums %q, want %q", got, want)
	}
}

func TestNewRefusesFolders(t *testing.T) {
	dir := makeFolder(t, map[string]string{"file": "x", "site/index.html": "x", "empty/other": "x", "odd/index.html/x": "x"})
	writeFile(t, filepath.Join(dir, "huge", "index.html"), strings.Repeat("x", maxIndexSize+1))
	for name, cfg := range map[string]Config{
		"file":    {Downloads: filepath.Join(dir, "file")},
		"missing": {Downloads: filepath.Join(dir, "missing")},
		"nothing": {Static: filepath.Join(dir, "nothing")},
		"empty":   {Static: filepath.Join(dir, "empty")},
		"odd":     {Static: filepath.Join(dir, "odd")},
		"huge":    {Static: filepath.Join(dir, "huge")},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v, want one that names the folder", name, err)
		}
	}
}
