package tree_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/gitgate/internal/config"
	"example.com/converge/gitgate/internal/gitcmd"
	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/gitgate/internal/tree"
	"example.com/converge/pkg/webhook"
)

func TestMain(m *testing.M) {
	if os.Getenv("TREE_TEST_UPDATE") != "" {
		updateForever()
		return
	}
	goleak.VerifyTestMain(m)
}

// follow is a repository to keep in step with r.
func follow(t testing.TB, r *gittest.Repo, change func(*config.Repo)) *config.Repo {
	t.Helper()
	c := &config.Repo{
		Name: "test", URL: r.URL(), Path: "/test", Directory: filepath.Join(t.TempDir(), "site"),
		Label: "master", Remote: "origin", Timeout: time.Minute, Keep: 2,
	}
	if change != nil {
		change(c)
	}
	var err error
	if c.Identity, err = webhook.ParseRemote(c.URL); err != nil {
		t.Fatal(err)
	}
	return c
}

// update is one run.
func update(t testing.TB, c *config.Repo) (tree.Result, error) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	tr, err := tree.Open(context.Background(), c, log)
	if err != nil {
		return tree.Result{}, err
	}
	defer tr.Close()
	result, err := tr.Update(context.Background())
	if err == nil {
		if err := tr.SetDone(context.Background(), result.Hash); err != nil {
			t.Error(err)
		}
	}
	return result, err
}

// must is update for what must succeed.
func must(t testing.TB, c *config.Repo) tree.Result {
	t.Helper()
	result, err := update(t, c)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// fails is update for what must fail, for that reason.
func fails(t testing.TB, c *config.Repo, want gitcmd.Reason) error {
	t.Helper()
	result, err := update(t, c)
	if err == nil || gitcmd.ReasonOf(err) != want {
		t.Fatalf("%+v, reason %q: %v, want %q", result, gitcmd.ReasonOf(err), err, want)
	}
	return err
}

// is checks that the folder holds the repository's state, and nothing of it is
// changed.
func is(t testing.TB, c *config.Repo, r *gittest.Repo) {
	t.Helper()
	for _, name := range []string{"a", "b/c"} {
		if got := gittest.Read(c.Directory, name); got != r.Number() {
			t.Errorf("%s is %q, want %q", name, got, r.Number())
		}
	}
	if got := gittest.Git(t, c.Directory, "rev-parse", "HEAD"); got != r.Head() {
		t.Errorf("HEAD is %s, want %s", got, r.Head())
	}
	if got := gittest.Git(t, c.Directory, "status", "--porcelain", "--untracked-files=no"); got != "" {
		t.Errorf("the tree is changed: %s", got)
	}
	if got, err := gittest.Try(c.Directory, "fsck"); err != nil {
		t.Errorf("fsck: %s", got)
	}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}
