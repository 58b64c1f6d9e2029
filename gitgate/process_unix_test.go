//go:build unix

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/pkg/watchtest"
)

const secret = "correct horse"

// running is a gitgate process.
type running struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     *watchtest.Output
	address string
	config  string
}

// serve starts gitgate with a configuration, whose port is a free one.
func serve(t *testing.T, config string, args ...string) *running {
	t.Helper()
	r := &running{t: t, log: &watchtest.Output{}, config: filepath.Join(t.TempDir(), "config.yaml")}
	r.write(config)
	r.cmd = exec.Command("gitgate", append([]string{"--config", r.config, "--listen", "127.0.0.1", "--port", "0"}, args...)...)
	r.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Kill()
			_ = r.cmd.Wait()
		}
		if t.Failed() {
			t.Log(r.log)
		}
	})
	r.address = r.await(`address=(127\.0\.0\.1:\d+)`, 1)
	return r
}

func (r *running) write(config string) {
	r.t.Helper()
	next := r.config + ".new"
	if err := os.WriteFile(next, []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(next, r.config); err != nil {
		r.t.Fatal(err)
	}
}

// await waits until the log has a pattern so many times, and returns its group.
func (r *running) await(pattern string, times int) string {
	r.t.Helper()
	found := r.log.Await(r.t, pattern, times)
	return found[len(found)-1]
}

// count is how often the log has a pattern.
func (r *running) count(pattern string) int {
	return len(regexp.MustCompile(pattern).FindAllString(r.log.String(), -1))
}

// end tells it to end, and wants it to do that in order.
func (r *running) end() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		r.t.Errorf("it ended with %v", err)
	}
}

// entry is a repository's lines.
func entry(url, path, directory string, more ...string) string {
	text := fmt.Sprintf("- url: %s\n  path: %s\n  directory: %s\n  secret: %s\n", url, path, directory, secret)
	for _, line := range more {
		text += "  " + line + "\n"
	}
	return text
}

func payload(url, ref, hash string) string {
	return fmt.Sprintf(`{"ref":%q,"before":"%040d","after":%q,"repository":{"clone_url":%q}}`, ref, 0, hash, url)
}

// hook sends a signed webhook and returns the status.
func (r *running) hook(client *http.Client, base, path, body string) int {
	r.t.Helper()
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req, err := http.NewRequest(http.MethodPost, base+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	resp, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (r *running) push(repo *gittest.Repo, path, url string) {
	r.t.Helper()
	if code := r.hook(http.DefaultClient, "http://"+r.address, path, payload(url, "refs/heads/master", repo.Head())); code != http.StatusAccepted {
		r.t.Fatalf("the webhook is answered with %d", code)
	}
}

// TestFullRun: OpenSSH's server, a key that a passphrase opens, and real pushes
// by git, whose post-receive hook signs and sends the webhook.
func TestFullRun(t *testing.T) {
	repo, sshd := gittest.New(t), gittest.NewSSH(t)
	key := sshd.NewKey(t, "open sesame")
	work := t.TempDir()
	directory, trigger, ran := filepath.Join(work, "site"), filepath.Join(work, "trigger"), filepath.Join(work, "ran")
	r := serve(t, "repos:\n"+entry(sshd.URL(repo.Bare), "/hook", directory,
		"sshPrivKey: "+key, "sshPassPhrase: open sesame", "knownHosts: "+sshd.KnownHosts, "trigger: "+trigger,
		`exec: [sh, -c, 'echo "$GITGATE_HASH $GITGATE_REF $GITGATE_REPO $GITGATE_DIRECTORY" >>`+ran+`']`))
	r.await("msg=cloned", 1)
	if gittest.Read(directory, "a") != repo.Number() {
		t.Error("the clone is not right")
	}
	hook := fmt.Sprintf(`#!/bin/sh
while read -r before after ref; do
	body='{"ref":"'$ref'","before":"'$before'","after":"'$after'","repository":{"ssh_url":"%s"}}'
	sum=$(printf %%s "$body" | openssl dgst -sha256 -hmac '%s' | sed 's/.* //')
	curl -sS -H 'Content-Type: application/json' -H 'X-Gitea-Event: push' -H "X-Gitea-Delivery: $after" -H "X-Gitea-Signature: $sum" --data-binary "$body" http://%s/hook
done
`, sshd.URL(repo.Bare), secret, r.address)
	if err := os.WriteFile(filepath.Join(repo.Bare, "hooks", "post-receive"), []byte(hook), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		hash := repo.Commit()
		r.await("msg=updated .*commit="+hash, 1)
		if gittest.Read(directory, "a") != repo.Number() {
			t.Error("the tree is not right")
		}
		if _, err := os.Stat(trigger); err != nil {
			t.Error(err)
		}
		if lines := strings.Split(gittest.Read(ran), "\n"); len(lines) != i+3 || lines[i+1] != hash+" refs/heads/master /hook "+directory {
			t.Errorf("exec wrote %q", lines)
		}
	}
	r.end()
	// Once by hand: nothing is new, and the trigger is left alone.
	if err := os.Remove(trigger); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gitgate", "sync", "/hook", "--config", r.config).CombinedOutput(); err != nil || !strings.Contains(string(out), "up to date") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(trigger); err == nil {
		t.Error("the trigger was touched without need")
	}
}

// TestSSHRefusals: an unknown server, a wrong passphrase and a stranger's key are
// told apart, in the log and by the exit status.
func TestSSHRefusals(t *testing.T) {
	repo, sshd := gittest.New(t), gittest.NewSSH(t)
	key := sshd.NewKey(t, "open sesame")
	empty := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stranger := gittest.NewSSH(t).NewKey(t, "")
	for reason, lines := range map[string][]string{
		"host-key": {"sshPrivKey: " + key, "sshPassPhrase: open sesame", "knownHosts: " + empty},
		"key":      {"sshPrivKey: " + key, "sshPassPhrase: wrong", "knownHosts: " + sshd.KnownHosts},
		"auth":     {"sshPrivKey: " + stranger, "knownHosts: " + sshd.KnownHosts},
	} {
		config := filepath.Join(t.TempDir(), "config.yaml")
		text := "retry_count: 1\nrepos:\n" + entry(sshd.URL(repo.Bare), "/hook", filepath.Join(t.TempDir(), "site"), lines...)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("gitgate", "sync", "--all", "--config", config).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "reason="+reason+" ") {
			t.Errorf("%s: %v: %s", reason, err, out)
		}
	}
}

