// Package tree brings a folder to where a branch or tag of a remote is: in place,
// or as a new tree to which a symbolic link is moved. It may be killed at any
// moment; the next run puts right what was left. It does not know why it is
// asked to, nor what follows.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/pkg/filelock"
	"example.com/converge/pkg/webhook"
)

// lockWait is how long another process may have a tree; lockPause is how often
// it is looked whether it still has.
const (
	lockWait  = 10 * time.Minute
	lockPause = 100 * time.Millisecond
)

// Result is what an Update has done.
type Result struct {
	// Hash is the commit that the folder is at, and Previous the one that it was
	// at before, "" if there was none or it is unknown.
	Hash, Previous string
	// Cloned says that there was nothing before, Repaired that the repository or
	// a published tree was damaged and is replaced.
	Cloned, Repaired bool
	// Rewritten says that Previous is not in the history of Hash any more: somebody
	// pushed by force. With a limited depth that cannot be told.
	Rewritten bool
}

// Tree is one repository's folder, which nobody else changes while it is open.
type Tree struct {
	repo  *config.Repo
	log   *slog.Logger
	git   *gitcmd.Git
	lock  *os.File
	state string // our folder beside it
}

// Names in the folder beside.
const (
	lockFile    = "lock"
	doneFile    = "done"    // the commit after which all that follows was done
	runningFile = "running" // is there while git may have locks; see note
	freshDir    = "fresh"   // a whole new repository that is to take the old one's place
	makingDir   = "making"  // one that is not whole yet
	oldDir      = "old"     // one that was replaced
	bareDir     = "repo.git"
	treesDir    = "trees"
)

// stateEnding is that of the name of the folder beside.
const stateEnding = ".gitgate"

// StateDir is the folder beside a tree in which gitgate keeps what it needs.
func StateDir(directory string) string {
	return filepath.Join(filepath.Dir(directory), "."+filepath.Base(directory)+stateEnding)
}

// Open takes hold of a repository's folder; it waits while another process has
// it, until ctx ends or ten minutes are over. Close lets go. The errors are
// *gitcmd.Error or of the file system.
func Open(ctx context.Context, repo *config.Repo, log *slog.Logger) (*Tree, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Tree{repo: repo, log: log, state: StateDir(repo.Directory)}
	mode := fs.FileMode(0o700)
	if repo.Publish == config.Symlink { // readers come through it
		mode = 0o755
	}
	// Its parent may be the folder of another repository that is to come.
	err := os.MkdirAll(filepath.Dir(t.state), 0o755)
	if err == nil {
		err = os.MkdirAll(t.state, mode)
	}
	if err == nil && mode == 0o755 {
		err = os.Chmod(t.state, mode)
	}
	inside := filepath.Join(repo.Directory, ".git")
	if err != nil && repo.Publish == config.InPlace && isDir(inside) {
		// As the reference needs no more than the folder itself. What is damaged
		// cannot be replaced then.
		t.state = filepath.Join(inside, "gitgate")
		err = os.MkdirAll(t.state, mode)
	}
	if err != nil {
		return nil, gitcmd.Errorf(reasonOfFile(err), "cannot make a folder beside %s: let this user write to %s: %w", repo.Directory, filepath.Dir(t.state), err)
	}
	if t.lock, err = hold(ctx, filepath.Join(t.state, lockFile)); err != nil {
		return nil, err
	}
	t.git, err = gitcmd.New(repo.Directory, gitcmd.Options{
		SSHKey: repo.SSHKey, PassPhrase: repo.SSHPassPhrase, KnownHosts: repo.KnownHosts, CAFile: repo.CAFile,
		URL: repo.URL, User: repo.User, Password: repo.Password, LFS: repo.LFS, Inherit: t.lock,
	})
	if err != nil {
		_ = t.lock.Close()
		return nil, err
	}
	t.git.Timeout, t.git.Log = repo.Timeout, log
	return t, nil
}

func reasonOfFile(err error) gitcmd.Reason {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTDIR) {
		return gitcmd.Refused
	}
	return gitcmd.ReasonOf(err)
}

// hold locks the file. A blocking call could not be ended with ctx.
func hold(ctx context.Context, path string) (*os.File, error) {
	deadline := time.NewTimer(lockWait)
	defer deadline.Stop()
	tick := time.NewTicker(lockPause)
	defer tick.Stop()
	for {
		f, err := filelock.Try(path)
		if !errors.Is(err, filelock.ErrLocked) {
			if err != nil {
				err = gitcmd.Errorf(reasonOfFile(err), "cannot lock; let one user alone run gitgate for this folder: %w", err)
			}
			return f, err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return nil, gitcmd.Errorf(gitcmd.Locked, "another gitgate is at work there for %s: %s", lockWait, path)
		case <-ctx.Done():
			return nil, gitcmd.Errorf(gitcmd.Ended, "it was ended while another gitgate was at work there")
		}
	}
}

