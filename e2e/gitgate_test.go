package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGitgateSample: the sample configuration has no mistake, and nothing odd, once
// its folders and its key are there.
func TestGitgateSample(t *testing.T) {
	root, id := t.TempDir(), newIdentity(t)
	text := strings.NewReplacer("/srv/git", root, "/etc/gitgate/site.key", id.file).Replace(readText(t, "../deploy/gitgate/config.yaml"))
	file := filepath.Join(root, "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runCommand(t, nil, tool("gitgate"), "check-config", "--config", file).must(t)
	if said := r.stdout + r.stderr; strings.Contains(said, "line ") || !strings.Contains(said, "2 repositories") {
		t.Errorf("it says: %s", said)
	}
}