// TestHTTP follows a repository without a key, and one that wants a password,
// behind nginx.
func TestHTTP(t *testing.T) {
	repo := gittest.New(t)
	root := filepath.Dir(filepath.Dir(repo.Bare))
	public, private := gittest.NewHTTP(t, root, "", ""), gittest.NewHTTP(t, root, "user", "p4ss")
	work := t.TempDir()
	r := serve(t, "retry_count: 1\nrepos:\n"+entry(public+"/group/project.git", "/public", filepath.Join(work, "public"))+
		entry(strings.Replace(private, "http://", "http://user:p4ss@", 1)+"/group/project.git", "/private", filepath.Join(work, "private"), "publish: symlink")+
		entry(private+"/group/project.git", "/wrong", filepath.Join(work, "wrong")))
	r.await("msg=cloned", 2)
	r.await("reason=auth", 1)
	repo.Commit()
	// By another protocol's URL.
	r.push(repo, "/public", "git@127.0.0.1:group/project.git")
	r.push(repo, "/private", private+"/group/project")
	r.await("msg=updated", 2)
	for _, name := range []string{"public", "private"} {
		if gittest.Read(work, name, "a") != repo.Number() {
			t.Errorf("%s is not right", name)
		}
	}
	if r.count("p4ss") > 0 || strings.Contains(gittest.Read(work, "public", ".git", "config")+gittest.Read(work, ".private.gitgate", "repo.git", "config"), "p4ss") {
		t.Error("the password is told")
	}
	r.end()
}

// TestSubmodules brings one along by http, in place and published.
func TestSubmodules(t *testing.T) {
	repo, inner := gittest.New(t), gittest.New(t)
	url := gittest.NewHTTP(t, filepath.Dir(filepath.Dir(inner.Bare)), "", "") + "/group/project.git"
	gittest.Git(t, repo.Work, "submodule", "--quiet", "add", url, "inner")
	repo.Commit()
	work := t.TempDir()
	r := serve(t, "retry_count: 1\nrepos:\n"+entry(repo.URL(), "/place", filepath.Join(work, "place"), "submodules: true")+
		entry(repo.URL(), "/link", filepath.Join(work, "link"), "submodules: true", "publish: symlink"))
	r.await("msg=cloned", 2)
	inner.Commit()
	gittest.Git(t, filepath.Join(repo.Work, "inner"), "pull", "--quiet", "origin", "master")
	repo.Commit()
	r.push(repo, "/place", repo.URL())
	r.push(repo, "/link", repo.URL())
	r.await("msg=updated", 2)
	for _, name := range []string{"place", "link"} {
		if gittest.Read(work, name, "inner", "a") != inner.Number() || gittest.Read(work, name, "a") != repo.Number() {
			t.Errorf("%s is not right", name)
		}
	}
	r.end()
}

