package house_test

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"
)

// minimumVersions are modules that must not be older than this, wherever they
// are required, directly or not.
var minimumVersions = map[string]string{
	// Nine vulnerabilities of its ssh package were fixed there.
	"golang.org/x/crypto": "v0.52.0",
}

// TestWorkspaceJoinsEveryModule fails when a folder with a go.mod is missing
// from go.work: nothing would build or test it.
func TestWorkspaceJoinsEveryModule(t *testing.T) {
	repo := loadRepository(t)
	var found, joined []string
	for _, file := range repo.files(t) {
		if path.Base(file) == "go.mod" && !strings.Contains(file, "testdata/") {
			found = append(found, path.Dir(file))
		}
	}
	for _, m := range repo.modules {
		joined = append(joined, m.dir)
		want := repo.path(t)
		if m.dir != "." {
			want += "/" + m.dir
		}
		if m.path() != want {
			t.Errorf("%s/go.mod declares %s, want %s", m.dir, m.path(), want)
		}
	}
	slices.Sort(found)
	slices.Sort(joined)
	if !slices.Equal(found, joined) {
		t.Errorf("go.work joins %q, folders with a go.mod are %q", joined, found)
	}
}

// TestModulesStandAlone fails when a module would build here and nowhere else.
func TestModulesStandAlone(t *testing.T) {
	repo := loadRepository(t)
	version := repo.version(t)
	replaced := map[string]bool{}
	for _, replace := range repo.work.Replace {
		replaced[replace.Old.Path] = true
		if replace.Old.Version != version {
			t.Errorf("go.work replaces %s %s, want the one version of all modules, %s", replace.Old.Path, replace.Old.Version, version)
		}
	}
	for _, m := range repo.modules {
		for _, replace := range m.file.Replace {
			t.Errorf("%s/go.mod has a replace of %s: go install refuses such a module", m.dir, replace.Old.Path)
		}
		for _, exclude := range m.file.Exclude {
			t.Errorf("%s/go.mod has an exclude of %s: go install refuses such a module", m.dir, exclude.Mod.Path)
		}
		if m.file.Go == nil || m.file.Go.Version != repo.work.Go.Version {
			t.Errorf("%s/go.mod and go.work name different Go versions", m.dir)
		}
		for _, require := range m.file.Require {
			if least, ok := minimumVersions[require.Mod.Path]; ok && semver.Compare(require.Mod.Version, least) < 0 {
				t.Errorf("%s/go.mod requires %s, want %s or later", m.dir, require.Mod, least)
			}
			if !repo.own(t, require.Mod.Path) {
				continue
			}
			if require.Mod.Version != version {
				t.Errorf("%s/go.mod requires %s, want %s", m.dir, require.Mod, version)
			}
			if !replaced[require.Mod.Path] {
				t.Errorf("%s/go.mod requires %s, which go.work does not replace", m.dir, require.Mod.Path)
			}
		}
		// A checksum of a sibling would be that of one commit and fail at the next.
		for line := range strings.Lines(string(readFile(t, filepath.Join(repo.root, m.dir, "go.sum")))) {
			if name, _, _ := strings.Cut(line, " "); repo.own(t, name) {
				t.Errorf("%s/go.sum has a line of %s", m.dir, name)
			}
		}
	}
}

// TestDependenciesAreExplained compares the direct requirements of all modules
// with the list in docs/dependencies.md.
func TestDependenciesAreExplained(t *testing.T) {
	repo := loadRepository(t)
	var required []string
	for _, m := range repo.modules {
		for _, require := range m.file.Require {
			if !require.Indirect && !repo.own(t, require.Mod.Path) && !slices.Contains(required, require.Mod.Path) {
				required = append(required, require.Mod.Path)
			}
		}
	}
	const page = "docs/dependencies.md"
	var explained []string
	for line := range strings.Lines(string(readFile(t, filepath.Join(repo.root, page)))) {
		rest, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, "`")
		if slices.Contains(explained, name) {
			t.Errorf("%s names %s twice", page, name)
		}
		explained = append(explained, name)
	}
	for _, name := range required {
		if !slices.Contains(explained, name) {
			t.Errorf("%s does not say why %s is here", page, name)
		}
	}
	for _, name := range explained {
		if !slices.Contains(required, name) {
			t.Errorf("%s explains %s, which no module requires directly", page, name)
		}
	}
}