// Close lets go.
func (t *Tree) Close() {
	t.git.Close()
	_ = t.lock.Close()
}

// Done returns the commit after which all that follows an update was done, or "".
func (t *Tree) Done() string {
	hash, _ := t.done()
	return hash
}

// done also returns what was changed in the published tree then.
func (t *Tree) done() (hash, changes string) {
	text, err := os.ReadFile(filepath.Join(t.state, doneFile))
	if err != nil {
		return "", ""
	}
	hash, changes, _ = strings.Cut(strings.TrimSpace(string(text)), " ")
	return hash, changes
}

// Has reports whether an object is here after an Update.
func (t *Tree) Has(ctx context.Context, id string) bool {
	git := t.git
	if t.repo.Publish == config.Symlink {
		git = git.In(filepath.Join(t.state, bareDir))
	}
	_, err := git.Run(ctx, "cat-file", "-e", id)
	return err == nil
}

// SetDone remembers that all is done for a commit, which may have changed files of
// a published tree.
func (t *Tree) SetDone(ctx context.Context, hash string) error {
	text := hash
	if current, ok := t.linked(t.repo.Directory); ok {
		// What cannot be looked at now is published anew by the next update.
		then, _ := changes(ctx, t.git.In(filepath.Join(t.state, treesDir, current.name)))
		text += " " + then
	}
	name := filepath.Join(t.state, doneFile)
	if err := os.WriteFile(name+".new", []byte(text+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Update brings the folder to where the branch or tag is. On an error readers
// find what was there before, as far as it could be kept: after a failed update
// in place the former commit is put back.
func (t *Tree) Update(ctx context.Context) (Result, error) {
	if err := t.recover(); err != nil {
		return Result{}, err
	}
	if t.repo.Publish == config.Symlink {
		return t.publish(ctx)
	}
	return t.inPlace(ctx)
}

// fresh makes a repository and fetches: with SHA-1, as most have it, else with
// SHA-256.
func (t *Tree) fresh(ctx context.Context, dir string, bare bool) (git *gitcmd.Git, hash string, err error) {
	for _, format := range []string{"sha1", "sha256"} {
		if git, err = t.initialise(ctx, dir, bare, format); err != nil {
			return nil, "", err
		}
		if hash, _, err = t.fetch(ctx, git); gitcmd.ReasonOf(err) != gitcmd.Format {
			break
		}
	}
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return git, hash, err
}

// initialise makes an empty repository with the remote.
func (t *Tree) initialise(ctx context.Context, dir string, bare bool, format string) (*gitcmd.Git, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	git := t.git.In(dir)
	args := []string{"init", "--quiet", "--template=", "--object-format=" + format}
	if bare {
		args = append(args, "--bare")
	}
	if _, err := git.Run(ctx, args...); err != nil {
		return nil, err
	}
	remote := "remote." + t.repo.Remote
	for _, pair := range [][2]string{
		{remote + ".url", t.repo.URL},
		{remote + ".fetch", "+refs/heads/*:refs/remotes/" + t.repo.Remote + "/*"},
	} {
		if _, err := git.Run(ctx, "config", "--local", pair[0], pair[1]); err != nil {
			return nil, err
		}
	}
	return git, nil
}

// checkRemote refuses a repository whose remote is another one.
func (t *Tree) checkRemote(ctx context.Context, git *gitcmd.Git) error {
	key := "remote." + t.repo.Remote + ".url"
	url, err := git.Run(ctx, "config", "--local", "--get", key)
	if err != nil {
		var e *gitcmd.Error
		if errors.As(err, &e) && e.Reason == gitcmd.Other { // there is no such key
			_, err = git.Run(ctx, "config", "--local", key, t.repo.URL)
		}
		return err
	}
	if there, err := webhook.ParseRemote(url); err == nil && there == t.repo.Identity {
		return nil
	}
	folder := t.repo.Directory
	if t.repo.Publish == config.Symlink {
		folder = t.state
	}
	return gitcmd.Errorf(gitcmd.Mismatch, "%s is of a repository whose remote %s is another one than url: nothing is updated; correct url or directory, or move that folder away", folder, t.repo.Remote)
}

// tracking is where the remote's branch or tag is kept here.
func (t *Tree) tracking() string {
	if t.repo.Tag {
		return t.repo.Ref()
	}
	return "refs/remotes/" + t.repo.Remote + "/" + t.repo.Label
}

// goodRefs are the names that git has accepted: there are as many as the
// configurations of one run have had.
var goodRefs sync.Map

// fetch gets the branch or tag, and returns its commit's id, and whether its
// history was rewritten.
func (t *Tree) fetch(ctx context.Context, git *gitcmd.Git) (hash string, rewritten bool, err error) {
	// The names come from the configuration, which has checked them; git is asked
	// as well, since it is who must live with them.
	if _, known := goodRefs.Load(t.repo.Ref()); !known {
		if _, err := git.Run(ctx, "check-ref-format", t.repo.Ref()); err != nil {
			return "", false, gitcmd.Errorf(gitcmd.NoRef, "git does not take %s for the name of a branch or tag", t.repo.Ref())
		}
		goodRefs.Store(t.repo.Ref(), true)
	}
	args := []string{"fetch", "--force", "--no-write-fetch-head", "--no-auto-maintenance", "--no-recurse-submodules"}
	gitDir := filepath.Join(git.Dir, ".git")
	if t.repo.Publish == config.Symlink {
		gitDir = git.Dir
	}
	switch {
	case t.repo.Depth > 0:
		args = append(args, fmt.Sprintf("--depth=%d", t.repo.Depth))
	case exists(filepath.Join(gitDir, "shallow")): // it had a depth before
		args = append(args, "--unshallow")
	}
	if t.repo.Tag || t.repo.Depth > 0 {
		args = append(args, "--no-tags")
	}
	if program := git.UploadPack(); program != "" {
		args = append(args, "--upload-pack="+program)
	}
	args = append(args, "--", t.repo.URL, "+"+t.repo.Ref()+":"+t.tracking())
	start := time.Now().Add(-time.Second) // file systems' clocks are a little behind
	_, said, err := git.RunSaid(ctx, args...)
	if gitcmd.ReasonOf(err) == gitcmd.Conflict {
		// A branch a is in the way of a/b.
		if err = t.forgetBranches(ctx, git); err == nil {
			_, said, err = git.RunSaid(ctx, args...)
		}
	}
	if err != nil {
		_ = clearRests(gitDir, start)
		return "", false, err
	}
	hash, err = resolve(ctx, git, t.tracking())
	return hash, t.repo.Depth == 0 && strings.Contains(said, "(forced update)"), err
}

// forgetBranches deletes what is known of the remote's branches.
func (t *Tree) forgetBranches(ctx context.Context, git *gitcmd.Git) error {
	all, err := git.Run(ctx, "for-each-ref", "--format=%(refname)", "refs/remotes/"+t.repo.Remote+"/")
	if err != nil {
		return err
	}
	for ref := range strings.FieldsSeq(all) {
		if _, err := git.Run(ctx, "update-ref", "--no-deref", "-d", ref); err != nil {
			return err
		}
	}
	return nil
}

// resolve returns the full id of a ref's commit.
func resolve(ctx context.Context, git *gitcmd.Git, ref string) (string, error) {
	hash, err := git.Run(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", ref+"^{commit}")
	if err != nil {
		return "", err
	}
	if !isID(hash) {
		return "", gitcmd.Errorf(gitcmd.Other, "git resolves %s to %.80q, which is no id of a commit", ref, hash)
	}
	return hash, nil
}

// isID reports whether it is a full object id.
func isID(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}

// head is the commit of a repository's HEAD, "" if there is none. Mostly two
// files say so; git is asked where they do not.
func head(ctx context.Context, git *gitcmd.Git) string {
	folder := filepath.Join(git.Dir, ".git")
	text, err := os.ReadFile(filepath.Join(folder, "HEAD"))
	if ref, ok := strings.CutPrefix(strings.TrimSpace(string(text)), "ref: refs/heads/"); err == nil && ok && filepath.IsLocal(ref) {
		text, err = os.ReadFile(filepath.Join(folder, "refs", "heads", filepath.FromSlash(ref)))
	}
	if hash := strings.TrimSpace(string(text)); err == nil && isID(hash) {
		return hash
	}
	hash, _ := resolve(ctx, git, "HEAD")
	return hash
}

// submodules brings them along.
func (t *Tree) submodules(ctx context.Context, git *gitcmd.Git, more ...string) error {
	if !t.repo.Submodules {
		return nil
	}
	_, err := git.Run(ctx, "submodule", "--quiet", "sync", "--recursive")
	if err == nil {
		args := []string{"submodule", "--quiet", "update", "--init", "--recursive", "--force"}
		if t.repo.Depth > 0 {
			args = append(args, fmt.Sprintf("--depth=%d", t.repo.Depth))
		}
		_, err = git.Run(ctx, append(args, more...)...)
	}
	if reason := gitcmd.ReasonOf(err); err != nil && reason != gitcmd.Timeout && reason != gitcmd.Ended && reason != gitcmd.Disk {
		return gitcmd.Errorf(gitcmd.Submodule, "a submodule cannot be brought along: %w", err)
	}
	return err
}

// collect removes what nobody needs any more, where that was asked for.
func (t *Tree) collect(ctx context.Context, git *gitcmd.Git) {
	if !t.repo.GC {
		return
	}
	if _, err := git.With("gc.auto", "6700").Run(ctx, "gc", "--auto", "--quiet"); err != nil {
		t.log.Warn("the repository could not be cleaned up", "err", err)
	}
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
