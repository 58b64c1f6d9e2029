//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestSSH has the stock ssh go through the short line.
func TestSSH(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	line := `wsproxy ssh -F none "` + s.url("team/job") + `"`
	r := u.run(line + ` 'echo out; echo err >&2; exit 7' -l x`)
	if r.code != 7 || r.stdout != "out\n" || !strings.Contains(r.stderr, "err\n") {
		t.Errorf("%+v", r)
	}
	if v := s.last(t); v.user != "abc" || v.path != "/client/team/job" {
		t.Errorf("%+v", v)
	}
	for _, as := range []string{"-l bob", "-oUser=bob", "-o 'user bob'"} {
		if got := u.does(line + " " + as + ` echo "'two  words'" '$((1+1))' -- x`); got != "two  words 2 -- x\n" {
			t.Errorf("%q", got)
		}
		if v := s.last(t); v.user != "bob" {
			t.Errorf("%s: %+v", as, v)
		}
	}
	// Data both ways, and the end of the input.
	if got := u.does("printf hello | " + line + " cat"); got != "hello" {
		t.Errorf("%q", got)
	}
	// Its own words where nobody is.
	u.fails(`wsproxy ssh -F none "ws://127.0.0.1:1/client/x#`+strings.SplitN(s.url("x"), "#", 2)[1]+`" true`, 255, "wsproxy: cannot reach ws://127.0.0.1:1/client/x")
	u.fails("wsproxy ssh -F none -oNoSuchOption=1 '"+s.url("x")+"'", 255, "nosuchoption")
	u.fails("wsproxy ssh", 2, "give one URL")
	u.fails("wsproxy ssh --no-such 'ws://h/client/x'", 2, "unknown option --no-such")
	u.fails("wsproxy ssh 'ws://h/agent/x'", 2, "/client/ID")
	u.fails("wsproxy ssh 'ws://h/client/x#short'", 2, "invalid pin")
	u.env = append(u.env, "PATH="+filepath.Dir(programPath(t)))
	u.fails("/bin/sh -c \"wsproxy ssh '"+s.url("x")+"'\"", 1, "wsproxy ssh: cannot find ssh: install it")
}

// programPath is the path of wsproxy.
func programPath(t *testing.T) string {
	t.Helper()
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, "wsproxy"); exists(path) {
			return path
		}
	}
	t.Fatal("there is no wsproxy on the PATH")
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// TestPinned: the key of the URL, and no other, is taken; whatever the user's
// configuration says, and by the pin's other form too.
func TestPinned(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	good := s.url("job")
	lax := filepath.Join(u.home, "lax")
	writeFile(t, lax, "Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  VerifyHostKeyDNS yes\n  ControlMaster auto\n  ControlPath "+u.home+"/%C\n")
	for _, config := range []string{"none", lax} {
		u.does(`wsproxy ssh -F ` + config + ` "` + good + `" true`)
		u.does(`wsproxy ssh -F ` + config + ` "` + s.bare("job") + "#sha256:" + strings.TrimPrefix(ssh.FingerprintSHA256(s.signer().PublicKey()), "SHA256:") + `" true`)
	}
	s.swap(t)
	for _, config := range []string{"none", lax} {
		for _, options := range []string{"", "-oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null"} {
			u.fails(`wsproxy ssh -F `+config+` `+options+` "`+good+`" `+options+` true`, 255, "Host key verification failed")
		}
	}
	u.fails(`wsproxy ssh -F none "`+s.bare("job")+"#sha256:"+strings.Repeat("A", 43)+`" true`, 1, "has not the key that the URL names")
	u.fails(`printf 'ls\n' | wsproxy sftp -F none "`+good+`" -b -`, 255, "Host key verification failed")
	u.fails(`wsproxy scp -F none "`+good+`" job:x .`, 255, "Host key verification failed")
	// rsync's own code is 12 unless it sees in time that ssh has ended with 255.
	u.fails(`wsproxy rsync "`+good+`" job:x . || exit 255`, 255, "Host key verification failed")
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, text string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("%s: %q, %v, want %q", path, got, err, text)
	}
}

