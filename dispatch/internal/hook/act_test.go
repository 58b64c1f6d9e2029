package hook

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/converge/dispatch/internal/repos"
)

// TestTwoRepositories: a payload that is verified as of one repository cannot speak
// of another, by which a fork would seem to be none.
func TestTwoRepositories(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "repositories.yaml")
	if err := os.WriteFile(file, []byte("repositories:\n  https://h/a/b.git:\n    hook: {token: s3cr3t}\n    trusted: {senders: [ann]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := repos.NewFile(file)
	if err != nil {
		t.Fatal(err)
	}
	const id = "bffeb74224043ba2feb48d137756c8a9331c449a"
	for event, body := range map[string]string{
		"pull_request": `{"project":{"git_http_url":"https://h/a/b.git"},"action":"opened","number":1,"pull_request":{"head":{"ref":"t","sha":"` + id + `","repo":{"clone_url":"https://h/eve/b.git"}}},"repository":{"clone_url":"https://h/eve/b.git"},"sender":{"login":"ann"}}`,
		"push":         `{"project":{"git_http_url":"https://h/a/b.git"},"ref":"refs/heads/main","after":"` + id + `","repository":{"clone_url":"https://h/eve/b.git"},"sender":{"login":"ann"}}`,
	} {
		l := &launcher{}
		h, err := New(Options{Repos: source, Launcher: l, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			body string
			code int
		}{{body, http.StatusBadRequest}, {strings.ReplaceAll(body, "eve/b", "a/b"), http.StatusOK}} {
			l.last = nil
			r := httptest.NewRequest(http.MethodPost, "/hook?token=s3cr3t", strings.NewReader(test.body))
			r.Header.Set("X-Gitea-Event", event)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != test.code || (l.last != nil) != (test.code == http.StatusOK) {
				t.Errorf("%s: %d %s, %+v", event, w.Code, w.Body, l.last)
			}
		}
	}
}
