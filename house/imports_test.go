package house_test

import (
	"encoding/json"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
)

// pkgInfo is what go list says of a package.
type pkgInfo struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// goList asks the Go command for packages as they are built for goos.
func goList(t *testing.T, repo *repository, goos string, args ...string) []pkgInfo {
	t.Helper()
	out := run(t, command{
		dir:  repo.root,
		args: append([]string{"go", "list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...),
		env:  []string{"GOOS=" + goos, "GOARCH=amd64", "CGO_ENABLED=0"},
	})
	var list []pkgInfo
	for dec := json.NewDecoder(strings.NewReader(out)); ; {
		var p pkgInfo
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("decode go list: %v", err)
		}
		list = append(list, p)
	}
}

// TestShippedDependencies shows that each library that the design names is in
// the programs that ship it: linked, not only required.
func TestShippedDependencies(t *testing.T) {
	const (
		websocket = "nhooyr.io/websocket"
		cli       = "github.com/urfave/cli/v2"
		ssh       = "github.com/gliderlabs/ssh"
		sftp      = "github.com/pkg/sftp"
		pty       = "github.com/creack/pty"
	)
	repo := loadRepository(t)
	root := repo.path(t)
	adapter, expiry := root+"/pkg/wsconn", root+"/pkg/expiry"
	tests := []struct {
		tool, goos string
		want       []string
	}{
		{"server", "linux", []string{websocket, adapter, cli}},
		{"agent", "linux", []string{websocket, adapter, cli, ssh, sftp, pty, expiry}},
		{"agent", "darwin", []string{websocket, adapter, cli, ssh, sftp, pty, expiry}},
		{"agent", "windows", []string{websocket, adapter, cli, ssh, sftp, expiry}},
		{"wsproxy", "linux", []string{websocket, adapter, cli}},
		{"tcptows", "linux", []string{websocket, adapter, cli}},
		{"gitgate", "linux", []string{cli, root + "/pkg/webhook"}},
		{"dispatch", "linux", []string{cli, root + "/pkg/webhook", root + "/pkg/forge", "github.com/hashicorp/nomad/api"}},
	}
	for _, test := range tests {
		t.Run(test.tool+"-"+test.goos, func(t *testing.T) {
			var deps []string
			for _, p := range goList(t, repo, test.goos, "-deps", "./"+test.tool) {
				deps = append(deps, p.ImportPath)
			}
			for _, want := range test.want {
				if !slices.Contains(deps, want) {
					t.Errorf("%s for %s does not contain %s", test.tool, test.goos, want)
				}
			}
		})
	}
}

// confined are libraries that shipped code imports in one place only, so that
// another can take their place there.
var confined = map[string]string{
	"nhooyr.io/websocket":       "pkg/wsconn",
	"github.com/gliderlabs/ssh": "agent",
	"github.com/pkg/sftp":       "agent",
	"github.com/creack/pty":     "agent",
}

// TestImportRules checks who imports whom: no program another one, the library
// and the tests of the whole no program, shipped code no test library, and each
// confined library only from its place; the module that does not ship may use
// it to compare with. A package whose name ends in test is for tests, as in the
// standard library.
func TestImportRules(t *testing.T) {
	repo := loadRepository(t)
	root := repo.path(t)
	// A library is what go.work puts in the place of a required version.
	var libraries []string
	for _, replace := range repo.work.Replace {
		libraries = append(libraries, path.Clean(replace.New.Path))
	}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		for _, p := range goList(t, repo, goos, "work") {
			here := moduleOf(repo, p.ImportPath)
			for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if !repo.own(t, imported) {
					continue
				}
				if there := moduleOf(repo, imported); there != here && !slices.Contains(libraries, there) {
					t.Errorf("%s imports %s: a module may import itself and the libraries %q", p.ImportPath, imported, libraries)
				}
			}
			for _, imported := range p.Imports {
				forTests := imported == "testing" || imported == "go.uber.org/goleak" || imported == "github.com/rogpeppe/go-internal/testscript" ||
					strings.HasSuffix(path.Base(imported), "test")
				if forTests && !strings.HasSuffix(p.ImportPath, "test") {
					t.Errorf("%s ships the test library %s", p.ImportPath, imported)
				}
				// What is for tests, or an example, is linked into nothing that ships.
				outside := strings.HasSuffix(p.ImportPath, "test") || strings.Contains(p.ImportPath, "/examples/")
				if place, ok := confined[imported]; ok && here != unshipped && !outside && !within(p.ImportPath, root+"/"+place) {
					t.Errorf("%s imports %s, which only %s may", p.ImportPath, imported, place)
				}
			}
		}
	}
}

// moduleOf is the folder of the module that holds one of our packages.
func moduleOf(repo *repository, importPath string) string {
	best, length := "", -1
	for _, m := range repo.modules {
		if within(importPath, m.path()) && len(m.path()) > length {
			best, length = m.dir, len(m.path())
		}
	}
	return best
}

// within reports whether a package lies in or below a path.
func within(importPath, path string) bool {
	return importPath == path || strings.HasPrefix(importPath, path+"/")
}
