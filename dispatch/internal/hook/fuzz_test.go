package hook

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/forge"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// launcher takes what it is given, and remembers the last, unless err says why not.
type launcher struct {
	last *engine.Want
	err  error
}

func (l *launcher) Launch(_ context.Context, w engine.Want) (build.Build, error) {
	if l.err != nil {
		return build.Build{}, l.err
	}
	l.last = &w
	return build.Build{ID: "builder/dispatch-1-x"}, nil
}
func (*launcher) JobFor(flavor string) (string, bool)              { return "builder", repos.IsFlavor(flavor) }
func (*launcher) Same(engine.Want) (string, bool)                  { return "", false }
func (*launcher) Tell(string, string, string, build.State, string) {}
func (*launcher) Drop(string, int)                                 {}
func (*launcher) Page(string) string                               { return "" }

// FuzzHook: whatever somebody sends, what is launched is of the repository whose
// token he has, and fit to be dispatched; without a token nothing is.
func FuzzHook(f *testing.F) {
	dir := f.TempDir()
	file := filepath.Join(dir, "repositories.yaml")
	if err := os.WriteFile(file, []byte("repositories:\n  https://h/a/b.git:\n    hook: {token: s3cr3t}\n"), 0o600); err != nil {
		f.Fatal(err)
	}
	source, err := repos.NewFile(file)
	if err != nil {
		f.Fatal(err)
	}
	l := &launcher{}
	h, err := New(Options{Repos: source, Launcher: l, Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	const id = "bffeb74224043ba2feb48d137756c8a9331c449a"
	push := `{"ref":"refs/heads/main","after":"` + id + `","repository":{"clone_url":"https://h/a/b.git"},"sender":{"login":"ann"}}`
	f.Add("token=s3cr3t", "X-Gitea-Event", "push", []byte(push))
	f.Add("token=s3cr3t&flavor=x", "Content-Type", "application/x-www-form-urlencoded", []byte(push))
	f.Add("", "X-Github-Event", "pull_request", []byte(`{"action":"opened","number":1,"pull_request":{"head":{"ref":"t","sha":"`+id+`"}},"repository":{"clone_url":"https://h/a/b.git"}}`))
	f.Add("token=s3cr3t", "X-Gitlab-Event", "Merge Request Hook", []byte(`{"project":{"git_http_url":"https://h/a/b.git"},"object_attributes":{"iid":1,"action":"open","source_branch":"t","last_commit":{"id":"`+id+`"}}}`))
	f.Fuzz(func(t *testing.T, query, name, value string, body []byte) {
		r := httptest.NewRequest(http.MethodPost, "/hook", strings.NewReader(string(body)))
		r.URL.RawQuery = query
		r.Header.Set(name, value)
		l.last = nil
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusServiceUnavailable || w.Code < 200 || w.Code > 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if l.last == nil {
			return
		}
		switch last := l.last; {
		case !strings.Contains(query+value, "s3cr3t"):
			t.Error("launched without the token")
		case last.Repo.URL != "https://h/a/b.git" || !last.Fork && last.Origin != last.Repo.URL:
			t.Errorf("another repository: %+v", last)
		case !forge.IsCommit(last.Commit) || last.Branch == "" || strings.ContainsAny(last.Branch, "\x00\n") || !repos.IsFlavor(last.Flavor):
			t.Errorf("not fit to be dispatched: %+v", last)
		}
	})
}
