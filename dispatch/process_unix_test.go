//go:build unix

package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/pkg/nomadtest"
	"example.com/converge/pkg/watchtest"
)

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// process is a dispatch that serves.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	log *watchtest.Output
	url string
}

// started starts one with nothing but an environment, as Albatros is started.
func started(t *testing.T, environment []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, log: &watchtest.Output{}}
	p.cmd = exec.Command("dispatch", args...)
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), environment...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if t.Failed() {
			t.Log(p.log)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	p.url = "http://" + p.await(`address=(127\.0\.0\.1:\d+)`)
	return p
}

// await waits for a line of the log, and returns what its group matched.
func (p *process) await(pattern string) string {
	p.t.Helper()
	found := p.log.Await(p.t, pattern, 1)
	return found[len(found)-1]
}

// world is what a process talks to.
type world struct {
	nomad  *nomadtest.Nomad
	consul *nomadtest.Consul
	gitea  *nomadtest.Gitea
	repo   string
	env    []string
}

func newWorld(t *testing.T) *world {
	w := &world{nomad: nomadtest.NewNomad(t), consul: nomadtest.NewConsul(t), gitea: nomadtest.NewGitea(t)}
	w.nomad.Register(nomadtest.Builder("builder", engine.MetaOptional...))
	w.repo = w.gitea.CloneURL("team/project")
	w.consul.Put(w.repo, map[string]any{
		"hook": map[string]any{"token": "s3cr3t"}, "gitea": map[string]any{"url": w.gitea.URL, "token": w.gitea.Token},
		"trusted": map[string]any{"senders": []string{"ann"}}, "inject": "SECRET1=xx",
	})
	w.env = []string{"ALBATROS_URL=https://ci.example.com", "NOMAD_ADDR=" + w.nomad.URL, "CONSUL_HTTP_ADDR=" + w.consul.URL,
		"CONVERGE_DISPATCH_STATE_DIR=" + t.TempDir(), "CONVERGE_DISPATCH_LISTEN=127.0.0.1:0"}
	return w
}

// push sends one, and returns the build's id.
func (w *world) push(p *process) string {
	p.t.Helper()
	body := `{"ref":"refs/heads/main","after":"` + commit + `","repository":{"clone_url":"` + w.repo + `"},"sender":{"login":"ann"}}`
	resp, err := http.Post(p.url+"/hook?token=s3cr3t", "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s %s, %v", resp.Status, text, err)
	}
	return string(text)
}

func (w *world) status(t *testing.T, state, description string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		changed := w.gitea.Changed()
		all := w.gitea.Statuses("team/project", commit)
		if len(all) > 0 && all[len(all)-1].State == state && all[len(all)-1].Description == description {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("want %s %q, got %+v", state, description, all)
		}
	}
}

// TestCurl is the reference's own line, from this folder.
func TestCurl(t *testing.T) {
	w := newWorld(t)
	// Its forge is nowhere: no statuses.
	w.consul.Put("https://git.example.com/team/project.git", `{"hook":{"token":"s3cr3t"},"trusted":{"senders":["ann"]},"inject":"SECRET1=xx\nSECRET2=yy"}`)
	p := started(t, w.env)
	out, err := exec.Command("curl", "--silent", "--fail-with-body", "-d", "@example/albatros.json", p.url+"/hook?token=s3cr3t&flavor=default").Output()
	id := string(out)
	if err != nil || !regexp.MustCompile(`^builder/dispatch-\d+-[0-9a-z]{8}$`).MatchString(id) {
		t.Fatalf("%q, %v", out, err)
	}
	m := w.nomad.Meta(id)
	if m["REPO_URL"] != "https://git.example.com/team/project.git" || m["COMMIT"] != commit || m["BRANCH"] != "main" || m["FLAVOR"] != "default" {
		t.Errorf("%v", m)
	}
	if !strings.HasSuffix(string(w.nomad.Payload(id)), "\n\nSECRET1=xx\nSECRET2=yy") {
		t.Errorf("%q", w.nomad.Payload(id))
	}
	p.await("logs and debug lines are shown to (everybody)")
}

