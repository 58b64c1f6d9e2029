package tree_test

import (
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gittest"
)

// TestLFS: large files come along where that is wanted; else their pointers.
func TestLFS(t *testing.T) {
	r := gittest.New(t)
	gittest.Git(t, r.Work, "lfs", "install", "--local")
	gittest.Git(t, r.Work, "lfs", "track", "*.bin")
	large := strings.Repeat("large\n", 1000)
	r.Write("large.bin", large)
	r.Push("master")
	with, without := follow(t, r, func(c *config.Repo) { c.LFS = true }), follow(t, r, nil)
	must(t, with)
	must(t, without)
	if got := gittest.Read(with.Directory, "large.bin"); got != large {
		t.Errorf("with lfs it is %.100q", got)
	}
	if got := gittest.Read(without.Directory, "large.bin"); !strings.HasPrefix(got, "version https://git-lfs") {
		t.Errorf("without it is %.100q", got)
	}
}
