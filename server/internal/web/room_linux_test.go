package web

import (
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNoRoom has no descriptor left: the answer must not be that there is no
// such file, which a proxy or a script would believe.
func TestNoRoom(t *testing.T) {
	dir := makeFolder(t, map[string]string{"index.html": "home", "page.css": "style", "agent-linux-amd64": "program"})
	withDownloads := newHandler(t, Config{Downloads: dir})
	withPages := newHandler(t, Config{Downloads: dir, Static: dir})
	ask := func(status int) {
		t.Helper()
		for _, target := range []string{"/", "/docs/agent", "/docs/agent-linux-amd64", "/docs/SHA256SUMS"} {
			for name, h := range map[string]*Handler{"downloads": withDownloads, "static": withPages} {
				res := request(h, "GET", target)
				if res.StatusCode != status {
					t.Errorf("%s, %s: %s, want %d", name, target, res.Status, status)
				}
				if status == 503 {
					if wantText(t, res, 503); res.Header.Get("Retry-After") == "" {
						t.Errorf("%s, %s: no Retry-After", name, target)
					}
				}
			}
		}
		if res := request(withPages, "GET", "/page.css"); res.StatusCode != status {
			t.Errorf("a file of the static folder: %s, want %d", res.Status, status)
		}
	}
	ask(200)

	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	// Below it are stdin, stdout and stderr: each new descriptor is beyond.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	ask(503)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	ask(200)
}

// TestUnreadableFolder fails at the start, not at each request.
func TestUnreadableFolder(t *testing.T) {
	dir := makeFolder(t, site)
	if err := os.Chmod(dir, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	// For root nothing is unreadable: on this thread we are somebody else.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, _ := unix.SetfsuidRetUid(65534)
	defer func() { _ = unix.Setfsuid(was) }()
	for what, cfg := range map[string]Config{"downloads": {Downloads: dir}, "static": {Static: dir}} {
		_, err := New(cfg)
		if err == nil || !strings.Contains(err.Error(), "open the "+what+" folder") || !strings.Contains(err.Error(), "must be allowed to read it") {
			t.Errorf("an unreadable %s folder: %v", what, err)
		}
	}
}
