//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestSSHConfig: by the block, stock programs find agents by name.
func TestSSHConfig(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	config := filepath.Join(u.home, "config file")
	u.env = append(u.env, "CONFIG="+config, `GIT_SSH_COMMAND=ssh -F "$CONFIG"`)
	writeFile(t, config, "Host other")
	u.does(`wsproxy ssh-config --server ` + s.ws() + ` >> "$CONFIG"`)

	u.fails(`ssh -F "$CONFIG" Team--Job.converge true`, 255, "no key of the agent is known")
	u.does(`wsproxy pin "` + s.url("Team/Job") + `"`)
	if got := u.does(`ssh -F "$CONFIG" Team--Job.converge echo here`); got != "here\n" {
		t.Errorf("%q", got)
	}
	if v := s.last(t); v.path != "/client/Team/Job" || v.user != "abc" {
		t.Errorf("%+v", v)
	}
	u.does(`ssh -F "$CONFIG" bob@Team--Job.converge true`)
	if v := s.last(t); v.user != "bob" {
		t.Errorf("%+v", v)
	}

	far := t.TempDir()
	u.env = append(u.env, "FAR="+far)
	writeFile(t, filepath.Join(u.home, "patch"), "patch")
	u.does(`scp -F "$CONFIG" patch "Team--Job.converge:$FAR/scp"`)
	u.does(`printf 'put patch "%s/sftp"\n' "$FAR" | sftp -F "$CONFIG" -b - Team--Job.converge`)
	u.does(`rsync -e "ssh -F '$CONFIG'" patch "Team--Job.converge:$FAR/rsync"`)
	for _, name := range []string{"scp", "sftp", "rsync"} {
		wantFile(t, filepath.Join(far, name), "patch")
	}
	u.does(`git init -q --bare "$FAR/repo.git" && git init -q -b main work && cd work && git config user.email a@b && git config user.name a &&
		git commit -q --allow-empty -m one && git push -q "Team--Job.converge:$FAR/repo.git" main && git ls-remote "ssh://Team--Job.converge$FAR/repo.git" main | grep -q refs/heads/main`)

	// Another id that ssh cannot tell from the first.
	u.does(`wsproxy pin "` + s.url("team/job") + `"`)
	u.fails(`ssh -F "$CONFIG" team--job.converge true`, 255, "is already that of "+s.bare("Team/Job"))
	u.fails(`ssh -F "$CONFIG" a---b.converge true`, 255, "is that of no id")

	// An id that has no name is told of, and works by its URL.
	if r := u.run(`wsproxy pin "` + s.url("team--job") + `"`); r.code != 0 || !strings.Contains(r.stderr, "the id team--job cannot be written as a host name: two hyphens stand for a slash") {
		t.Errorf("%+v", r)
	}
	u.does(`wsproxy ssh -F none "` + s.bare("team--job") + `" true`)

	// The job ran again.
	s.swap(t)
	u.fails(`ssh -F "$CONFIG" Team--Job.converge true`, 255, "Host key verification failed")
	u.does(`wsproxy pin "` + s.url("Team/Job") + `"`)
	u.does(`ssh -F "$CONFIG" Team--Job.converge true`)
}

// TestSSHConfigAcceptNew believes the first key, and no second one.
func TestSSHConfigAcceptNew(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	u.does(`wsproxy ssh-config --server ` + s.ws() + `/ --domain ci.example --accept-new --user bob --pins "my pins" > config`)
	u.does(`ssh -F config Job.ci.example true && ssh -F config Job.ci.example true`)
	if v := s.last(t); v.user != "bob" || v.path != "/client/Job" {
		t.Errorf("%+v", v)
	}
	if kept := u.does(`cat "my pins"`); !strings.Contains(kept, "\njob.ci.example "+strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.signer().PublicKey())))+" "+s.bare("Job")+"\n") {
		t.Errorf("%q", kept)
	}
	s.swap(t)
	u.fails(`ssh -F config Job.ci.example true`, 255, "Host key verification failed")
	u.does(`ssh -F config other.ci.example true`)
}

// TestSSHConfigSecrets never stand in the block, and work from a file.
func TestSSHConfigSecrets(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	writeFile(t, filepath.Join(u.home, "it's a token"), "top-secret\n")
	line := "wsproxy ssh-config --accept-new --server " + s.ws()
	u.fails(line+" --token top-secret", 2, "--token would stand in ssh's configuration")
	u.fails(line+" --header 'X-Token: top-secret'", 2, "--header would stand in ssh's configuration")
	block := u.does(`CONVERGE_WSPROXY_TOKEN=top-secret ` + line)
	if strings.Contains(block, "secret") || strings.Contains(block, "token") {
		t.Errorf("%s", block)
	}
	u.does(line + ` --token "@it's a token" > config && cd / && ssh -F "$HOME/config" job.converge true`)
	if h := s.last(t).header; h.Get("Authorization") != "Bearer top-secret" {
		t.Errorf("%v", h)
	}
	text, err := os.ReadFile(filepath.Join(u.home, "config"))
	if err != nil || strings.Contains(string(text), "top-secret") {
		t.Errorf("%s, %v", text, err)
	}
	for options, want := range map[string]string{
		"":                                         "say which server",
		"--server https://h":                       "--server: the URL's scheme",
		"--server wss://h/agent/x":                 "leave /agent/",
		"--server wss://h/client/x":                "--server:",
		"--server wss://h --domain 'a b'":          `--domain is "a b"`,
		"--server wss://h --user 'a b'":            "--user is",
		"--server wss://h extra":                   "takes no argument",
		"--server wss://h --resume-window forever": "is not a duration",
	} {
		u.fails("wsproxy ssh-config "+options, 2, want)
	}
}

// TestHostileName: nothing of a name reaches a shell.
func TestHostileName(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	u.does("wsproxy ssh-config --accept-new --server " + s.ws() + " > config")
	for _, name := range []string{"$(touch x).converge", "`touch x`.converge", "a;touch x;.converge", "a|touch x.converge", "a&touch x&.converge", "a';touch x;'.converge"} {
		u.env = append(u.env, "NAME="+name)
		if r := u.run(`ssh -F config -- "$NAME" true`); r.code == 0 || exists(filepath.Join(u.home, "x")) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// The ssh here may refuse a name with a quote by itself: that the block is not
	// for such names is shown by a letter in the quote's place.
	u.does(`sed "s/'\\*\"$/Q*\"/" config > letter && ! cmp -s config letter`)
	for name, want := range map[string]bool{"job.converge": true, "jQb.converge": false, "Qjob.converge": false, "jobQ.converge": false} {
		for _, file := range []string{"config", "letter"} {
			if got := strings.Contains(u.does(`ssh -G -F `+file+` `+name), "proxycommand "); got != (want || file == "config") {
				t.Errorf("%s: the block of %s counts: %v", name, file, got)
			}
		}
	}
	// Where there is no shell, a name can bring more arguments, which are no
	// options.
	u.does(`grep -q "^ *ProxyCommand .* -- " config`)
	u.fails(`wsproxy by-name --accept-new -- `+s.ws()+` job.converge --pins=x.converge`, 2, "give the server's URL and a name")
}
