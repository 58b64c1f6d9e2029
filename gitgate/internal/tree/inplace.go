package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
)

// recover finishes what a killed run was about: a whole new repository whose old
// one is gone already takes its place; what is not whole goes away.
func (t *Tree) recover() error {
	fresh, place := filepath.Join(t.state, freshDir), filepath.Join(t.repo.Directory, ".git")
	if t.repo.Publish == config.Symlink {
		place = filepath.Join(t.state, bareDir)
	}
	if exists(fresh) && !exists(place) && (t.repo.Publish == config.Symlink || isDir(t.repo.Directory)) {
		if err := os.Rename(fresh, place); err != nil {
			return fmt.Errorf("cannot put the new repository in its place: %w", err)
		}
		t.log.Info("a repository was about to be replaced: that is done now", "directory", t.repo.Directory)
	}
	for _, name := range []string{freshDir, makingDir, oldDir} {
		if err := os.RemoveAll(filepath.Join(t.state, name)); err != nil {
			return fmt.Errorf("cannot remove what an interrupted run left: %w", err)
		}
	}
	return nil
}

// inPlace changes the files of the folder.
func (t *Tree) inPlace(ctx context.Context) (Result, error) {
	dir := t.repo.Directory
	switch info, err := os.Lstat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return t.clone(ctx)
	case err != nil:
		return Result{}, err
	case info.Mode()&fs.ModeSymlink != 0 && isOurLink(t, dir):
		return Result{}, gitcmd.Errorf(gitcmd.Refused, "%s is a link of publish: symlink: say so, or remove the link", dir)
	case !isDir(dir): // maybe the repository around it has a file there
		return Result{}, gitcmd.Errorf(gitcmd.Refused, "%s is no folder: move it away, or give another directory", dir)
	}
	if !exists(filepath.Join(dir, ".git")) {
		if _, err := folders(dir); err != nil {
			return Result{}, err
		}
		return t.clone(ctx)
	}
	result, err := t.update(ctx, t.git)
	if !unusable(err) || ctx.Err() != nil {
		return result, err
	}
	t.log.Warn("the repository is damaged, or of another format than the remote: making it anew beside it", "directory", dir, "err", err)
	if err := t.replace(ctx); err != nil {
		return Result{}, fmt.Errorf("cannot make a damaged repository anew: %w", err)
	}
	previous := result.Previous
	if result, err = t.update(ctx, t.git); err == nil {
		t.removeOld()
		result.Previous, result.Repaired = previous, true
	}
	return result, err
}

// clone makes the repository beside and moves it to its place when it is whole.
func (t *Tree) clone(ctx context.Context) (Result, error) {
	// A link would be replaced by a folder, and where it leads be left empty.
	if info, err := os.Lstat(t.repo.Directory); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return Result{}, gitcmd.Errorf(gitcmd.Refused, "%s is a symbolic link to an empty folder: give that folder as directory", t.repo.Directory)
	}
	making := filepath.Join(t.state, makingDir)
	git, hash, err := t.fresh(ctx, making, false)
	if err != nil {
		return Result{}, err
	}
	if err := t.arrange(ctx, git, "", hash); err != nil {
		_ = os.RemoveAll(making)
		return Result{}, err
	}
	// An empty folder may be there; it may be a mount point, or the parent not
	// ours to write to.
	err = os.Rename(making, t.repo.Directory)
	if err != nil && os.Remove(t.repo.Directory) == nil {
		err = os.Rename(making, t.repo.Directory)
	}
	if err == nil {
		return Result{Hash: hash, Cloned: true}, nil
	}
	if there, err := folders(t.repo.Directory); err == nil && len(there) > 0 {
		return t.cloneAround(ctx, making, hash, there)
	}
	return Result{}, gitcmd.Errorf(reasonOfFile(err), "cannot move the new repository to %s: it must be a folder that this user may replace, and no mount point: give one inside of it: %w", t.repo.Directory, err)
}

// folders returns the names of the folders in one, and an error if there is
// anything else: they wait for other repositories, or are theirs, which our own
// folder beside each tells. Into those it does not look.
func folders(dir string) (names []string, err error) {
	err = fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		theirs := exists(StateDir(filepath.Join(dir, name))) // maybe a link, if it is published
		switch {
		case err != nil || name == ".":
			return err
		case entry.IsDir() && strings.HasSuffix(name, stateEnding):
			return fs.SkipDir
		case !entry.IsDir() && !theirs:
			return gitcmd.Errorf(gitcmd.Refused, "%s has files in it and is no repository: move them away, or give another directory", dir)
		}
		names = append(names, name)
		if entry.IsDir() && theirs {
			return fs.SkipDir
		}
		return nil
	})
	return names, err
}

