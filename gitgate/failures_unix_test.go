//go:build unix

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.com/converge/gitgate/internal/gittest"
)

// TestFailures breaks one repository after the other while gitgate serves: each
// time there is a line in the log, a figure and a notice with the reason, and the
// old tree stays; and all is told again when it is over.
func TestFailures(t *testing.T) {
	notices := make(chan string, 100)
	told := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		notices <- string(body)
	}))
	defer told.Close()
	sshd, work := gittest.NewSSH(t), t.TempDir()
	key, known := sshd.NewKey(t, ""), filepath.Join(work, "known_hosts")
	copyFile := func(from, to string) {
		if err := os.WriteFile(to, []byte(gittest.Read(from)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(sshd.KnownHosts, known)
	remove := func(names ...string) func(*gittest.Repo) {
		return func(*gittest.Repo) {
			for _, name := range names {
				if err := os.Rename(name, name+".away"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	back := func(names ...string) func(*gittest.Repo) {
		return func(*gittest.Repo) {
			for _, name := range names {
				if err := os.Rename(name+".away", name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	tests := []struct {
		name, reason string
		ssh          bool
		lines        []string
		spoil, mend  func(*gittest.Repo)
	}{
		{name: "stranger", reason: "host-key", ssh: true, spoil: func(*gittest.Repo) { copyFile(os.DevNull, known) }, mend: func(*gittest.Repo) { copyFile(sshd.KnownHosts, known) }},
		{name: "unreadable", reason: "key", ssh: true, spoil: remove(key), mend: back(key)},
		{name: "garbled", reason: "key", ssh: true, spoil: func(*gittest.Repo) { copyFile(key, key+".kept"); copyFile(os.DevNull, key) }, mend: func(*gittest.Repo) { copyFile(key+".kept", key) }},
		{name: "deleted", reason: "no-ref", spoil: func(r *gittest.Repo) { gittest.Git(t, r.Work, "push", "--quiet", "origin", ":refs/heads/master") },
			mend: func(r *gittest.Repo) { gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:refs/heads/master") }},
		{name: "gone", reason: "no-repo", spoil: func(r *gittest.Repo) { remove(r.Bare)(r) }, mend: func(r *gittest.Repo) { back(r.Bare)(r) }},
		{name: "submodule", reason: "submodule", lines: []string{"submodules: true"}, spoil: func(r *gittest.Repo) {
			gittest.Git(t, r.Work, "submodule", "--quiet", "add", gittest.New(t).URL(), "inner")
			r.Write("new", "file")
			r.Push("master")
		}, mend: func(r *gittest.Repo) {
			gittest.Git(t, r.Work, "rm", "--quiet", "--force", "inner", ".gitmodules")
			r.Push("master")
		}},
		{name: "published", reason: "no-ref", lines: []string{"publish: symlink"}, spoil: func(r *gittest.Repo) { gittest.Git(t, r.Work, "push", "--quiet", "origin", ":refs/heads/master") },
			mend: func(r *gittest.Repo) { gittest.Git(t, r.Work, "push", "--quiet", "origin", "HEAD:refs/heads/master") }},
	}
	text, repos, figures := "", map[string]*gittest.Repo{}, gittest.FreeAddress(t)
	for _, test := range tests {
		repo := gittest.New(t)
		repos[test.name] = repo
		url, lines := repo.URL(), append([]string{"name: " + test.name}, test.lines...)
		if test.ssh {
			url, lines = sshd.URL(repo.Bare), append(lines, "sshPrivKey: "+key, "knownHosts: "+known)
		}
		text += entry(url, "/"+test.name, filepath.Join(work, test.name), lines...)
	}
	r := serve(t, fmt.Sprintf("retry_count: 1\nmetrics_listen: %s\nnotify: json+%s/x\nrepos:\n%s", figures, told.URL, text))
	notice := func(event, name string) string {
		for {
			select {
			case said := <-notices:
				if strings.Contains(said, `"event":"`+event+`"`) && strings.Contains(said, `"repo":"`+name+`"`) {
					return said
				}
			case <-time.After(patience):
				t.Fatalf("nobody is told of the %s of %s", event, name)
			}
		}
	}
	r.await("msg=cloned", len(tests))
	for i, test := range tests {
		repo, dir := repos[test.name], filepath.Join(work, test.name)
		hook := func() {
			// Each is another delivery, and of a commit that may not be there.
			url := repo.URL()
			if test.ssh {
				url = sshd.URL(repo.Bare)
			}
			if code := r.hook(http.DefaultClient, "http://"+r.address, "/"+test.name, payload(url, "refs/heads/master", fmt.Sprintf("%040x", rand.Uint64()|1))); code != http.StatusAccepted {
				t.Errorf("%s: answered %d", test.name, code)
			}
		}
		if test.ssh {
			repo.Commit() // the old tree must not come by chance
		}
		head, number := gittest.Git(t, dir, "rev-parse", "HEAD"), gittest.Read(dir, "a")
		test.spoil(repo)
		hook()
		r.await("level=ERROR .*what was there stays.* repo="+test.name+" .*reason="+test.reason+" ", 1)
		if said := notice("failure", test.name); !strings.Contains(said, `"reason":"`+test.reason+`"`) {
			t.Errorf("%s: told %s", test.name, said)
		}
		_, metrics := get(t, http.DefaultClient, "http://"+figures+"/metrics")
		for _, want := range []string{fmt.Sprintf(`gitgate_syncs_total{repo=%q,result=%q} 1`, test.name, test.reason), fmt.Sprintf(`gitgate_up{repo=%q} 0`, test.name)} {
			if !strings.Contains(metrics, want) {
				t.Errorf("%s: the figures lack %s", test.name, want)
			}
		}
		if got := gittest.Git(t, dir, "rev-parse", "HEAD"); got != head || gittest.Read(dir, "a") != number || number == "" || gittest.Read(dir, "new") != "" {
			t.Errorf("%s: the tree is at %s, a is %q", test.name, got, gittest.Read(dir, "a"))
		}
		test.mend(repo)
		hook()
		notice("success", test.name)
		if gittest.Read(dir, "a") != repo.Number() {
			t.Errorf("%s: number %d is not mended", test.name, i)
		}
	}
	r.end()
}

// TestRewritten: a history that was rewritten is followed, and told.
func TestRewritten(t *testing.T) {
	repo, figures := gittest.New(t), gittest.FreeAddress(t)
	repo.Commit()
	r := serve(t, "metrics_listen: "+figures+"\nrepos:\n"+entry(repo.URL(), "/hook", filepath.Join(t.TempDir(), "site"), "name: site"))
	r.await("msg=cloned", 1)
	gittest.Git(t, repo.Work, "reset", "--quiet", "--hard", "HEAD~1")
	repo.Commit()
	r.push(repo, "/hook", repo.URL())
	r.await("msg=updated .*commit="+repo.Head()+" .*rewritten=true", 1)
	if _, metrics := get(t, http.DefaultClient, "http://"+figures+"/metrics"); !strings.Contains(metrics, `gitgate_rewritten_total{repo="site"} 1`) {
		t.Error("it is not counted")
	}
	r.end()
}

// TestPrivateAuthority: https whose certificate nobody knows is refused, unless
// its authority is given.
func TestPrivateAuthority(t *testing.T) {
	repo, work := gittest.New(t), t.TempDir()
	base, ca := gittest.NewHTTPS(t, filepath.Dir(filepath.Dir(repo.Bare)), "user", "p4ss")
	url := strings.Replace(base, "https://", "https://user:p4ss@", 1) + "/group/project.git"
	r := serve(t, "retry_count: 1\nrepos:\n"+entry(url, "/good", filepath.Join(work, "good"), "caFile: "+ca)+entry(url, "/bad", filepath.Join(work, "bad")))
	r.await("msg=cloned .*repo=/good ", 1)
	r.await("repo=/bad .*reason=tls ", 1)
	repo.Commit()
	r.push(repo, "/good", base+"/group/project")
	r.await("msg=updated .*commit="+repo.Head(), 1)
	if gittest.Read(work, "good", "a") != repo.Number() || r.count("p4ss") > 0 {
		t.Error("the tree is not right, or the password is told")
	}
	r.end()
}

// TestKilled kills the program again and again while pushes arrive: started again,
// it has the tree right, and what follows was done for the last commit.
func TestKilled(t *testing.T) {
	repo, work := gittest.New(t), t.TempDir()
	site, ran := filepath.Join(work, "site"), filepath.Join(work, "ran")
	text := "repos:\n" + entry(repo.URL(), "/hook", site, `exec: [sh, -c, 'echo "$GITGATE_HASH" >>`+ran+`']`)
	for range 8 {
		r := serve(t, text)
		repo.Commit()
		r.push(repo, "/hook", repo.URL())
		// When decides only what is seen.
		<-time.After(time.Duration(rand.IntN(150)) * time.Millisecond)
		if err := r.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = r.cmd.Wait()
		next := serve(t, text)
		next.await("msg=.?(cloned|updated|up to date).? .*commit="+repo.Head(), 1)
		next.end()
		if gittest.Read(site, "a") != repo.Number() || gittest.Read(site, "b", "c") != repo.Number() || gittest.Git(t, site, "status", "--porcelain") != "" {
			t.Fatal("the tree is not right")
		}
		if !strings.Contains(gittest.Read(ran), repo.Head()) {
			t.Fatal("what follows was not done")
		}
	}
}

// withGit puts a script before git on the PATH; real is git's name in it.
func withGit(t *testing.T, script string) {
	t.Helper()
	real, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "git"), []byte("#!/bin/sh\nreal="+real+" dir="+dir+"\n"+script+"\nexec $real \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

// TestGitKilled: a git that was killed in the middle, as where there is no memory,
// leaves its lock and half a tree: the former one is put back, and the next try
// goes on.
func TestGitKilled(t *testing.T) {
	repo, work := gittest.New(t), t.TempDir()
	config := filepath.Join(work, "config.yaml")
	if err := os.WriteFile(config, []byte("retry_count: 1\nrepos:\n"+entry(repo.URL(), "/hook", filepath.Join(work, "site"))), 0o600); err != nil {
		t.Fatal(err)
	}
	sync := func(good bool, want string) {
		t.Helper()
		out, err := exec.Command("gitgate", "sync", "--all", "--config", config).CombinedOutput()
		if (err == nil) != good || !strings.Contains(string(out), want) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	sync(true, "msg=cloned")
	old := repo.Number()
	repo.Commit()
	withGit(t, `if [ "$1" = reset ] && ! [ -e $dir/once ]; then : >$dir/once; : >.git/index.lock; : >.git/HEAD.lock; echo half >a; kill -KILL $$; fi`)
	sync(false, "signal: killed")
	if got := gittest.Read(work, "site", "a"); got != old {
		t.Errorf("the former tree is not back: a is %q", got)
	}
	sync(true, "a run was interrupted")
	if got := gittest.Read(work, "site", "a"); got != repo.Number() {
		t.Errorf("a is %q", got)
	}
}

// TestHeadElsewhere: where somebody moves HEAD meanwhile the update has failed, and
// the trigger is not touched.
func TestHeadElsewhere(t *testing.T) {
	repo, work := gittest.New(t), t.TempDir()
	repo.Commit()
	config, trigger := filepath.Join(work, "config.yaml"), filepath.Join(work, "trigger")
	if err := os.WriteFile(config, []byte("retry_count: 1\nrepos:\n"+entry(repo.URL(), "/hook", filepath.Join(work, "site"), "trigger: "+trigger)), 0o600); err != nil {
		t.Fatal(err)
	}
	withGit(t, `if [ "$1" = reset ]; then $real "$@" && exec $real update-ref HEAD HEAD~1; fi`)
	out, err := exec.Command("gitgate", "sync", "--all", "--config", config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "something else changes the repository") {
		t.Errorf("%v: %s", err, out)
	}
	if _, err := os.Stat(trigger); err == nil {
		t.Error("the trigger was touched")
	}
}
