package tree

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
)

// begin notes that git is at work, and clears what a run left that was killed.
// What the lock files of other programs are stays. It returns what that run has
// noted; its file stays, since this one may be killed before it has made use of it.
func (t *Tree) begin(gitDir string) (from, to string, err error) {
	name := filepath.Join(t.state, runningFile)
	text, err := os.ReadFile(name)
	if err != nil {
		return "", "", os.WriteFile(name, nil, 0o600)
	}
	n := clearLocks(gitDir)
	if t.repo.Publish == config.Symlink { // elsewhere such locks may be the user's
		n += unlockTrees(gitDir)
	}
	t.log.Info("a run was interrupted: going on from there", "lock_files_removed", n)
	if from, to, _ = strings.Cut(strings.TrimSpace(string(text)), " "); !isID(from) || !isID(to) {
		return "", "", nil
	}
	return from, to, nil
}

// note adds from which commit to which one the files go now.
func (t *Tree) note(from, to string) error {
	return os.WriteFile(filepath.Join(t.state, runningFile), []byte(from+" "+to+"\n"), 0o600)
}

// end notes that git has ended, unless it was killed: then the next run clears up.
func (t *Tree) end(err error) {
	if !gitcmd.Killed(err) {
		_ = os.Remove(filepath.Join(t.state, runningFile))
	}
}

// clearLocks removes what a killed git leaves: lock files, and what is not
// whole. The caller holds our own lock, so it was our git.
func clearLocks(gitDir string) (removed int) {
	_ = filepath.WalkDir(gitDir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what cannot be read is left
		}
		if !entry.IsDir() && strings.HasSuffix(entry.Name(), ".lock") && os.Remove(name) == nil {
			removed++
		}
		return nil
	})
	return removed + clearRests(gitDir, time.Time{})
}

// unlockTrees lets git forget trees that it was making: such a one it locks until it
// is there.
func unlockTrees(gitDir string) (removed int) {
	folder := filepath.Join(gitDir, "worktrees")
	all, _ := os.ReadDir(folder) // what cannot be read is left
	for _, e := range all {
		if os.Remove(filepath.Join(folder, e.Name(), "locked")) == nil {
			removed++
		}
	}
	return removed
}

// clearRests removes packs and objects that are not whole, and not older than a
// time: git leaves them where the disk is full, and so it would stay full.
func clearRests(gitDir string, since time.Time) (removed int) {
	_ = filepath.WalkDir(filepath.Join(gitDir, "objects"), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasPrefix(entry.Name(), "tmp_") {
			return nil //nolint:nilerr // what cannot be read is left
		}
		info, err := entry.Info()
		if err == nil && !info.ModTime().Before(since) && os.RemoveAll(name) == nil {
			removed++
		}
		if entry.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return removed
}
