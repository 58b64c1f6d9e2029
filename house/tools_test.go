package house_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGuestIsSmall: what stands in images of others has nothing inside but itself, the
// standard library without its large parts, and system calls.
func TestGuestIsSmall(t *testing.T) {
	repo := loadRepository(t)
	for _, goos := range []string{"linux", "windows"} {
		for _, p := range goList(t, repo, goos, "-deps", "./guest") {
			first, _, _ := strings.Cut(p.ImportPath, "/")
			foreign := strings.Contains(first, ".") && !repo.own(t, p.ImportPath) && !within(p.ImportPath, "golang.org/x/sys")
			if foreign || slices.Contains([]string{"log/slog", "encoding/json", "net/http", "crypto/tls"}, p.ImportPath) {
				t.Errorf("guest for %s contains %s", goos, p.ImportPath)
			}
		}
	}
}

// TestToolsAreEverywhere fails when a program of go.work is missing from what is shipped
// or told. What scripts derive from go.work themselves is not here.
func TestToolsAreEverywhere(t *testing.T) {
	repo := loadRepository(t)
	for _, tool := range repo.tools(t) {
		for file, want := range map[string]string{
			"README.md":                      "](docs/reference/" + tool + ".md)",
			"CHANGELOG.md":                   "- `" + tool + "`:",
			"docs/architecture.md":           "\n| `" + tool,
			"docs/install.md":                "`converge-" + tool + "`",
			"docs/reference/README.md":       "| [" + tool + "](" + tool + ".md) |",
			"scripts/release-package":        "\n" + tool + ")\n",
			"scripts/ship/packages":          "scripts/modules --tools",
			"docs/reference/" + tool + ".md": "# " + tool + "\n",
		} {
			if !strings.Contains(string(readFile(t, filepath.Join(repo.root, filepath.FromSlash(file)))), want) {
				t.Errorf("%s does not have %q", file, want)
			}
		}
		// The server hands out what is no service of a machine, as it is itself.
		const downloads = "server/internal/web/downloads.go"
		list, _, _ := strings.Cut(string(readFile(t, filepath.Join(repo.root, filepath.FromSlash(downloads)))), "systems =")
		_, err := os.Stat(filepath.Join(repo.root, "deploy", "systemd", "converge-"+tool+".service"))
		if service := err == nil; service == strings.Contains(list, `"`+tool+`"`) {
			t.Errorf("%s is a service of a machine: %v; %s must have it if it is none, and only then", tool, service, downloads)
		}
	}
}
