package tree_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/tree"
)

// TestKilledReset: what a reset has written that was killed is in no index, and
// yet does not stay when the branch has gone back meanwhile. Files of somebody's
// that the reset had not come to stay.
func TestKilledReset(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	first := must(t, c).Hash
	long := strings.Repeat("a line\n", 10000)
	lines := strings.ReplaceAll(long, "\n", "\r\n")
	for name, text := range map[string]string{
		"a": "another", "b/whole": long, "new/folder/whole": "x", "new/half": long, "new/created": "x",
		".gitattributes": "*.txt text eol=crlf\n", "whole.txt": long, "half.txt": long,
		"theirs": "of the commit", "new/theirs.txt": "of the commit", "longer": "x", "folder": "x", "missing": "x",
	} {
		r.Write(name, text)
	}
	next := r.Push("master")
	gittest.Git(t, c.Directory, "fetch", "--quiet", "origin", "master")
	for name, text := range map[string]string{
		"a": "another", "b/whole": long, "new/folder/whole": "x", "new/half": long[:20000], "new/created": "",
		".gitattributes": "*.txt text eol=crlf\n", "whole.txt": lines, "half.txt": lines[:20001],
		"theirs": "mine", "new/theirs.txt": "mine", "longer": "xy", "folder/theirs": "mine", "untracked": "mine",
	} {
		name = filepath.Join(c.Directory, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, text, name)
	}
	write(t, first+" "+next+"\n", tree.StateDir(c.Directory), "running")
	gittest.Git(t, r.Work, "reset", "--quiet", "--hard", first)
	gittest.Git(t, r.Work, "push", "--quiet", "--force", "origin", "master")
	if result := must(t, c); result.Previous != first {
		t.Errorf("%+v", result)
	}
	is(t, c, r)
	const want = "?? folder/theirs\n?? longer\n?? new/theirs.txt\n?? theirs\n?? untracked"
	if got := gittest.Git(t, c.Directory, "status", "--porcelain", "--untracked-files=all"); got != want {
		t.Errorf("there is:\n%s\nwant:\n%s", got, want)
	}
	if _, err := os.Stat(filepath.Join(tree.StateDir(c.Directory), "running")); !os.IsNotExist(err) {
		t.Errorf("the note of the killed run is left: %v", err)
	}
}
