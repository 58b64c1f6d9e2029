package house_test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestReference fails when docs/reference says of the options what the programs
// no longer do.
func TestReference(t *testing.T) {
	run(t, command{dir: loadRepository(t).root, args: []string{"scripts/reference", "--check"}})
}

// committed is a copy of the repository with everything committed.
func committed(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a copy")
	run(t, command{dir: loadRepository(t).root, args: []string{"scripts/ship/copy", dir}})
	return dir
}

// TestShipRelease makes the release of one program for one platform twice,
// under other circumstances, and looks at what is in it.
func TestShipRelease(t *testing.T) {
	const version = "v0.98.7"
	dir := committed(t)
	work := t.TempDir()
	key := filepath.Join(work, "key")
	run(t, command{dir: work, args: []string{"ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key}})
	var made [2]string
	for i, env := range [][]string{
		{"TZ=Asia/Tokyo", "LC_ALL=C.UTF-8", "GOFLAGS=-buildvcs=false", "GOAMD64=v2"},
		{"TZ=", "SIGNING_KEY=" + key},
	} {
		made[i] = filepath.Join(work, []string{"one", "two"}[i])
		temp := t.TempDir()
		run(t, command{dir: dir, args: []string{"scripts/release", version}, env: append(env,
			"TOOLS=wsproxy", "PLATFORMS=linux/amd64", "OUT="+made[i], "TMPDIR="+temp)})
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("left in the temporary folder: %v (%v)", left, err)
		}
	}
	signature := []string{"SHA256SUMS.sig", "allowed_signers"}
	files := tree(t, made[0])
	if want := slices.Sorted(slices.Values(append(slices.Clone(files), signature...))); !slices.Equal(tree(t, made[1]), want) {
		t.Errorf("the second time there are %q, want %q", tree(t, made[1]), want)
	}
	for _, name := range files {
		if !bytes.Equal(readFile(t, filepath.Join(made[0], name)), readFile(t, filepath.Join(made[1], name))) {
			t.Errorf("%s has other bytes when it is made again", name)
		}
	}

	folder := "converge-wsproxy_" + version + "_linux_amd64"
	for _, want := range []string{
		folder + ".tar.gz", "converge-wsproxy_0.98.7_amd64.deb", "converge_" + version + ".spdx.json", "RELEASE_NOTES.md", "SHA256SUMS",
		"apt/pool/main/c/converge/converge-wsproxy_0.98.7_amd64.deb", "apt/dists/stable/Release", "apt/dists/stable/main/binary-amd64/Packages.gz",
	} {
		if !slices.Contains(files, want) {
			t.Errorf("there is no %s among %q", want, files)
		}
	}
	run(t, command{dir: made[1], args: []string{"sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"}})
	run(t, command{dir: made[1], args: []string{"bash", "-c",
		"ssh-keygen -Y verify -f allowed_signers -I converge -n converge-release -s SHA256SUMS.sig <SHA256SUMS"}})
	checkSBOM(t, readFile(t, filepath.Join(made[0], "converge_"+version+".spdx.json")), version)

	run(t, command{dir: work, args: []string{"tar", "-xzf", filepath.Join(made[0], folder+".tar.gz")}})
	folder = filepath.Join(work, folder)
	want := []string{
		"LICENSE", "THIRD_PARTY_LICENSES", "completions/_wsproxy", "completions/wsproxy.bash",
		"completions/wsproxy.fish", "completions/wsproxy.ps1", "man/wsproxy.1", "wsproxy",
	}
	if got := tree(t, folder); !slices.Equal(got, want) {
		t.Errorf("the archive has %q, want %q", got, want)
	}
	checkStatic(t, filepath.Join(folder, "wsproxy"))
	out := run(t, command{dir: folder, args: []string{"./wsproxy", "--version"}})
	if !strings.HasPrefix(out, "wsproxy "+version+" ") {
		t.Errorf("it calls itself %q, want %s", out, version)
	}
	for tool, args := range map[string][]string{
		"bash":       {"-n", "completions/wsproxy.bash"},
		"shellcheck": {"completions/wsproxy.bash"},
		"mandoc":     {"-T", "lint", "-W", "warning", "man/wsproxy.1"},
	} {
		run(t, command{dir: folder, args: append([]string{tool}, args...)})
	}
}

// tree lists the files below a folder, sorted.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	return files
}

// checkStatic fails if a program asks for a loader or a library.
func checkStatic(t *testing.T, name string) {
	t.Helper()
	program, err := elf.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is linked dynamically", name)
		}
	}
}

