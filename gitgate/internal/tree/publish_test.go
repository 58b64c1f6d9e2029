package tree_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/tree"
)

func symlink(c *config.Repo) { c.Publish = config.Symlink }

func TestPublish(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, symlink)
	first := must(t, c)
	is(t, c, r)
	link, err := os.Readlink(c.Directory)
	if err != nil || filepath.IsAbs(link) || !first.Cloned {
		t.Errorf("%s, %v, %+v", link, err, first)
	}
	must(t, c)
	if again, _ := os.Readlink(c.Directory); again != link {
		t.Errorf("nothing has changed, and the link is %s", again)
	}
	r.Commit()
	next := must(t, c)
	if next.Previous != first.Hash[:12] {
		t.Errorf("%+v", next)
	}
	is(t, c, r)
	// A reader that is in the old tree reads on.
	if old := gittest.Read(filepath.Dir(c.Directory), link, "a"); old != "1\n" {
		t.Errorf("the old tree has %q", old)
	}
	// Who changes the published tree gets a new one.
	write(t, "changed", c.Directory, "a")
	if result := must(t, c); !result.Repaired {
		t.Errorf("%+v", result)
	}
	is(t, c, r)
}

// TestPublishExec: what follows an update may change tracked files, which is no
// reason to publish the tree anew, unless somebody changes them once more.
func TestPublishExec(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, symlink)
	tr, err := tree.Open(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	result, err := tr.Update(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	write(t, "built", c.Directory, "a")
	if err := tr.SetDone(t.Context(), result.Hash); err != nil || tr.Done() != result.Hash {
		t.Fatal(err, tr.Done())
	}
	before, _ := os.Readlink(c.Directory)
	result, err = tr.Update(t.Context())
	if now, _ := os.Readlink(c.Directory); err != nil || result.Repaired || now != before || gittest.Read(c.Directory, "a") != "built" {
		t.Errorf("%+v, %v: the link led to %s, and leads to %s", result, err, before, now)
	}
	write(t, "broken", c.Directory, "a")
	if result, err = tr.Update(t.Context()); err != nil || !result.Repaired {
		t.Errorf("%+v, %v", result, err)
	}
	is(t, c, r)
}

func TestPublishRefuses(t *testing.T) {
	r := gittest.New(t)
	for name, prepare := range map[string]func(string) error{
		"a folder with files": func(dir string) error {
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)
		},
		"a file":         func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"another's link": func(dir string) error { return os.Symlink("/", dir) },
	} {
		t.Run(name, func(t *testing.T) {
			c := follow(t, r, symlink)
			if err := prepare(c.Directory); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(c.Directory)
			fails(t, c, gitcmd.Refused)
			if now, err := os.Lstat(c.Directory); err != nil || !os.SameFile(before, now) {
				t.Errorf("it is replaced: %v", err)
			}
		})
	}
}

// TestPublishDamaged damages what a fetch notices, and what only a new tree does.
func TestPublishDamaged(t *testing.T) {
	for name, damage := range map[string]func(bare, blob string) error{
		"HEAD":         func(bare, _ string) error { return os.Remove(filepath.Join(bare, "HEAD")) },
		"missing blob": func(_, blob string) error { return os.Remove(blob) },
		"corrupt blob": func(_, blob string) error {
			return errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, []byte("garbage"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := gittest.New(t)
			r.Write("same", "in every commit")
			r.Push("master")
			c := follow(t, r, symlink)
			must(t, c)
			r.Commit()
			bare := filepath.Join(tree.StateDir(c.Directory), "repo.git")
			id := gittest.Git(t, bare, "rev-parse", "refs/remotes/origin/master:same")
			if err := damage(bare, filepath.Join(bare, "objects", id[:2], id[2:])); err != nil {
				t.Fatal(err)
			}
			if result := must(t, c); !result.Repaired || result.Cloned || result.Hash != r.Head() {
				t.Errorf("%+v", result)
			}
			is(t, c, r)
		})
	}
}

