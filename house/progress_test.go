package house_test

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestProgress builds the downloads of one platform on a terminal, where a bar
// is drawn, and where there is none to draw on.
func TestProgress(t *testing.T) {
	repo := loadRepository(t)
	env := []string{"PLATFORMS=" + goEnv(t, "GOOS") + "/" + goEnv(t, "GOARCH"), "TERM=xterm"}
	build := func(t *testing.T, args ...string) string {
		t.Helper()
		return run(t, command{dir: repo.root, env: append(env, "DOWNLOADS="+t.TempDir()), args: args})
	}
	// script (bsdutils, essential in Debian) gives it a terminal.
	line := filepath.Join(repo.root, "scripts", "build-downloads")
	t.Run("terminal", func(t *testing.T) {
		got := build(t, "script", "--quiet", "--return", "--command", line, "/dev/null")
		if !strings.Contains(got, "] 0/1 building for "+strings.TrimPrefix(env[0], "PLATFORMS=")) {
			t.Errorf("no bar: %q", got)
		}
		if !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("the bar stays: %q", got)
		}
	})
	t.Run("dumb terminal", func(t *testing.T) {
		if got := build(t, "script", "--quiet", "--return", "--command", "TERM=dumb "+line, "/dev/null"); strings.Contains(got, "building for") {
			t.Errorf("a bar on a terminal that cannot draw it: %q", got)
		}
	})
	t.Run("pipe", func(t *testing.T) {
		if got := build(t, "sh", "-c", "exec "+line+" 2>&1"); got != "" {
			t.Errorf("it says %q", got)
		}
	})
}
