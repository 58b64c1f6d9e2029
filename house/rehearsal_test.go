package house_test

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gomod "golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// TestReleaseRehearsal does what a release does, up to the upload: it packs
// every module that is released at its version into a module proxy that is a folder,
// then builds and tests each module as it was packed, without go.work and with the
// race detector, and at last installs every program from an empty folder by the
// command that users type.
func TestReleaseRehearsal(t *testing.T) {
	repo := loadRepository(t)
	version := repo.version(t)
	proxy := t.TempDir()
	released := slices.DeleteFunc(inOrder(t, repo), func(m module) bool { return m.dir == unshipped })
	for _, m := range released {
		pack(t, repo, m, version, proxy)
	}
	env := proxyEnv(t, repo, proxy)

	for _, m := range released {
		t.Run("module-"+path.Base(m.path()), func(t *testing.T) {
			testPacked(t, repo, m, version, proxy, env)
		})
	}
	for _, tool := range repo.tools(t) {
		t.Run("install-"+tool, func(t *testing.T) {
			install(t, repo.path(t)+"/"+tool, version, env)
		})
	}
}

// inOrder sorts the modules so that each comes after those that it requires.
func inOrder(t *testing.T, repo *repository) []module {
	t.Helper()
	var sorted []module
	done := map[string]bool{}
	for len(sorted) < len(repo.modules) {
		before := len(sorted)
		for _, m := range repo.modules {
			ready := !done[m.path()]
			for _, require := range m.file.Require {
				if repo.own(t, require.Mod.Path) && !done[require.Mod.Path] {
					ready = false
				}
			}
			if ready {
				sorted = append(sorted, m)
				done[m.path()] = true
			}
		}
		if len(sorted) == before {
			t.Fatal("the modules require each other in a circle")
		}
	}
	return sorted
}

// packedFile is one file of a module for zip.Create.
type packedFile struct {
	// name is its path in the module, from where it is read.
	name, from string
}

func (f packedFile) Path() string                 { return f.name }
func (f packedFile) Lstat() (os.FileInfo, error)  { return os.Lstat(f.from) }
func (f packedFile) Open() (io.ReadCloser, error) { return os.Open(f.from) }

// moduleFiles lists what a module's zip holds: its files, without those of the
// modules in folders below it, and the LICENSE of the repository, which the Go
// command adds for a module that has none.
func moduleFiles(t *testing.T, repo *repository, m module) []zip.File {
	t.Helper()
	var files []zip.File
	license := false
	for _, name := range repo.files(t) {
		if dirModule(repo, name) != m.dir {
			continue
		}
		inside := name
		if m.dir != "." {
			inside = strings.TrimPrefix(name, m.dir+"/")
		}
		license = license || inside == "LICENSE"
		files = append(files, packedFile{name: inside, from: filepath.Join(repo.root, name)})
	}
	if !license {
		files = append(files, packedFile{name: "LICENSE", from: filepath.Join(repo.root, "LICENSE")})
	}
	return files
}

// dirModule is the folder of the innermost module that holds a file.
func dirModule(repo *repository, name string) string {
	best := "."
	for _, m := range repo.modules {
		if strings.HasPrefix(name, m.dir+"/") && len(m.dir) > len(best) {
			best = m.dir
		}
	}
	return best
}