// TestPublishClock: a clock that was ahead does not keep old trees for years.
func TestPublishClock(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, func(c *config.Repo) { c.Publish, c.Keep = config.Symlink, 1 })
	must(t, c)
	trees := filepath.Join(tree.StateDir(c.Directory), "trees")
	for range 3 {
		r.Commit()
		must(t, c)
		all, err := os.ReadDir(trees)
		if err != nil {
			t.Fatal(err)
		}
		future := time.Now().Add(1000 * time.Hour)
		for _, e := range all {
			if err := os.Chtimes(filepath.Join(trees, e.Name()), future, future); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.Commit()
	must(t, c)
	if all, err := os.ReadDir(trees); err != nil || len(all) != 2 {
		t.Errorf("%d trees are there: %v", len(all), err)
	}
}

// TestPublishFails: what fails leaves the published tree, and no other.
func TestPublishFails(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, func(c *config.Repo) { c.Publish, c.Submodules = config.Symlink, true })
	must(t, c)
	before, _ := os.Readlink(c.Directory)
	sub := gittest.New(t)
	gittest.Git(t, r.Work, "submodule", "--quiet", "add", sub.URL(), "sub")
	r.Push("master")
	fails(t, c, gitcmd.Submodule)
	if now, _ := os.Readlink(c.Directory); now != before {
		t.Errorf("the link is %s", now)
	}
	if trees, err := os.ReadDir(filepath.Join(tree.StateDir(c.Directory), "trees")); err != nil || len(trees) != 1 {
		t.Errorf("%v, %v", trees, err)
	}
}

// TestPublishKilled: git forgets a tree that it was making when it was killed.
func TestPublishKilled(t *testing.T) {
	r := gittest.New(t)
	c := follow(t, r, symlink)
	first := must(t, c).Hash
	state := tree.StateDir(c.Directory)
	bare, trees := filepath.Join(state, "repo.git"), filepath.Join(state, "trees")
	// As git itself locks it, until it is there.
	gittest.Git(t, bare, "worktree", "add", "--quiet", "--lock", "--detach", filepath.Join(trees, "00000002-000000000000"), first)
	write(t, "", state, "running")
	r.Commit()
	must(t, c)
	is(t, c, r)
	known, err := os.ReadDir(filepath.Join(bare, "worktrees"))
	if there, err2 := os.ReadDir(trees); err != nil || err2 != nil || len(known) != len(there) {
		t.Errorf("git knows %v, and there are %v (%v, %v)", known, there, err, err2)
	}
}

// TestReaders reads all the time while 200 pushes arrive: every reader that goes
// through the link once sees one state of all files, and none goes backwards.
func TestReaders(t *testing.T) {
	const pushes, files, readers = 200, 20, 2
	r := gittest.New(t)
	commits := r.States(pushes+1, files)
	push := func(n int) {
		if err := os.WriteFile(filepath.Join(r.Bare, "refs", "heads", "master"), []byte(commits[n]+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	push(0)
	c := follow(t, r, symlink)
	must(t, c)
	done := make(chan struct{})
	var wait sync.WaitGroup
	for range readers {
		wait.Go(func() {
			tick := time.NewTicker(time.Millisecond) // the others want the CPU too
			defer tick.Stop()
			last := -1
			for {
				n, err := readOnce(c.Directory, files)
				if err != nil || n < last {
					t.Errorf("after %d there is %d: %v", last, n, err)
					return
				}
				last = n
				select {
				case <-done:
					return
				case <-tick.C:
				}
			}
		})
	}
	for n := range pushes {
		push(n + 1)
		must(t, c)
	}
	close(done)
	wait.Wait()
	if n, err := readOnce(c.Directory, files); err != nil || n != pushes {
		t.Errorf("at the end there is %d: %v", n, err)
	}
}

// readOnce resolves the link and reads all files.
func readOnce(link string, files int) (int, error) {
	dir, err := filepath.EvalSymlinks(link)
	if err != nil {
		return 0, err
	}
	first := ""
	for i := range files {
		text, err := os.ReadFile(filepath.Join(dir, "f", fmt.Sprint(i)))
		if err != nil {
			return 0, err
		}
		if i == 0 {
			first = string(text)
		} else if first != string(text) {
			return 0, fmt.Errorf("half a tree: %s and %s", first, text)
		}
	}
	var n int
	_, err = fmt.Sscan(strings.TrimSpace(first), &n)
	return n, err
}
