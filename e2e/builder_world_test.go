//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// sources is a git repository with a bare copy that builders clone.
type sources struct {
	t          *testing.T
	work, bare string
}

// newSources makes one whose only file is .albatros, with that text.
func newSources(t *testing.T, albatros string) *sources {
	t.Helper()
	root := t.TempDir()
	s := &sources{t: t, work: filepath.Join(root, "work"), bare: filepath.Join(root, "acme", "app.git")}
	s.git(root, "init", "--quiet", "--initial-branch=main", s.work)
	s.git(root, "init", "--quiet", "--bare", "--initial-branch=main", s.bare)
	if albatros != "" {
		writeText(t, filepath.Join(s.work, ".albatros"), albatros)
	}
	return s
}

// commit commits what there is, pushes it to main and returns its id.
func (s *sources) commit() string {
	s.t.Helper()
	s.git(s.work, "add", "--all")
	s.git(s.work, "commit", "--quiet", "--allow-empty", "--message", "change")
	s.git(s.work, "push", "--quiet", s.bare, "HEAD:refs/heads/main")
	return s.git(s.work, "rev-parse", "HEAD")
}

// url is that of the file system; builders take it only with BUILDER_PROTOCOLS.
func (s *sources) url() string { return "file://" + s.bare }

// serve serves the repositories by http, as version 0 of git's protocol does: only
// what a branch leads to may be asked for.
func (s *sources) serve() string {
	s.t.Helper()
	path, err := exec.LookPath("git")
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		(&cgi.Handler{Path: path, Args: []string{"http-backend"}, Env: []string{
			"GIT_PROJECT_ROOT=" + filepath.Dir(filepath.Dir(s.bare)), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		}, Stderr: io.Discard}).ServeHTTP(w, r)
	}))
	s.t.Cleanup(server.Close)
	return server.URL + "/acme/app.git"
}

func (s *sources) git(dir string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=A", "GIT_COMMITTER_EMAIL=a@example.org",
		"GIT_CONFIG_COUNT=2", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
		"GIT_CONFIG_KEY_1=protocol.file.allow", "GIT_CONFIG_VALUE_1=always")
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("git %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// task is a task of Nomad's as deploy/nomad/build.sh sees it.
type task struct {
	t    *testing.T
	root string
	env  []string
	// small makes the folder for secrets as small as Nomad's.
	small bool
}

// newTask makes the folders, and the payload unless that is nil.
func newTask(t *testing.T, url, commit string, payload []byte, env ...string) *task {
	t.Helper()
	k := &task{t: t, root: t.TempDir()}
	for _, dir := range []string{"local", "secrets", "alloc", "home"} {
		if err := os.Mkdir(filepath.Join(k.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if payload != nil {
		if err := os.WriteFile(k.file("local/payload"), payload, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k.env = append([]string{
		"NOMAD_TASK_DIR=" + k.file("local"), "NOMAD_SECRETS_DIR=" + k.file("secrets"), "NOMAD_ALLOC_DIR=" + k.file("alloc"),
		"NOMAD_JOB_ID=builder/dispatch-1678866433-15aad86a", "HOME=" + k.file("home"),
		"NOMAD_META_REPO_URL=" + url, "NOMAD_META_COMMIT=" + commit, "NOMAD_META_BRANCH=main", "NOMAD_META_FLAVOR=default",
		"BUILDER_PROTOCOLS=https:http:ssh:file", "BUILDER_RETRY_DELAY=0",
	}, env...)
	return k
}

func (k *task) file(name string) string { return filepath.Join(k.root, name) }

// start runs the builder's script, which prints to one place.
func (k *task) start() *process {
	k.t.Helper()
	return start(k.t, k.env, "/bin/sh", "../deploy/nomad/build.sh")
}

// run runs it to its end.
func (k *task) run() result {
	k.t.Helper()
	args := []string{"/bin/sh", "../deploy/nomad/build.sh"}
	if k.small {
		args = append([]string{"unshare", "--mount", "/bin/sh", "-c", `mount -t tmpfs -o size=1m none "$NOMAD_SECRETS_DIR" && exec "$@"`, "sh"}, args...)
		if os.Geteuid() != 0 {
			args = slices.Insert(args, 1, "--user", "--map-root-user")
		}
	}
	cmd := exec.CommandContext(k.t.Context(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), k.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = patience
	if err := cmd.Run(); cmd.ProcessState == nil {
		k.t.Fatal(err)
	}
	return result{stdout: stdout.String(), stderr: stderr.String(), code: cmd.ProcessState.ExitCode()}
}

// reports is a dispatch that takes what builders report.
type reports struct {
	url string

	mu     sync.Mutex
	seen   []report
	more   chan struct{}
	refuse bool
}

type report struct {
	path, token string
	State       string `json:"state"`
	Exit        int    `json:"exit"`
	Line        string `json:"line"`
	Until       string `json:"until"`
}

// takeReports makes one, on a listener where that is given.
func takeReports(t *testing.T, on ...net.Listener) *reports {
	t.Helper()
	r := &reports{more: make(chan struct{}, 100)}
	s := httptest.NewUnstartedServer(r)
	for _, l := range on {
		_ = s.Listener.Close()
		s.Listener = l
	}
	s.Start()
	t.Cleanup(s.Close)
	r.url = s.URL + "/builds/"
	return r
}

func (r *reports) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	got := report{path: q.URL.Path, token: q.Header.Get("Authorization")}
	err := json.NewDecoder(q.Body).Decode(&got)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse || err != nil || q.Method != http.MethodPost || q.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	r.seen = append(r.seen, got)
	r.more <- struct{}{}
	w.WriteHeader(http.StatusNoContent)
}

func (r *reports) all() []report {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]report(nil), r.seen...)
}

// envelope is a payload with lines for the builder before the secrets.
func envelope(inject string, lines ...string) []byte {
	return []byte(strings.Join(append([]string{"converge-dispatch 1"}, lines...), "\n") + "\n\n" + inject)
}
