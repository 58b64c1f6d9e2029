// Package house checks the rules of the repository as a whole: how its modules
// are joined, what may import what, what the documents promise, and that a
// release and a new module path would work. It ships nothing and knows nothing
// of what the programs do: that is for the tests of their own modules and for
// the end-to-end tests.
package house_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/modfile"
)

// module is one module of the repository.
type module struct {
	// dir is its folder, relative to the root of the repository, "." for the
	// root module.
	dir string
	// file is its go.mod, parsed.
	file *modfile.File
}

// path is the module's path.
func (m module) path() string { return m.file.Module.Mod.Path }

// repository is what the tests read.
type repository struct {
	// root is the absolute path of the folder that holds go.work.
	root string
	// work is go.work, parsed.
	work *modfile.WorkFile
	// modules are those that go.work joins, in its order.
	modules []module
}

// loadRepository reads go.work and the go.mod of every module that it joins.
func loadRepository(t *testing.T) *repository {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	repo := &repository{root: root}
	repo.work, err = modfile.ParseWork("go.work", readFile(t, filepath.Join(root, "go.work")), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range repo.work.Use {
		dir := filepath.ToSlash(filepath.Clean(use.Path))
		name := filepath.Join(root, dir, "go.mod")
		file, err := modfile.Parse(name, readFile(t, name), nil)
		if err != nil {
			t.Fatal(err)
		}
		repo.modules = append(repo.modules, module{dir: dir, file: file})
	}
	return repo
}

// path is the path of the root module, which all others begin with.
func (r *repository) path(t *testing.T) string {
	t.Helper()
	for _, m := range r.modules {
		if m.dir == "." {
			return m.path()
		}
	}
	t.Fatal("go.work does not use the root module")
	return ""
}

// own reports whether a module or package path is of this repository.
func (r *repository) own(t *testing.T, path string) bool {
	t.Helper()
	root := r.path(t)
	return path == root || strings.HasPrefix(path, root+"/")
}

// unshipped is the folder of the module that is of the repository alone: it
// measures what the others ship, needs their source, and has no release.
const unshipped = "bench"

// tools are the modules that hold a program to ship: their folders.
func (r *repository) tools(t *testing.T) []string {
	t.Helper()
	var tools []string
	for _, m := range r.modules {
		if _, err := os.Stat(filepath.Join(r.root, m.dir, "main.go")); err == nil && m.dir != unshipped {
			tools = append(tools, m.dir)
		}
	}
	if len(tools) == 0 {
		t.Fatal("no module has a main.go")
	}
	return tools
}

// version is the one version of all modules: the one that go.work replaces.
func (r *repository) version(t *testing.T) string {
	t.Helper()
	for _, replace := range r.work.Replace {
		return replace.Old.Version
	}
	t.Fatal("go.work replaces no library")
	return ""
}

// files lists the files of the repository, slash-separated, relative to its
// root: what git tracks and what is new and not ignored.
func (r *repository) files(t *testing.T) []string {
	t.Helper()
	out := run(t, command{dir: r.root, args: []string{"scripts/files"}})
	files := strings.Split(strings.TrimRight(out, "\x00"), "\x00")
	slices.Sort(files)
	return files
}

// readFile reads a file or ends the test.
func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// margin is how long before the deadline of the tests a command is ended.
const margin = 10 * time.Second

// command is one program to run to its end.
type command struct {
	dir  string
	args []string
	// env is added to the environment of the test.
	env []string
}

// start runs the command and returns what it wrote and how it ended.
func (c command) start(ctx context.Context) (stdout, stderr string, err error) {
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	if strings.HasPrefix(c.args[0], "scripts/") {
		// A relative program is otherwise looked for in the test's folder.
		cmd.Path = filepath.Join(c.dir, c.args[0])
		cmd.Err = nil
	}
	// Asked to end, the Go command ends what it runs; killed, it would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = margin / 2
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), append([]string{"PWD=" + c.dir}, c.env...)...)
	var out, diag bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diag
	err = cmd.Run()
	return out.String(), diag.String(), err
}

// run runs a command that must succeed and returns its standard output.
func run(t *testing.T, c command) string {
	t.Helper()
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		// End it while there is time to say what hung.
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-margin))
		defer cancel()
	}
	stdout, stderr, err := c.start(ctx)
	if err != nil {
		t.Fatalf("%s in %s: %v\n%s%s", strings.Join(c.args, " "), c.dir, err, stdout, stderr)
	}
	return stdout
}

// goEnv asks the Go command for one of its settings.
func goEnv(t *testing.T, name string) string {
	t.Helper()
	return strings.TrimSpace(run(t, command{dir: ".", args: []string{"go", "env", name}}))
}

// copyFile copies one file with its permissions, making the folders above it.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

// writeFile writes a file or ends the test, making the folders above it.
func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