// TestKilled: after a kill -9 all is found again at Nomad, with and without what
// was on the disk.
func TestKilled(t *testing.T) {
	for name, forget := range map[string]bool{"kept": false, "forgotten": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := started(t, w.env)
			id := w.push(p)
			w.nomad.Start(id)
			w.status(t, "pending", "running")
			if err := p.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = p.cmd.Wait()
			w.nomad.Write(id, "stderr", "oops\n")
			w.nomad.Finish(id, 2)
			if forget {
				w.env = append(w.env, "CONVERGE_DISPATCH_STATE_DIR="+t.TempDir())
			}
			p = started(t, w.env)
			w.status(t, "failure", "exit 2")
			p.await(`msg="(build ended)"`)
		})
	}
}

// TestTerminated: SIGTERM finishes what is being answered, and the exit status
// is 0.
func TestTerminated(t *testing.T) {
	w := newWorld(t)
	hang := make(chan struct{})
	reached := make(chan struct{}, 10)
	p := started(t, w.env)
	w.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if strings.HasSuffix(r.URL.Path, "/dispatch") {
			reached <- struct{}{}
			return &nomadtest.Fault{Hang: hang}
		}
		return nil
	})
	answer := make(chan string, 1)
	go func() { answer <- w.push(p) }()
	<-reached
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.await(`msg="(ending)`)
	close(hang)
	if id := <-answer; !strings.HasPrefix(id, "builder/dispatch-") {
		t.Error(id)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// TestOneAtATime: two would send every status twice.
func TestOneAtATime(t *testing.T) {
	w := newWorld(t)
	started(t, w.env)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "dispatch")
	cmd.Env = append(os.Environ(), w.env...)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another dispatch uses") {
		t.Errorf("%s, %v", out, err)
	}
}

// TestReload: SIGHUP reads the repositories again; a mistake leaves what holds.
func TestReload(t *testing.T) {
	w := newWorld(t)
	file := t.TempDir() + "/repositories.yaml"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("repositories: {}\n")
	p := started(t, append(w.env, "CONVERGE_DISPATCH_REPOSITORIES="+file, "CONVERGE_DISPATCH_METRICS_LISTEN=127.0.0.1:0"))
	write("repositories:\n  " + w.repo + ":\n    hook: {token: s3cr3t}\n    trsuted: {}\n")
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.await("there is no key (trsuted)")
	write("repositories:\n  " + w.repo + ":\n    hook: {token: s3cr3t}\n")
	_ = p.cmd.Process.Signal(syscall.SIGHUP)
	p.await(`msg="(the repositories were read again)"`)
	id := w.push(p)
	w.nomad.Start(id)
	w.nomad.Write(id, "stdout", "the log\n")
	w.nomad.Finish(id, 0)
	p.await(`msg="(build ended)"`)
	resp, err := http.Get("http://" + p.await(`metrics=(\S+)`) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	for _, want := range []string{
		`dispatch_webhooks_total{code="200"} 1`, `dispatch_builds_total{flavor="default",state="success"} 1`, "dispatch_live_builds 0",
		"dispatch_outbox_deliveries 0", "dispatch_nomad_up 1", "dispatch_build_duration_seconds_count",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the figures have no %s, %v", want, err)
		}
	}
	if strings.Contains(string(text), "team/project") {
		t.Error("the figures name a repository")
	}
	// The command line finds the log where Nomad has forgotten the build.
	w.nomad.Collect(id)
	cmd := exec.Command("dispatch", "logs", id)
	cmd.Env = append(os.Environ(), w.env...)
	if out, err := cmd.Output(); err != nil || string(out) != "the log\n" {
		t.Errorf("%s, %v", out, err)
	}
	for path, code := range map[string]int{"/healthz": 200, "/metrics": 404, "/hook": 405} {
		resp, err := http.Get(p.url + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != code {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}
