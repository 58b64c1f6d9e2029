package tree_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
)

// TestManyAdded: an update that fails leaves none of the files that it has added,
// though their names fill more than is kept of what git says: elsewhere a path
// cannot be as long.
func TestManyAdded(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	before := r.Head()
	deep := strings.Repeat(strings.Repeat("d", 200)+"/", 15)
	for i := range 1500 {
		r.Write(fmt.Sprint(deep, i), "")
	}
	gittest.Git(t, r.Work, "add", "--all")
	// No file can have this name, and so the index stays that of the former commit.
	gittest.Git(t, r.Work, "update-index", "--add", "--cacheinfo", "100644,"+gittest.Git(t, r.Work, "rev-parse", "HEAD:a")+","+strings.Repeat("x", 300))
	gittest.Git(t, r.Work, "commit", "--quiet", "--message", "many")
	gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:master")
	fails(t, c, gitcmd.Other)
	if got := gittest.Git(t, c.Directory, "rev-parse", "HEAD"); got != before {
		t.Errorf("HEAD is %s", got)
	}
	if _, err := os.Lstat(filepath.Join(c.Directory, deep[:200])); !os.IsNotExist(err) {
		t.Errorf("files of the commit that failed are left: %v", err)
	}
}
