package tree

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/converge/gitgate/internal/gitcmd"
)

// readersWait is how long a tree stays at least that is not published any more:
// somebody may be reading it.
const readersWait = time.Minute

// published is one tree in our folder.
type published struct {
	number uint64
	hash   string // the first twelve characters
	name   string
}

func treeName(number uint64, hash string) string { return fmt.Sprintf("%08d-%.12s", number, hash) }

func parseTreeName(name string) (published, bool) {
	number, hash, ok := strings.Cut(name, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	return published{n, hash, name}, ok && err == nil
}

// isOurLink reports whether a link leads into our folder.
func isOurLink(t *Tree, link string) bool {
	_, ok := t.linked(link)
	return ok
}

// linked is the tree that a link leads to.
func (t *Tree) linked(link string) (published, bool) {
	to, err := os.Readlink(link)
	if err != nil {
		return published{}, false
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(filepath.Dir(link), to)
	}
	if filepath.Dir(to) != filepath.Join(t.state, treesDir) {
		return published{}, false
	}
	return parseTreeName(filepath.Base(to))
}

// publish makes a new tree where the commit is another one, or the tree is
// damaged, and moves the link to it.
func (t *Tree) publish(ctx context.Context) (result Result, err error) {
	link, bare := t.repo.Directory, filepath.Join(t.state, bareDir)
	if err := t.checkLink(link); err != nil {
		return Result{}, err
	}
	cloned := !exists(bare)
	if cloned {
		if err := t.bare(ctx); err != nil {
			return result, err
		}
	}
	if _, _, err := t.begin(bare); err != nil {
		return result, err
	}
	defer func() { t.end(err) }()
	// A fetch looks at few objects: what is damaged may show only in the new tree.
	if result, err = t.advance(ctx, t.git.In(bare)); unusable(err) && ctx.Err() == nil {
		t.log.Warn("the repository is damaged, or of another format than the remote: making it anew beside it", "directory", bare, "err", err)
		if err := t.replaceBare(ctx); err != nil {
			return result, fmt.Errorf("cannot make a damaged repository anew: %w", err)
		}
		result, err = t.advance(ctx, t.git.In(bare))
		result.Repaired = true
	}
	result.Cloned = cloned && result.Previous == ""
	return result, err
}

// advance fetches, and makes a new tree where one is needed.
func (t *Tree) advance(ctx context.Context, git *gitcmd.Git) (result Result, err error) {
	if err := t.checkRemote(ctx, git); err != nil {
		return result, err
	}
	hash, rewritten, err := t.fetch(ctx, git)
	if err != nil {
		return result, err
	}
	result.Rewritten = rewritten
	current, has := t.linked(t.repo.Directory)
	if err := t.removeTrees(current.number, 0, false); err != nil { // those that were never published
		return result, err
	}
	if has {
		result.Previous = current.hash
		place := filepath.Join(t.state, treesDir, current.name)
		if strings.HasPrefix(hash, current.hash) && isDir(place) {
			result.Previous = hash
			if t.whole(ctx, t.git.In(place), hash) {
				result.Hash = hash
				return result, nil
			}
			t.log.Warn("the published tree was changed by somebody, perhaps by what exec has started: publishing it anew", "tree", place)
			result.Repaired = true
		}
	}
	if err := t.newTree(ctx, git, hash, current.number+1); err != nil {
		return result, err
	}
	result.Hash = hash
	if has { // the time from which on its readers may take a minute
		now := time.Now()
		_ = os.Chtimes(filepath.Join(t.state, treesDir, current.name), now, now)
	}
	if err := t.removeTrees(current.number+1, t.repo.Keep, true); err != nil {
		t.log.Warn("an old tree could not be removed", "err", err)
	}
	if _, err := git.Run(ctx, "worktree", "prune"); err != nil {
		t.log.Warn("git could not forget an old tree", "err", err)
	}
	t.collect(ctx, git)
	return result, nil
}

// checkLink refuses to replace what is not ours.
func (t *Tree) checkLink(link string) error {
	info, err := os.Lstat(link)
	switch {
	case err != nil:
		return nil // it is not there: making the link will tell if that cannot be
	case info.Mode()&fs.ModeSymlink != 0:
		if isOurLink(t, link) {
			return nil
		}
		return gitcmd.Errorf(gitcmd.Refused, "%s is a symbolic link of somebody else's: remove it, or give another directory", link)
	case info.IsDir() && os.Remove(link) == nil: // an empty one
		return nil
	}
	return gitcmd.Errorf(gitcmd.Refused, "%s is there and no symbolic link, as publish: symlink needs it: move it away", link)
}

// bare makes the repository from which trees are made.
func (t *Tree) bare(ctx context.Context) error {
	making := filepath.Join(t.state, makingDir)
	if _, _, err := t.fresh(ctx, making, true); err != nil {
		return err
	}
	return os.Rename(making, filepath.Join(t.state, bareDir))
}

// replaceBare is replace for it. Trees that are published go on without it.
func (t *Tree) replaceBare(ctx context.Context) error {
	making, fresh := filepath.Join(t.state, makingDir), filepath.Join(t.state, freshDir)
	place, old := filepath.Join(t.state, bareDir), filepath.Join(t.state, oldDir)
	if _, _, err := t.fresh(ctx, making, true); err != nil {
		return err
	}
	for _, move := range [][2]string{{making, fresh}, {place, old}, {fresh, place}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			return err
		}
	}
	return os.RemoveAll(old)
}

