// Package gittest makes real repositories, and real servers for them on loopback,
// for the tests of gitgate. No program may contain it.
package gittest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Repo is a bare repository, with a clone in which commits are made.
type Repo struct {
	t testing.TB
	// Bare and Work are their folders.
	Bare, Work string
	n          int
}

// New makes a repository with one commit on the branch master: the files a and
// b/c, which hold the commit's number.
func New(t testing.TB) *Repo { return NewFormat(t, "sha1") }

// NewFormat is New with object ids of a format, sha1 or sha256.
func NewFormat(t testing.TB, format string) *Repo {
	t.Helper()
	root := t.TempDir()
	r := &Repo{t: t, Bare: filepath.Join(root, "group", "project.git"), Work: filepath.Join(root, "work")}
	Git(t, root, "init", "--quiet", "--bare", "--object-format="+format, "--initial-branch=master", r.Bare)
	Git(t, r.Bare, "config", "http.receivepack", "true")
	Git(t, r.Bare, "config", "receive.denyDeleteCurrent", "ignore")
	Git(t, root, "init", "--quiet", "--object-format="+format, "--initial-branch=master", r.Work)
	Git(t, r.Work, "remote", "add", "origin", r.Bare)
	r.Commit()
	return r
}

// URL is that of the file system.
func (r *Repo) URL() string { return "file://" + r.Bare }

// Commit writes the next number into all files, pushes it to master, and returns
// the commit.
func (r *Repo) Commit() string {
	r.t.Helper()
	r.n++
	for _, name := range []string{"a", "b/c"} {
		r.Write(name, fmt.Sprintln(r.n))
	}
	return r.Push("master")
}

// States makes commits in the bare repository, of which no branch is: in the one
// of number n each of the files f/0, f/1 and so on holds n.
func (r *Repo) States(number, files int) []string {
	r.t.Helper()
	var stream strings.Builder
	for n := range number {
		text := fmt.Sprint(n)
		fmt.Fprintf(&stream, "commit refs/states\nmark :%d\ncommitter A <a@example.org> %d +0000\ndata 1\nx\n", n+1, 1_700_000_000+n)
		for i := range files {
			fmt.Fprintf(&stream, "M 100644 inline f/%d\ndata %d\n%s\n", i, len(text), text)
		}
	}
	marks := filepath.Join(r.t.TempDir(), "marks")
	cmd := exec.Command("git", "fast-import", "--quiet", "--export-marks="+marks)
	cmd.Dir, cmd.Stdin = r.Bare, strings.NewReader(stream.String())
	cmd.Env = append(os.Environ(), Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		r.t.Fatalf("git fast-import: %v\n%s", err, out)
	}
	commits := make([]string, number)
	for line := range strings.Lines(Read(marks)) {
		var n int
		var hash string
		if _, err := fmt.Sscanf(line, ":%d %s", &n, &hash); err != nil {
			r.t.Fatal(err)
		}
		commits[n-1] = hash
	}
	return commits
}

// Number is what the files hold.
func (r *Repo) Number() string { return fmt.Sprintln(r.n) }

// Write writes a file of the clone.
func (r *Repo) Write(name, text string) {
	r.t.Helper()
	name = filepath.Join(r.Work, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// Push commits what there is and pushes it to a branch, by force.
func (r *Repo) Push(branch string) string {
	r.t.Helper()
	Git(r.t, r.Work, "add", "--all")
	Git(r.t, r.Work, "commit", "--quiet", "--allow-empty", "--message", "change")
	Git(r.t, r.Work, "push", "--quiet", "--force", "origin", "HEAD:refs/heads/"+branch)
	return r.Head()
}

// Head is the clone's commit.
func (r *Repo) Head() string { return Git(r.t, r.Work, "rev-parse", "HEAD") }

// Git runs git in a folder, without the machine's configuration, and returns what
// it says.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, err := Try(dir, args...)
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Git for what may fail.
func Try(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), Env()...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

// Env is an environment for git and nobody's configuration.
func Env() []string {
	return []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=protocol.file.allow", "GIT_CONFIG_VALUE_0=always",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
	}
}

// Read returns the text of a file, or "" if there is none.
func Read(name ...string) string {
	text, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		return ""
	}
	return string(text)
}