// checkSBOM reads the list of what is inside, as far as SPDX 2.3 demands.
func checkSBOM(t *testing.T, data []byte, version string) {
	t.Helper()
	var doc struct {
		SPDXVersion, DataLicense, SPDXID, Name, DocumentNamespace string

		Packages []struct {
			Name, SPDXID, VersionInfo, DownloadLocation, LicenseDeclared string
		}
		Relationships []struct{ SPDXElementID, RelationshipType, RelatedSPDXElement string }
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || doc.DataLicense != "CC0-1.0" || doc.SPDXID != "SPDXRef-DOCUMENT" || doc.Name == "" || !strings.HasPrefix(doc.DocumentNamespace, "https://") {
		t.Errorf("the head is %+v", doc)
	}
	known := map[string]string{doc.SPDXID: ""}
	names := map[string]string{}
	for _, p := range doc.Packages {
		if known[p.SPDXID] != "" || p.DownloadLocation == "" {
			t.Errorf("the package %+v is there twice or not whole", p)
		}
		known[p.SPDXID], names[p.Name] = p.Name, p.VersionInfo
		if p.LicenseDeclared == "NOASSERTION" {
			t.Errorf("the licence of %s is none that release knows: teach it", p.Name)
		}
	}
	if names["converge-wsproxy"] != version || names["stdlib"] == "" || names["nhooyr.io/websocket"] == "" || names["golang.org/x/crypto"] == "" {
		t.Errorf("it lists %v", names)
	}
	for _, r := range doc.Relationships {
		_, from := known[r.SPDXElementID]
		if _, to := known[r.RelatedSPDXElement]; !from || !to {
			t.Errorf("%+v leads nowhere", r)
		}
	}
	if len(doc.Relationships) != len(doc.Packages) {
		t.Errorf("%d relationships for %d packages of one program", len(doc.Relationships), len(doc.Packages))
	}
}

// TestShipTags sets a version and its tags in a copy.
func TestShipTags(t *testing.T) {
	const version = "v0.98.7"
	dir := committed(t)
	identity := []string{
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
	}
	// refused runs scripts/tag, which must fail and set nothing.
	refused := func(want string, env ...string) {
		t.Helper()
		_, stderr, err := command{dir: dir, args: []string{"scripts/tag", version}, env: append(env, identity...)}.start(t.Context())
		if err == nil || !strings.Contains(stderr, want) {
			t.Errorf("%v, %q, want %q", err, stderr, want)
		}
	}
	tags := func() []string {
		return strings.Fields(run(t, command{dir: dir, args: []string{"git", "tag", "--list"}}))
	}
	// What is unreleased becomes the notes of the version.
	notes := func(of string) string {
		return run(t, command{dir: dir, args: []string{"sh", "-c", "go run ./release notes " + of + " <CHANGELOG.md"}})
	}
	unreleased := notes("Unreleased")
	refused("another version", "DRY_RUN=no")
	refused("CHANGELOG.md has no section", "DRY_RUN=no")
	for range 2 { // the second time changes nothing
		run(t, command{dir: dir, args: []string{"scripts/set-version", version}})
	}
	if got := notes(version); got != unreleased {
		t.Errorf("the notes of %s are %q, want what was unreleased, %q", version, got, unreleased)
	}
	refused("not committed", "DRY_RUN=no")
	run(t, command{dir: dir, env: identity, args: []string{"git", "commit", "--quiet", "--all", "--message", version}})
	if left := run(t, command{dir: dir, args: []string{"sh", "-c", "git grep -n 'converge/pkg v0[.]1[.]' -- \"*.mod\" go.work || true"}}); left != "" {
		t.Errorf("the old version is still in %s", left)
	}
	run(t, command{dir: dir, args: []string{"go", "list", "-m"}})

	run(t, command{dir: dir, env: identity, args: []string{"scripts/tag", version}})
	if got := tags(); len(got) > 0 {
		t.Errorf("a dry run set %q", got)
	}
	run(t, command{dir: dir, env: append(identity, "DRY_RUN=no"), args: []string{"scripts/tag", version}})
	repo := loadRepository(t)
	var want []string
	for _, m := range repo.modules {
		switch m.dir {
		case ".":
			want = append(want, version)
		case unshipped:
		default:
			want = append(want, m.dir+"/"+version)
		}
	}
	if got := tags(); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("the tags are %q, want %q", got, want)
	}
	refused("is there already", "DRY_RUN=no")

	// What no release may be called.
	for _, wrong := range []string{"", "0.2.0", "v0.2", "v2.0.0", "v0.2.0 x", "v0.2.0-01", "v1.0.0+build"} {
		for _, script := range []string{"scripts/tag", "scripts/release", "scripts/set-version"} {
			cmd := exec.CommandContext(t.Context(), filepath.Join(dir, script), wrong)
			if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 2 {
				t.Errorf("%s %q: %v, want exit 2", script, wrong, err)
			}
		}
	}
}
