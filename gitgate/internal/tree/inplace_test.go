package tree_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/tree"
)

func write(t *testing.T, text string, name ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(name...), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCloneAndUpdate(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	first := must(t, c)
	if !first.Cloned || first.Hash != r.Head() || first.Previous != "" {
		t.Errorf("%+v", first)
	}
	is(t, c, r)
	if again := must(t, c); again.Cloned || again.Hash != first.Hash || again.Previous != first.Hash {
		t.Errorf("%+v", again)
	}
	r.Commit()
	if next := must(t, c); next.Hash != r.Head() || next.Previous != first.Hash || next.Cloned {
		t.Errorf("%+v", next)
	}
	is(t, c, r)
	if got := gittest.Git(t, c.Directory, "rev-parse", "origin/master", "--abbrev-ref", "HEAD"); got != r.Head()+"\nmaster" {
		t.Errorf("the remote's branch and HEAD are %s", got)
	}
}

// TestEmptyFolder: a folder that is there already, such as a mount point's.
func TestEmptyFolder(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	if err := os.Mkdir(c.Directory, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, c)
	is(t, c, r)
}

// TestLink: a folder may be a symbolic link, which stays what it is; it is not
// replaced by a clone.
func TestLink(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // not everybody may make links there
	}
	r := gittest.New(t)
	c := follow(t, r, nil)
	place := filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(os.Mkdir(place, 0o755), os.Symlink(place, c.Directory)); err != nil {
		t.Fatal(err)
	}
	if err := fails(t, c, gitcmd.Refused); !strings.Contains(err.Error(), "give that folder") {
		t.Error(err)
	}
	gittest.Git(t, filepath.Dir(place), "clone", "--quiet", r.URL(), place)
	r.Commit()
	must(t, c)
	is(t, c, r)
	if to, err := os.Readlink(c.Directory); err != nil || to != place {
		t.Errorf("the link leads to %q (%v)", to, err)
	}
}

// TestDamagedTree: up to date is no reason to leave files damaged. What is not
// tracked stays, unless clean says otherwise.
func TestDamagedTree(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	write(t, "changed", c.Directory, "a")
	write(t, "mine", c.Directory, "untracked")
	if err := os.RemoveAll(filepath.Join(c.Directory, "b")); err != nil {
		t.Fatal(err)
	}
	must(t, c)
	is(t, c, r)
	if gittest.Read(c.Directory, "untracked") != "mine" {
		t.Error("an untracked file is gone")
	}
	c.Clean = true
	must(t, c)
	if gittest.Read(c.Directory, "untracked") != "" {
		t.Error("clean leaves an untracked file")
	}
}

func TestRewrittenHistory(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	r.Commit()
	must(t, c)
	gittest.Git(t, r.Work, "reset", "--quiet", "--hard", "HEAD~1")
	r.Commit()
	if result := must(t, c); !result.Rewritten {
		t.Errorf("it is not told: %+v", result)
	}
	is(t, c, r)
	r.Commit()
	if result := must(t, c); result.Rewritten {
		t.Errorf("nothing was rewritten: %+v", result)
	}
	// Commits made here are of no account either.
	gittest.Git(t, c.Directory, "commit", "--quiet", "--allow-empty", "-m", "here")
	must(t, c)
	is(t, c, r)
}

// TestAnnotatedTag follows one; its object's id is not the commit's.
func TestAnnotatedTag(t *testing.T) {
	r := gittest.New(t)
	tag := func(name string) {
		gittest.Git(t, r.Work, "tag", "--force", "-a", "-m", "x", name)
		gittest.Git(t, r.Work, "push", "--quiet", "--force", "origin", "refs/tags/"+name)
	}
	tag("master") // there is a branch of that name as well
	tagged := r.Head()
	c := follow(t, r, func(c *config.Repo) { c.Tag = true })
	if result := must(t, c); result.Hash != tagged {
		t.Errorf("%+v, want the commit %s", result, tagged)
	}
	is(t, c, r)
	r.Commit() // the branch goes on
	if result := must(t, c); result.Hash != tagged || result.Previous != tagged {
		t.Errorf("a tag that stays: %+v", result)
	}
	tag("master")
	if result := must(t, c); result.Hash != r.Head() {
		t.Errorf("a tag that moves: %+v", result)
	}
	is(t, c, r)
}