// TestFiles moves files with the stock programs. The temporary folder and the
// home have names that shells and ssh would take apart.
func TestFiles(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	far := filepath.Join(t.TempDir(), "far end")
	u.tmp = filepath.Join(t.TempDir(), `it's a 50% "tmp"`)
	if err := os.MkdirAll(u.tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	u.env = append(u.env, "TMPDIR="+u.tmp, "FAR="+far, "URL="+s.url("team/job"))
	writeFile(t, filepath.Join(far, "report.xml"), "report")
	writeFile(t, filepath.Join(u.home, "patch"), "patch")

	u.does(`wsproxy scp -F none "$URL" -q "job:$FAR/report.xml" by-scp && wsproxy scp -F none "$URL" patch "job:$FAR/scp"`)
	wantFile(t, filepath.Join(u.home, "by-scp"), "report")
	wantFile(t, filepath.Join(far, "scp"), "patch")
	u.does(`wsproxy scp -O -F none "$URL" bob@job:"'$FAR'"/report.xml by-old-scp`)
	wantFile(t, filepath.Join(u.home, "by-old-scp"), "report")
	if v := s.last(t); v.user != "bob" {
		t.Errorf("%+v", v)
	}

	u.does(`printf 'cd "%s"\nput patch sftp\nget report.xml by-sftp\n' "$FAR" | wsproxy sftp -F none "$URL" -b -`)
	wantFile(t, filepath.Join(u.home, "by-sftp"), "report")
	wantFile(t, filepath.Join(far, "sftp"), "patch")
	if v := s.last(t); v.user != "abc" {
		t.Errorf("%+v", v)
	}

	u.does(`wsproxy rsync "$URL" -as --exclude=scp "job:$FAR/" by-rsync && wsproxy rsync "$URL" -as patch "job:$FAR/rsync"`)
	wantFile(t, filepath.Join(u.home, "by-rsync", "report.xml"), "report")
	wantFile(t, filepath.Join(far, "rsync"), "patch")
	if exists(filepath.Join(u.home, "by-rsync", "scp")) {
		t.Error("rsync has not heard of --exclude")
	}
	if v := s.last(t); v.user != "abc" {
		t.Errorf("%+v", v)
	}
	u.fails(`wsproxy rsync "$URL" -e ssh job:x .`, 2, "-e is taken")
	u.fails(`wsproxy scp "$URL" x y`, 2, "write it as job:PATH")
}

// TestSecrets go through the environment, and stand on nobody's command line.
func TestSecrets(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	writeFile(t, filepath.Join(u.home, "token"), "top-secret\n")
	writeFile(t, filepath.Join(u.home, "bin", "ssh"), "#!/bin/sh\nprintf '%s\\n' \"$@\" >>\"$HOME/args\"\nexec /usr/bin/ssh \"$@\"\n")
	if err := os.Chmod(filepath.Join(u.home, "bin", "ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.env = append(u.env, "PATH="+filepath.Join(u.home, "bin")+":"+os.Getenv("PATH"))
	for _, options := range []string{"--token @token --header 'X-Other: a, b'", "--header 'Authorization: Bearer top-secret' --header 'X-Other: a, b'"} {
		u.does(`wsproxy ssh ` + options + ` -F none "` + s.url("job") + `" true`)
		if h := s.last(t).header; h.Get("Authorization") != "Bearer top-secret" || h.Get("X-Other") != "a, b" {
			t.Errorf("%s: %v", options, h)
		}
	}
	args, err := os.ReadFile(filepath.Join(u.home, "args"))
	if err != nil || strings.Contains(string(args), "secret") || !strings.Contains(string(args), "ProxyCommand=") {
		t.Errorf("%v:\n%s", err, args)
	}
}

// TestAcceptNew believes the first key of an agent, if told to, and keeps it.
func TestAcceptNew(t *testing.T) {
	s, u := newSSHServer(t), newUser(t)
	line := `-F none "` + s.bare("Job") + `" true`
	u.fails("wsproxy ssh "+line, 1, "no key of the agent is known")
	u.does("wsproxy ssh --accept-new " + line)
	u.does("wsproxy ssh " + line)
	u.fails(`wsproxy ssh -F none "`+s.bare("job")+`" true`, 1, "no key of the agent is known")
	if got := u.does("wsproxy pin"); got != s.bare("Job")+" "+ssh.FingerprintSHA256(s.signer().PublicKey())+"\n" {
		t.Errorf("%q", got)
	}
	s.swap(t)
	u.fails("wsproxy ssh --accept-new "+line, 255, "Host key verification failed")
	// The whole URL comes first.
	u.does(`wsproxy ssh -F none "` + s.url("Job") + `" true`)
	u.does(`wsproxy pin "` + s.url("Job") + `"`)
	u.does("wsproxy ssh " + line)
	u.does("wsproxy pin --forget " + s.bare("Job"))
	u.fails("wsproxy ssh "+line, 1, "no key of the agent is known")
	u.fails("wsproxy pin --forget "+s.bare("Job"), 1, "no key of "+s.bare("Job")+" is kept")
	u.fails("wsproxy pin "+s.bare("Job"), 2, "has no key")
	u.fails("wsproxy pin --forget", 2, "--forget needs the URL")
}
