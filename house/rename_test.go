package house_test

import (
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// renamed is a path that sorts elsewhere among imports and is deeper. It is put
// together so that changing it back leaves this file alone.
const renamed = "zebra.example.org/" + "some-team/Line.v2"

// copyRepository copies the files of the repository to a new folder and makes
// it a git repository, as the scripts expect.
func copyRepository(t *testing.T, repo *repository) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a copy")
	for _, name := range repo.files(t) {
		if err := copyFile(filepath.Join(repo.root, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	run(t, command{dir: dir, args: []string{"git", "init", "--quiet"}})
	return dir
}

// TestRename changes the module path of a copy, builds the copy, and changes
// the path back.
func TestRename(t *testing.T) {
	repo := loadRepository(t)
	old := repo.path(t)
	dir := copyRepository(t, repo)
	run(t, command{dir: dir, args: []string{"scripts/rename", renamed}})

	// What may stay: a URL of a server on a host of that name, and a longer name.
	trace := regexp.MustCompile(`(^|[^\w./-]|[^:]/|[^/]/)` + regexp.QuoteMeta(old) + `($|[^\w.-]|\.\W)`)
	changed := 0
	for _, name := range repo.files(t) {
		data := readFile(t, filepath.Join(dir, name))
		if found := trace.FindIndex(data); found != nil {
			line := 1 + strings.Count(string(data[:found[0]]), "\n")
			t.Errorf("%s:%d still has the old path", name, line)
		}
		if string(data) != string(readFile(t, filepath.Join(repo.root, name))) {
			changed++
		}
	}
	if changed < len(repo.modules) {
		t.Errorf("%d files changed, want at least one for each module", changed)
	}

	run(t, command{dir: dir, args: []string{"scripts/format", "--check"}})
	// vet reads the tests too, and needs no linker.
	run(t, command{dir: dir, args: []string{"go", "build", "-trimpath", "work"}})
	run(t, command{dir: dir, args: []string{"go", "vet", "-trimpath", "work"}})

	run(t, command{dir: dir, args: []string{"scripts/rename", old}})
	for _, name := range repo.files(t) {
		if string(readFile(t, filepath.Join(dir, name))) != string(readFile(t, filepath.Join(repo.root, name))) {
			t.Errorf("%s is not what it was after the path was changed back", name)
		}
	}
}

// TestRenameRules checks what counts as the path and what does not.
func TestRenameRules(t *testing.T) {
	repo := loadRepository(t)
	dir := copyRepository(t, repo)
	old := repo.path(t)
	rules := []struct{ before, after string }{
		{old, renamed},
		{"import " + `"` + old + `/pkg/id"`, "import " + `"` + renamed + `/pkg/id"`},
		{"go install " + old + "/agent@latest", "go install " + renamed + "/agent@latest"},
		{"https://pkg.go.dev/" + old + "/pkg.", "https://pkg.go.dev/" + renamed + "/pkg."},
		{"git clone https://" + old + ".git", "git clone https://" + renamed + ".git"},
		{"The path is " + old + ".", "The path is " + renamed + "."},
		// Examples of a server's address.
		{"https://" + old + "/docs/agent", "https://" + old + "/docs/agent"},
		{"https://ci." + old, "https://ci." + old},
		// Longer names.
		{old + "-fork/pkg", old + "-fork/pkg"},
		{"my" + old, "my" + old},
	}
	var before, after strings.Builder
	for _, rule := range rules {
		before.WriteString(rule.before + "\n")
		after.WriteString(rule.after + "\n")
	}
	name := filepath.Join(dir, "rules.md")
	writeFile(t, name, before.String())
	run(t, command{dir: dir, args: []string{"scripts/rename", renamed}})
	if got := string(readFile(t, name)); got != after.String() {
		t.Errorf("after the change:\n%s\nwant:\n%s", got, after.String())
	}
}

// TestRenameRefuses checks that a path that cannot be one changes nothing.
func TestRenameRefuses(t *testing.T) {
	repo := loadRepository(t)
	dir := copyRepository(t, repo)
	for _, path := range []string{
		"", "converge", "https://example.org/x", "example.org", "example.org/", "example.org/x/",
		"example.org//x", "example.org/.x", "example.org/x.", "example.org/a b", "/example.org/x", "Example.org/x",
	} {
		_, stderr, err := command{dir: dir, args: []string{"scripts/rename", path}}.start(t.Context())
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("rename %q: %v, want exit status 2", path, err)
		}
		if strings.Count(stderr, "\n") != 1 {
			t.Errorf("rename %q says %q, want one line", path, stderr)
		}
	}
	for _, name := range repo.files(t) {
		if string(readFile(t, filepath.Join(dir, name))) != string(readFile(t, filepath.Join(repo.root, name))) {
			t.Errorf("%s changed", name)
		}
	}
}