// TestLabelChange goes to another branch, also where one's name is in the
// other's way.
func TestLabelChange(t *testing.T) {
	r := gittest.New(t)
	gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:refs/heads/a")
	c := follow(t, r, func(c *config.Repo) { c.Label = "a" })
	must(t, c)
	gittest.Git(t, r.Work, "push", "--quiet", "origin", ":refs/heads/a", "HEAD:refs/heads/a/b")
	r.Write("a", "other\n")
	r.Push("a/b")
	c.Label = "a/b"
	result := must(t, c)
	if result.Hash != r.Head() || gittest.Read(c.Directory, "a") != "other\n" {
		t.Errorf("%+v", result)
	}
	if head := gittest.Git(t, c.Directory, "symbolic-ref", "HEAD"); head != "refs/heads/a/b" {
		t.Errorf("HEAD is %s", head)
	}
}

// TestDeletedBranch keeps what there is.
func TestDeletedBranch(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	gittest.Git(t, r.Work, "push", "--quiet", "origin", ":refs/heads/master")
	if err := fails(t, c, gitcmd.NoRef); !gitcmd.NoRef.Permanent() || !strings.Contains(err.Error(), "stays as it is") {
		t.Error(err)
	}
	is(t, c, r)
}

func TestMismatch(t *testing.T) {
	r, other := gittest.New(t), gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	d := follow(t, other, func(d *config.Repo) { d.Directory = c.Directory })
	fails(t, d, gitcmd.Mismatch)
	is(t, c, r)
}

func TestForeignFolder(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	if err := os.Mkdir(c.Directory, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, "precious", c.Directory, "file")
	fails(t, c, gitcmd.Refused)
	if gittest.Read(c.Directory, "file") != "precious" {
		t.Error("the file is gone")
	}
}

// TestNoRemote: what cannot be cloned leaves nothing, and is tried again.
func TestNoRemote(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	if err := os.Rename(r.Bare, r.Bare+".away"); err != nil {
		t.Fatal(err)
	}
	if reason := gitcmd.ReasonOf(fails(t, c, gitcmd.NoRepo)); reason.Permanent() {
		t.Error("it is not tried again")
	}
	if _, err := os.Stat(c.Directory); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a clone is there: %v", err)
	}
	if err := os.Rename(r.Bare+".away", r.Bare); err != nil {
		t.Fatal(err)
	}
	must(t, c)
	is(t, c, r)
}