// pack puts one module into the proxy, as
// https://go.dev/ref/mod#goproxy-protocol lays it out.
func pack(t *testing.T, repo *repository, m module, version, proxy string) {
	t.Helper()
	escaped, err := gomod.EscapePath(m.path())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(proxy, filepath.FromSlash(escaped))
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{version, time.Now().UTC().Truncate(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "@latest"), string(info))
	writeFile(t, filepath.Join(dir, "@v", "list"), version+"\n")
	writeFile(t, filepath.Join(dir, "@v", version+".info"), string(info))
	writeFile(t, filepath.Join(dir, "@v", version+".mod"), string(readFile(t, filepath.Join(repo.root, m.dir, "go.mod"))))
	out, err := os.Create(filepath.Join(dir, "@v", version+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	if err := zip.Create(out, gomod.Version{Path: m.path(), Version: version}, moduleFiles(t, repo, m)); err != nil {
		t.Fatalf("pack %s: %v", m.path(), err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// proxyEnv is an environment in which Go finds our modules in the proxy. It has
// a module cache of its own, since the machine's may hold another state of the
// same version; what is in the machine's is not fetched again.
func proxyEnv(t *testing.T, repo *repository, proxy string) []string {
	t.Helper()
	fileURL := func(dir string) string {
		return (&url.URL{Scheme: "file", Path: filepath.ToSlash(dir)}).String()
	}
	cache := filepath.Join(goEnv(t, "GOMODCACHE"), "cache", "download")
	return []string{
		"GOPROXY=" + strings.Join([]string{fileURL(proxy), fileURL(cache), goEnv(t, "GOPROXY")}, ","),
		// The checksum database cannot know what was never published. GOPRIVATE
		// would say that too, but go round the proxy.
		"GOPRIVATE=", "GONOPROXY=", "GOINSECURE=", "GONOSUMDB=" + repo.path(t),
		"GOSUMDB=" + goEnv(t, "GOSUMDB"), "GOTOOLCHAIN=" + goEnv(t, "GOTOOLCHAIN"),
		"GOCACHE=" + goEnv(t, "GOCACHE"),
		"GOPATH=" + t.TempDir(),
		"GOMODCACHE=" + t.TempDir(),
		"GOWORK=off",
		"GOENV=off",
		// As a release is built; it also lets the build cache serve, for
		// which the folder would count otherwise.
		"CGO_ENABLED=0",
		"GOFLAGS=-trimpath -modcacherw -buildvcs=false",
	}
}

// testPacked unpacks one module and builds, vets and tests it on its own.
func testPacked(t *testing.T, repo *repository, m module, version, proxy string, env []string) {
	mod := gomod.Version{Path: m.path(), Version: version}
	escaped, err := gomod.EscapePath(m.path())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "module")
	if err := zip.Unzip(dir, mod, filepath.Join(proxy, filepath.FromSlash(escaped), "@v", version+".zip")); err != nil {
		t.Fatal(err)
	}
	if err := makeWritable(dir); err != nil {
		t.Fatal(err)
	}
	// go.sum gets the siblings' checksums here, and nothing else.
	env = append(slices.Clone(env), "GOFLAGS=-mod=mod -trimpath -modcacherw -buildvcs=false")
	run(t, command{dir: dir, env: env, args: []string{"go", "build", "./..."}})
	run(t, command{dir: dir, env: env, args: []string{"go", "vet", "./..."}})
	if m.dir != "." {
		// The root module's tests are of the repository, which is not here.
		env = append(env, "CGO_ENABLED=1") // for the race detector
		out := run(t, command{dir: dir, env: env, args: []string{"go", "test", "-race", "-timeout", "15m", "./..."}})
		if !strings.Contains(out, "ok  \t") {
			t.Errorf("no test ran:\n%s", out)
		}
		fmt.Print(out)
	}

	if got, want := string(readFile(t, filepath.Join(dir, "go.mod"))), string(readFile(t, filepath.Join(repo.root, m.dir, "go.mod"))); got != want {
		t.Errorf("Go had to change go.mod to:\n%s", got)
	}
	before := strings.Split(string(readFile(t, filepath.Join(repo.root, m.dir, "go.sum"))), "\n")
	for line := range strings.Lines(string(readFile(t, filepath.Join(dir, "go.sum")))) {
		line = strings.TrimSuffix(line, "\n")
		if name, _, _ := strings.Cut(line, " "); !repo.own(t, name) && !slices.Contains(before, line) {
			t.Errorf("go.sum lacks %q", line)
		}
	}
}

// makeWritable undoes the protection that zip.Unzip gives to what it unpacks.
func makeWritable(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.Chmod(name, 0o755)
		}
		return os.Chmod(name, 0o644)
	})
}

// install types `go install PROGRAM@latest` in an empty folder, with an empty
// home, and asks the program for its version.
func install(t *testing.T, program, version string, env []string) {
	bin := t.TempDir()
	env = append(slices.Clone(env), "HOME="+t.TempDir(), "GOBIN="+bin)
	dir := t.TempDir()
	run(t, command{dir: dir, env: env, args: []string{"go", "install", program + "@latest"}})
	name := filepath.Join(bin, path.Base(program))
	if got := run(t, command{dir: dir, env: env, args: []string{name, "--version"}}); !strings.Contains(got, version) {
		t.Errorf("%s --version says %q, want %s", path.Base(program), got, version)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("go install left %v in the folder (%v)", left, err)
	}
}