// cloneAround moves a new repository to where folders of others are. Once .git is
// there, the files come as with any update, also with the next one after a kill.
func (t *Tree) cloneAround(ctx context.Context, making, hash string, there []string) (result Result, err error) {
	if err := t.spare(ctx, t.git.In(making), hash, there); err != nil {
		return result, err
	}
	if err := os.Rename(filepath.Join(making, ".git"), filepath.Join(t.repo.Directory, ".git")); err != nil {
		return result, err
	}
	result, err = t.update(ctx, t.git)
	t.removeOld()
	result.Previous, result.Cloned = "", true
	return result, err
}

// spare refuses a commit whose reset would remove or write into the folders of
// others, whose names are below ours: it has something there, or a file in the
// place of a folder on the way.
func (t *Tree) spare(ctx context.Context, git *gitcmd.Git, hash string, inner []string) error {
	above := map[string]bool{} // the names, and whether it is only on the way to one
	for _, name := range inner {
		name = filepath.ToSlash(name)
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, known := above[dir]; !known {
				above[dir] = true
			}
		}
		dir := filepath.Join(t.repo.Directory, name)
		above[name] = !exists(StateDir(dir)) && !exists(filepath.Join(dir, ".git")) // else theirs
	}
	if len(above) == 0 {
		return nil
	}
	args := append([]string{"ls-tree", "-z", "-t", hash, "--"}, slices.Sorted(maps.Keys(above))...)
	var name string
	list := &fields{each: func(field string) {
		about, entry, _ := strings.Cut(field, "\t") // 100644 blob 0123456
		onTheWay, known := above[entry]
		folder := strings.HasPrefix(about, modeTree) && onTheWay
		// A submodule that is not brought along is an empty folder, or any.
		if known && !folder && (t.repo.Submodules || !strings.HasPrefix(about, modeSubmodule)) {
			name = entry
		}
	}}
	if err := git.Stream(ctx, list, args...); err != nil || name == "" {
		return err
	}
	return gitcmd.Errorf(gitcmd.Refused, "%s is in the commit, and in %s it is or holds another repository: give one of them another directory", name, t.repo.Directory)
}