// TestDamagedRepository damages .git in several ways: it is made anew, and files
// that are not tracked stay.
func TestDamagedRepository(t *testing.T) {
	for name, damage := range map[string]func(git string) error{
		"objects": func(git string) error {
			return filepath.WalkDir(filepath.Join(git, "objects"), func(name string, entry os.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				return errors.Join(os.Chmod(name, 0o600), os.Truncate(name, 0))
			})
		},
		"no objects": func(git string) error { return os.RemoveAll(filepath.Join(git, "objects")) },
		"HEAD":       func(git string) error { return os.Remove(filepath.Join(git, "HEAD")) },
		"index": func(git string) error {
			return os.WriteFile(filepath.Join(git, "index"), []byte("garbage, and more than twelve bytes of it"), 0o600)
		},
		"config": func(git string) error { return os.WriteFile(filepath.Join(git, "config"), []byte("[garbage"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New(t)
			r.Write("old", "x")
			r.Push("master")
			c := follow(t, r, nil)
			must(t, c)
			write(t, "mine", c.Directory, "untracked")
			if err := os.Remove(filepath.Join(r.Work, "old")); err != nil {
				t.Fatal(err)
			}
			r.Commit()
			if err := damage(filepath.Join(c.Directory, ".git")); err != nil {
				t.Fatal(err)
			}
			result := must(t, c)
			if !result.Repaired {
				t.Errorf("%+v", result)
			}
			is(t, c, r)
			if gittest.Read(c.Directory, "untracked") != "mine" {
				t.Error("an untracked file is gone")
			}
			if gittest.Read(c.Directory, "old") != "" {
				t.Error("a file that was deleted is there still")
			}
			if left, err := os.ReadDir(tree.StateDir(c.Directory)); err != nil || len(left) > 2 {
				t.Errorf("left: %v (%v)", left, err)
			}
		})
	}
}

// TestDamagedAndAway: while a damaged repository cannot be made anew, it is not
// removed.
func TestDamagedAndAway(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	if err := os.Remove(filepath.Join(c.Directory, ".git", "HEAD")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(r.Bare, r.Bare+".away"); err != nil {
		t.Fatal(err)
	}
	if _, err := update(t, c); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Stat(filepath.Join(c.Directory, ".git", "config")); err != nil || gittest.Read(c.Directory, "a") != r.Number() {
		t.Errorf("the old one is gone: %v", err)
	}
}

// TestDamagedInsideAnother: git must not take the repository above for it.
func TestDamagedInsideAnother(t *testing.T) {
	r := gittest.New(t)
	above := t.TempDir()
	gittest.Git(t, above, "init", "--quiet")
	write(t, "above", above, "a")
	gittest.Git(t, above, "add", "a")
	gittest.Git(t, above, "commit", "--quiet", "-m", "above")
	head := gittest.Git(t, above, "rev-parse", "HEAD")
	c := follow(t, r, func(c *config.Repo) { c.Directory = filepath.Join(above, "site") })
	must(t, c)
	if err := os.Remove(filepath.Join(c.Directory, ".git", "HEAD")); err != nil {
		t.Fatal(err)
	}
	must(t, c)
	is(t, c, r)
	if gittest.Git(t, above, "rev-parse", "HEAD") != head || gittest.Read(above, "a") != "above" {
		t.Error("the repository above was changed")
	}
}

// TestStaleLock: what a killed run of ours left is removed, what another git has
// is not.
func TestStaleLock(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, nil)
	must(t, c)
	r.Commit()
	r.Write("new", "theirs")
	r.Push("master")
	write(t, "mine", c.Directory, "new")
	lock := filepath.Join(c.Directory, ".git", "index.lock")
	write(t, "", lock)
	fails(t, c, gitcmd.Locked)
	if gittest.Read(c.Directory, "new") != "mine" {
		t.Error("an untracked file is gone, although nothing was updated")
	}
	if _, err := os.Stat(lock); err != nil {
		t.Error("somebody else's lock is gone")
	}
	write(t, "", tree.StateDir(c.Directory), "running")
	must(t, c)
	is(t, c, r)
}

// TestSubmodule: one that cannot be fetched leaves the former tree.
func TestSubmodule(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, func(c *config.Repo) { c.Submodules = true })
	must(t, c)
	// A file URL is not allowed for a submodule: a hostile repository could read
	// what is on this machine.
	sub := gittest.New(t)
	gittest.Git(t, r.Work, "submodule", "--quiet", "add", sub.URL(), "sub")
	before := r.Head()
	r.Write("a", "with a submodule\n")
	r.Push("master")
	fails(t, c, gitcmd.Submodule)
	if got := gittest.Git(t, c.Directory, "rev-parse", "HEAD"); got != before || gittest.Read(c.Directory, "a") != r.Number() {
		t.Errorf("the former commit is not back: HEAD is %s", got)
	}
}

