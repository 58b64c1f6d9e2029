package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"example.com/converge/gitgate/internal/after"
	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/queue"
	"example.com/converge/gitgate/internal/tree"
)

// Outcome is what became of one try.
type Outcome struct {
	tree.Result
	// Changed says that what follows an update was done, for there was something
	// new.
	Changed bool
	// Behind says that a push was told of whose object is not here: a forge of
	// several machines may tell before all of them have it. It may also be an old
	// push whose commit was replaced meanwhile, so that it is worth another try, and
	// no failure.
	Behind bool
	// Reason and Err are of a failure.
	Reason gitcmd.Reason
	Err    error
	Took   time.Duration
}

// Sync brings a repository up to date once, and does what follows: the trigger is
// touched and the command run where the commit is another one than after the last
// time that both were done, or the folder was not there. pushed is the object id that a forge has told of, or
// "".
func Sync(ctx context.Context, repo *config.Repo, pushed string, log *slog.Logger) (o Outcome) {
	start := time.Now()
	log = log.With("repo", repo.Name)
	defer func() {
		o.Took = time.Since(start)
		if o.Err != nil {
			o.Reason = gitcmd.ReasonOf(o.Err)
		}
	}()
	t, err := tree.Open(ctx, repo, log)
	if err != nil {
		o.Err = err
		return o
	}
	defer t.Close()
	if o.Result, o.Err = t.Update(ctx); o.Err != nil {
		return o
	}
	if o.Cloned || t.Done() != o.Hash {
		o.Changed = true
		o.Err = complete(ctx, t, repo, o.Hash, log)
	}
	if pushed != "" && pushed != o.Hash {
		o.Behind = !t.Has(ctx, pushed)
	}
	return o
}

// complete does what follows an update, and remembers that it was done.
func complete(ctx context.Context, t *tree.Tree, repo *config.Repo, hash string, log *slog.Logger) error {
	if repo.Trigger != "" {
		if err := after.Touch(repo.Trigger); err != nil {
			return &gitcmd.Error{Reason: gitcmd.Exec, Text: err.Error(), Err: err}
		}
	}
	if len(repo.Exec) > 0 {
		said, err := after.Command{
			Args: repo.Exec, Dir: repo.Directory, Timeout: repo.ExecTimeout,
			Env: []string{"GITGATE_HASH=" + hash, "GITGATE_REF=" + repo.Ref(), "GITGATE_REPO=" + repo.Name, "GITGATE_DIRECTORY=" + repo.Directory},
		}.Run(ctx)
		log.Info("exec", "ok", err == nil, "said", said)
		if err != nil {
			return &gitcmd.Error{Reason: gitcmd.Exec, Text: err.Error(), Err: err}
		}
	}
	if err := t.SetDone(ctx, hash); err != nil {
		return gitcmd.Errorf(gitcmd.ReasonOf(err), "cannot remember what was done: %w", err)
	}
	return nil
}

// report logs an outcome.
func report(log *slog.Logger, repo *config.Repo, o Outcome, why string, again bool) {
	attrs := []any{"repo", repo.Name, "because", why, "took", o.Took.Round(time.Millisecond).String()}
	if o.Err != nil {
		attrs = append(attrs, "reason", string(o.Reason), "err", oneLine(o.Err), "again", again)
		if !o.Changed {
			log.Error("the update failed: what was there stays", attrs...)
			return
		}
	}
	attrs = append(attrs, "commit", o.Hash, "ref", repo.Ref(), "directory", repo.Directory)
	if o.Repaired {
		attrs = append(attrs, "repaired", true)
	}
	if o.Rewritten {
		attrs = append(attrs, "rewritten", true)
	}
	switch {
	case o.Err != nil:
		log.Error("the files are updated, and what follows has failed", append(attrs, "from", o.Previous)...)
	case o.Cloned:
		log.Info("cloned", attrs...)
	case o.Changed:
		log.Info("updated", append(attrs, "from", o.Previous)...)
	case !o.Behind:
		log.Info("up to date", attrs...)
	}
	switch {
	case o.Behind && again:
		log.Info("the server has not got yet what was pushed", append(attrs, "again", again)...)
	case o.Behind:
		log.Warn("up to date, without what was pushed: unless that was replaced since, url is not the server that sends the webhooks", attrs...)
	}
}

// oneLine joins joined errors.
func oneLine(err error) string {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		text := ""
		for i, e := range joined.Unwrap() {
			if i > 0 {
				text += "; "
			}
			text += e.Error()
		}
		return text
	}
	return err.Error()
}

// SyncAll brings repositories up to date once, as many at a time as the
// configuration says and as often as it says, and returns how many could not be.
func SyncAll(ctx context.Context, c *config.Config, repos []*config.Repo, log *slog.Logger) (failed int) {
	results := make(chan bool, len(repos))
	byPath := map[string]*config.Repo{}
	q := queue.New(queue.Options[job]{
		Threads: c.Threads, Tries: max(1, c.RetryCount), Delay: c.RetryDelay,
		Run: func(run context.Context, path string, _ job, last bool) bool {
			o := Sync(run, byPath[path], "", log)
			again := o.Err != nil && !o.Reason.Permanent() && !last && ctx.Err() == nil
			report(log, byPath[path], o, "sync", again)
			if !again {
				results <- o.Err == nil
			}
			return again
		},
	})
	for _, repo := range repos {
		byPath[repo.Path] = repo
	}
	for _, repo := range byPath {
		q.Add(repo.Path, job{})
	}
	failed = len(byPath)
	for range byPath {
		select {
		case ok := <-results:
			if ok {
				failed--
			}
		case <-ctx.Done():
			q.Close(context.Background())
			return failed
		}
	}
	q.Close(context.Background())
	return failed
}