// inner are the names of the configured repositories below ours that are there.
func (t *Tree) inner() (names []string) {
	for _, dir := range t.repo.Inner {
		if !exists(filepath.Join(dir, ".git")) {
			continue
		}
		// Links may be on the way, and be the folder itself.
		for _, way := range []string{filepath.Join(resolved(filepath.Dir(dir)), filepath.Base(dir)), resolved(dir)} {
			if name, err := filepath.Rel(resolved(t.repo.Directory), way); err == nil && filepath.IsLocal(name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// resolved is a folder's path without symbolic links.
func resolved(dir string) string {
	if full, err := filepath.EvalSymlinks(dir); err == nil {
		return full
	}
	return dir
}

// unusable reports whether a repository must be made anew.
func unusable(err error) bool {
	reason := gitcmd.ReasonOf(err)
	return err != nil && (reason == gitcmd.Damaged || reason == gitcmd.Format)
}

// update fetches and resets in a repository that is there.
func (t *Tree) update(ctx context.Context, git *gitcmd.Git) (result Result, err error) {
	gitDir := filepath.Join(git.Dir, ".git")
	if err := t.checkRemote(ctx, git); err != nil {
		return result, err
	}
	from, to, err := t.begin(gitDir)
	if err != nil {
		return result, err
	}
	defer func() { t.end(err) }()
	result.Previous = head(ctx, git)
	if to != "" && to != result.Previous {
		// That reset is not through, and what is fetched now may be another commit.
		t.rollBack(ctx, git, from, to)
		result.Previous = head(ctx, git)
	}
	hash, rewritten, err := t.fetch(ctx, git)
	if err != nil {
		return result, err
	}
	if err := t.spare(ctx, git, hash, t.inner()); err != nil {
		return result, err
	}
	if result.Previous != "" && result.Previous != hash {
		if err := t.note(result.Previous, hash); err != nil {
			return result, err
		}
	}
	if err := t.arrange(ctx, git, result.Previous, hash); err != nil {
		return result, err
	}
	t.collect(ctx, git)
	result.Hash, result.Rewritten = hash, rewritten
	return result, nil
}

// arrange brings HEAD, index and files to the commit, from the old one, which may
// be "".
func (t *Tree) arrange(ctx context.Context, git *gitcmd.Git, old, hash string) error {
	if err := t.point(ctx, git, hash); err != nil {
		return err
	}
	if err := t.reset(ctx, git, hash); err != nil {
		if gitcmd.Killed(err) { // it was ours, and would be in the way
			_ = os.Remove(filepath.Join(git.Dir, ".git", "index.lock"))
		}
		if old != "" && old != hash && gitcmd.ReasonOf(err) != gitcmd.Damaged && !untouched(git, err) {
			t.rollBack(ctx, git, old, hash)
		}
		return err
	}
	if t.repo.Clean {
		_, err := git.Run(ctx, "clean", "-ffd", "--quiet")
		return err
	}
	return nil
}

// untouched reports whether a reset failed before it did anything: another git
// has the index. What would be removed then may be somebody's untracked file.
func untouched(git *gitcmd.Git, err error) bool {
	return gitcmd.ReasonOf(err) == gitcmd.Locked && exists(filepath.Join(git.Dir, ".git", "index.lock"))
}

// point makes HEAD the branch that is followed; a tag has none. Files are not
// changed.
func (t *Tree) point(ctx context.Context, git *gitcmd.Git, hash string) error {
	text, err := os.ReadFile(filepath.Join(git.Dir, ".git", "HEAD"))
	branch, attached := strings.CutPrefix(strings.TrimSpace(string(text)), "ref: ")
	if err == nil && attached && branch == t.repo.Ref() {
		return nil
	}
	if t.repo.Tag {
		_, err = git.Run(ctx, "update-ref", "--no-deref", "HEAD", hash)
	} else {
		_, err = git.Run(ctx, "symbolic-ref", "HEAD", t.repo.Ref())
	}
	// A branch a, which was followed before, is in the way of a/b.
	inTheWay := strings.HasPrefix(t.repo.Ref(), branch+"/") || strings.HasPrefix(branch, t.repo.Ref()+"/")
	if err == nil && attached && inTheWay {
		_, err = git.Run(ctx, "update-ref", "--no-deref", "-d", branch)
	}
	return err
}

// reset makes files and index those of the commit, also where it is there
// already: somebody may have changed them. Untracked files stay.
func (t *Tree) reset(ctx context.Context, git *gitcmd.Git, hash string) error {
	if _, err := git.Run(ctx, "reset", "--hard", "--quiet", hash); err != nil {
		return err
	}
	if err := t.submodules(ctx, git); err != nil {
		return err
	}
	return verify(ctx, git, hash)
}

// verify reports an error unless HEAD is the commit.
func verify(ctx context.Context, git *gitcmd.Git, hash string) error {
	at, err := resolve(ctx, git, "HEAD")
	if err == nil && at != hash {
		err = gitcmd.Errorf(gitcmd.Other, "after the update HEAD is %.12s and not %.12s: something else changes the repository", at, hash)
	}
	return err
}

// rollBack puts the former commit back, as far as that can be.
func (t *Tree) rollBack(ctx context.Context, git *gitcmd.Git, old, hash string) {
	ctx = context.WithoutCancel(ctx) // git has its own time limit
	// What the new commit has added is in no index yet. First, since it may have
	// filled the disk.
	if err := removeAdded(ctx, git, old, hash); err != nil {
		t.log.Warn("files of the commit that failed may be left", "commit", hash, "err", err)
	}
	_, err := git.Run(ctx, "reset", "--hard", "--quiet", old)
	if err == nil {
		err = t.submodules(ctx, git, "--no-fetch")
	}
	if err != nil {
		t.log.Error("the former commit could not be put back", "commit", old, "err", err)
	}
}

// replace puts a whole new repository into the place of .git; the files stay,
// and so does the old one until all is right.
func (t *Tree) replace(ctx context.Context) error {
	place := filepath.Join(t.repo.Directory, ".git")
	if !isDir(place) || filepath.Dir(t.state) == place {
		return gitcmd.Errorf(gitcmd.Refused, "%s cannot be replaced: it is no folder, or its parent is not ours to write to: move %s away", place, t.repo.Directory)
	}
	making := filepath.Join(t.state, makingDir)
	git, hash, err := t.fresh(ctx, making, false)
	if err != nil {
		return err
	}
	if err := t.point(ctx, git, hash); err != nil {
		return err
	}
	// An index of the former commit, if it is known, tells the reset which files
	// are to go.
	former := t.Done()
	if former == "" {
		former = hash
	}
	if _, err := git.Run(ctx, "read-tree", former); err != nil {
		if _, err := git.Run(ctx, "read-tree", hash); err != nil {
			return err
		}
	}
	// Whole: from here on recover finishes it.
	fresh, old := filepath.Join(t.state, freshDir), filepath.Join(t.state, oldDir)
	if err := os.Rename(filepath.Join(making, ".git"), fresh); err != nil {
		return err
	}
	if err := os.Rename(place, old); err != nil {
		return err
	}
	return os.Rename(fresh, place)
}

func (t *Tree) removeOld() {
	for _, name := range []string{oldDir, makingDir} {
		if err := os.RemoveAll(filepath.Join(t.state, name)); err != nil {
			t.log.Warn("a damaged repository that was replaced could not be removed", "err", err)
		}
	}
}