// TestDepth: without a depth there is the whole history again.
func TestDepth(t *testing.T) {
	for _, publish := range []config.Publish{config.InPlace, config.Symlink} {
		r := gittest.New(t)
		r.Commit()
		r.Commit()
		c := follow(t, r, func(c *config.Repo) { c.Depth, c.Publish = 1, publish })
		must(t, c)
		for _, depth := range []int{1, 0} {
			r.Commit()
			c.Depth = depth
			must(t, c)
			is(t, c, r)
			want := "1"
			if depth == 0 {
				want = gittest.Git(t, r.Work, "rev-list", "--count", "HEAD")
			}
			if got := gittest.Git(t, c.Directory, "rev-list", "--count", "HEAD"); got != want {
				t.Errorf("%q: with depth %d %s commits are there, want %s", publish, depth, got, want)
			}
		}
	}
}

// TestHostileTree: a repository whose content would make git do things.
func TestHostileTree(t *testing.T) {
	r := gittest.New(t)
	marker := filepath.Join(t.TempDir(), "ran")
	c := follow(t, r, nil)
	must(t, c)
	for _, hook := range []string{"post-checkout", "post-merge", "reference-transaction", "post-index-change"} {
		name := filepath.Join(c.Directory, ".git", "hooks", hook)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("#!/bin/sh\ntouch "+marker+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	gittest.Git(t, c.Directory, "config", "core.fsmonitor", "touch "+marker)
	r.Commit()
	must(t, c)
	if got := gittest.Read(c.Directory, "a"); got != r.Number() {
		t.Errorf("a is %q", got)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a hook was run")
	}
}

// TestSHA256 follows a repository whose object ids are longer, in both modes; and
// one that was made anew with them.
func TestSHA256(t *testing.T) {
	for _, publish := range []config.Publish{config.InPlace, config.Symlink} {
		r := gittest.NewFormat(t, "sha256")
		c := follow(t, r, func(c *config.Repo) { c.Publish = publish })
		if first := must(t, c); !first.Cloned || len(first.Hash) != 64 {
			t.Errorf("%+v", first)
		}
		is(t, c, r)
		r.Commit()
		if next := must(t, c); next.Cloned || next.Repaired || next.Hash != r.Head() {
			t.Errorf("%+v", next)
		}
		is(t, c, r)
		old := gittest.New(t)
		if err := errors.Join(os.Rename(r.Bare, r.Bare+".away"), os.Rename(old.Bare, r.Bare)); err != nil {
			t.Fatal(err)
		}
		if next := must(t, c); !next.Repaired || next.Hash != old.Head() {
			t.Errorf("%+v", next)
		}
		is(t, c, old)
	}
}

// TestCollect: git cleans up where that was asked for, and only there.
func TestCollect(t *testing.T) {
	for _, gc := range []bool{false, true} {
		r := gittest.New(t)
		c := follow(t, r, func(c *config.Repo) { c.GC = gc })
		must(t, c)
		gittest.Git(t, c.Directory, "config", "gc.autoPackLimit", "1")
		for range 3 { // each a pack of its own
			r.Commit()
			must(t, c)
			gittest.Git(t, c.Directory, "-c", "gc.auto=0", "repack", "--quiet")
		}
		must(t, c)
		packs, err := filepath.Glob(filepath.Join(c.Directory, ".git", "objects", "pack", "*.pack"))
		if err != nil || (len(packs) == 1) != gc {
			t.Errorf("gc %v: %d packs, %v", gc, len(packs), err)
		}
		is(t, c, r)
	}
}

// TestForeignRemote: a remote in a folder of this machine may be somebody else's, in
// a path that a shell would take apart.
func TestForeignRemote(t *testing.T) {
	r := gittest.New(t)
	odd := filepath.Join(filepath.Dir(r.Bare), "odd'name$HOME$(x).git")
	if err := os.Rename(r.Bare, odd); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 { // nobody else can give files away
		err := filepath.WalkDir(odd, func(name string, _ os.DirEntry, err error) error {
			return errors.Join(err, os.Lchown(name, 65534, 65534))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, prefix := range []string{"file://", ""} {
		c := follow(t, r, func(c *config.Repo) { c.URL = prefix + odd })
		must(t, c)
		is(t, c, r)
	}
}