// noChanges is what changes returns where nothing is changed.
var noChanges = hex.EncodeToString(sha256.New().Sum(nil))

// changes is a digest of what is changed of a tree's tracked files.
func changes(ctx context.Context, git *gitcmd.Git) (string, error) {
	digest := sha256.New()
	err := git.Stream(ctx, digest, "diff", "--no-ext-diff", "--no-textconv", "--full-index", "HEAD", "--")
	return hex.EncodeToString(digest.Sum(nil)), err
}

// whole reports whether a tree is at the commit, and its tracked files are as
// what follows an update has left them.
func (t *Tree) whole(ctx context.Context, git *gitcmd.Git, hash string) bool {
	if verify(ctx, git, hash) != nil {
		return false
	}
	want := noChanges
	if done, then := t.done(); done == hash && then != "" {
		want = then
	}
	changed, err := changes(ctx, git)
	return err == nil && changed == want
}

// newTree makes a tree and moves the link to it when it is whole.
func (t *Tree) newTree(ctx context.Context, git *gitcmd.Git, hash string, number uint64) (err error) {
	name := treeName(number, hash)
	place := filepath.Join(t.state, treesDir, name)
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(place)
		}
	}()
	if _, err := git.Run(ctx, "worktree", "add", "--quiet", "--force", "--force", "--detach", "--", place, hash); err != nil {
		return err
	}
	tree := t.git.In(place)
	if err := t.submodules(ctx, tree); err != nil {
		return err
	}
	if err := verify(ctx, tree, hash); err != nil {
		return err
	}
	// A link cannot be changed, but one can take another's name.
	link, target := filepath.Join(t.state, "link"), filepath.Join(filepath.Base(t.state), treesDir, name)
	if err := os.Remove(link); err != nil && exists(link) {
		return err
	}
	if err := os.Symlink(target, link); err != nil {
		return err
	}
	// What follows an update may have made files in the tree: it is to be done for
	// this one as well, be it of the same commit.
	if err := os.Remove(filepath.Join(t.state, doneFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(link, t.repo.Directory); err != nil {
		return gitcmd.Errorf(reasonOfFile(err), "cannot move the link %s: %w", t.repo.Directory, err)
	}
	return nil
}

// removeTrees removes those that are newer than the current one, which a killed
// run has left, and with old those that are so many behind it, and long enough
// without readers.
func (t *Tree) removeTrees(current uint64, keep int, old bool) error {
	folder := filepath.Join(t.state, treesDir)
	entries, err := os.ReadDir(folder)
	if err != nil && exists(folder) {
		return err
	}
	var trees []published
	for _, e := range entries {
		if p, ok := parseTreeName(e.Name()); ok {
			trees = append(trees, p)
		}
	}
	slices.SortFunc(trees, func(a, b published) int { return cmp.Compare(b.number, a.number) })
	for i, p := range trees {
		place := filepath.Join(folder, p.name)
		switch {
		case p.number > current:
		case !old || p.number == current || i <= keep:
			continue
		default:
			// A time in the future is of a clock that was wrong.
			if info, err := os.Stat(place); err == nil && time.Since(info.ModTime()).Abs() < readersWait {
				continue
			}
		}
		if err := os.RemoveAll(place); err != nil {
			return err
		}
	}
	return nil
}