// TestReload changes the file again and again: each time counts, what is new is
// cloned, what is broken changes nothing and says where.
func TestReload(t *testing.T) {
	one, two := gittest.New(t), gittest.New(t)
	work := t.TempDir()
	first := entry(one.URL(), "/one", filepath.Join(work, "one"))
	second := entry(two.URL(), "/two", filepath.Join(work, "two"))
	r := serve(t, "repos:\n"+first)
	r.await("msg=cloned", 1)
	r.write("repos:\n" + first + second)
	r.await("configuration reloaded", 1)
	r.await("msg=cloned", 2)
	r.write("repos:\n" + first + "- nonsense\n")
	if said := r.await(`nothing has changed" err="(.*)"`, 1); !strings.Contains(said, "line 6") {
		t.Errorf("it says %s", said)
	}
	two.Commit()
	r.push(two, "/two", two.URL())
	r.await("msg=updated", 1)
	// Another label: the tree follows it without a webhook.
	two.Write("a", "other\n")
	two.Push("other")
	r.write("repos:\n" + first + second + "  label: other\n")
	r.await("configuration reloaded", 2)
	r.await("msg=updated .*ref=refs/heads/other", 1)
	if gittest.Read(work, "two", "a") != "other\n" {
		t.Error("the other branch is not there")
	}
	// One fewer; and by the signal, with nothing changed.
	r.write("repos:\n" + first)
	r.await("configuration reloaded", 3)
	if code := r.hook(http.DefaultClient, "http://"+r.address, "/two", "{}"); code != http.StatusNotFound {
		t.Errorf("a removed repository answers %d", code)
	}
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.await("configuration reloaded", 4)
	r.write("repos:\n" + strings.Replace(first, "/one\n", "/uno\n", 1))
	r.await("configuration reloaded", 5)
	one.Commit()
	r.push(one, "/uno", one.URL())
	r.await("msg=updated .*commit="+one.Head(), 1)
	r.end()
}

// TestStorm sends a thousand webhooks for one repository.
func TestStorm(t *testing.T) {
	repo := gittest.New(t)
	r := serve(t, "initialise: false\nrepos:\n"+entry(repo.URL(), "/hook", filepath.Join(t.TempDir(), "site")))
	var wait sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20}}
	defer client.CloseIdleConnections()
	body := payload(repo.URL(), "refs/heads/master", repo.Head())
	start := time.Now()
	for worker := range 20 {
		wait.Go(func() {
			for i := range 50 {
				if code := r.hook(client, "http://"+r.address, "/hook", body+strings.Repeat(" ", worker*50+i)); code != http.StatusAccepted {
					t.Errorf("answered %d", code)
				}
			}
		})
	}
	wait.Wait()
	took := time.Since(start)
	r.await("msg=cloned", 1)
	r.await(`msg="up to date"`, 1)
	r.end()
	// Two for each two seconds that it took this machine.
	if n := r.count("msg=cloned|up to date"); n > 2+int(took/(2*time.Second)) {
		t.Errorf("%d runs, in %s", n, took)
	}
}

// TestEndsInOrder: what runs at SIGTERM is finished.
func TestEndsInOrder(t *testing.T) {
	repo := gittest.New(t)
	work := t.TempDir()
	began, done := filepath.Join(work, "began"), filepath.Join(work, "done")
	if err := syscall.Mkfifo(began, 0o600); err != nil {
		t.Fatal(err)
	}
	r := serve(t, "repos:\n"+entry(repo.URL(), "/hook", filepath.Join(work, "site"), "exec: [sh, -c, 'echo >"+began+"; cat "+began+"; touch "+done+"']"))
	if got := gittest.Read(began); got != "\n" { // it runs, and waits for us
		t.Fatalf("exec wrote %q", got)
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	r.await("msg=\"ending: what runs is finished\"", 1)
	if err := os.WriteFile(began, []byte("go on\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(done); err != nil {
		t.Errorf("it was not finished: %v", err)
	}
}
