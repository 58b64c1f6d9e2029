//go:build linux

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// shells are those that a line may be pasted into, without anybody's start-up
// files. zsh is as strict as it can be made.
var shells = map[string][]string{
	"sh":   {"/bin/sh", "-c"},
	"bash": {"bash", "--norc", "-c"},
	"zsh":  {"zsh", "-f", "-o", "extendedglob", "-c"},
	"fish": {"fish", "--no-config", "-c"},
}

// paste runs a line in a shell.
func paste(t *testing.T, shell, stdin, line string) result {
	t.Helper()
	command := shells[shell]
	return runCommand(t, strings.NewReader(stdin), command[0], append(command[1:len(command):len(command)], line)...)
}

// TestPastedLines: what the agent prints logs in, whatever shell it is pasted
// into.
func TestPastedLines(t *testing.T) {
	s, id := startServer(t, "--downloads", downloads(t)), newIdentity(t)
	a := runAgent(t, s.ws("/agent/team/a~b.c_D/"+uniqueID()), id, "--keep", "--print", "all")
	lines := map[string]string{
		"short": a.short, "stock": a.ssh,
		"short sftp": a.out.Await(t, `(?m)^  (\S*wsproxy sftp .*)$`, 1)[1],
		"stock sftp": a.out.Await(t, `(?m)^  (sftp .*)$`, 1)[1],
	}
	for shell := range shells {
		t.Run(shell, func(t *testing.T) {
			for name, line := range lines {
				want, stdin := "in\n", ""
				if strings.HasSuffix(name, "sftp") {
					want, stdin = "Remote working directory: /", "pwd\n"
				} else {
					line += " echo in"
				}
				if r := paste(t, shell, stdin, line).must(t); !strings.Contains(r.stdout, want) {
					t.Errorf("%s gave %q\n%s", name, r.stdout, line)
				}
			}
		})
	}

	t.Run("tcptows", func(t *testing.T) {
		_, port, _ := net.SplitHostPort(freePort(t))
		onPort := func(line string) string { return strings.Replace(line, " 10000 ", " "+port+" ", 1) }
		open := a.out.Await(t, `(?m)^  (\S*tcptows 10000 .*)$`, 1)[1]
		enter := a.out.Await(t, `(?m)^  (ssh .* -p 10000 .*)$`, 1)[1]
		p := start(t, nil, "/bin/sh", "-c", "exec "+onPort(open))
		p.out.Await(t, "listening on", 1)
		if r := shell(t, nil, onPort(enter)+" echo in").must(t); r.stdout != "in\n" {
			t.Errorf("%q", r.stdout)
		}
		// Who listens there in its place has another key.
		other := startAgent(t, s, id)
		_, port, _ = net.SplitHostPort(freePort(t))
		p = start(t, nil, tool("tcptows"), port, other.url)
		p.out.Await(t, "listening on", 1)
		if r := shell(t, nil, onPort(enter)+" echo in"); r.code != 255 || r.stdout != "" || !strings.Contains(r.stderr, "Host key verification failed") {
			t.Errorf("%+v", r)
		}
	})

	t.Run("download", func(t *testing.T) {
		fetch := a.out.Await(t, `(?m)^  (f=wsproxy.*)$`, 1)[1]
		for _, shell := range []string{"sh", "bash", "zsh"} {
			if r := paste(t, shell, "", "cd '"+t.TempDir()+"' && "+fetch+" echo in").must(t); !strings.HasSuffix(r.stdout, "in\n") {
				t.Errorf("%s: %q", shell, r.stdout)
			}
		}
		// What came is not what the list has, or is not there: it is not run.
		name := "wsproxy-" + runtime.GOOS + "-" + runtime.GOARCH
		ran := filepath.Join(t.TempDir(), "ran")
		for _, there := range []bool{true, false} {
			broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/SHA256SUMS"):
					_, _ = io.WriteString(w, strings.Repeat("0", 64)+"  "+name+"\n")
				case there && strings.HasSuffix(r.URL.Path, "/"+name):
					_, _ = io.WriteString(w, "#!/bin/sh\ntouch '"+ran+"'\n")
				default:
					http.NotFound(w, r)
				}
			}))
			r := shell(t, nil, "cd '"+t.TempDir()+"' && "+strings.ReplaceAll(fetch, "http://"+s.addr, broken.URL)+" echo in")
			broken.Close()
			if _, err := os.Stat(ran); err == nil || r.code == 0 || strings.Contains(r.stdout, "in\n") {
				t.Errorf("%+v, %v", r, err)
			}
		}
	})
}

// TestWrongPin: a line with the key of another agent leads nowhere, whoever
// notices it.
func TestWrongPin(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	a, other := startAgent(t, s, id), startAgent(t, s, id)
	swapped := strings.Replace(a.short, "/client/"+a.id+"#", "/client/"+other.id+"#", 1)
	if swapped == a.short {
		t.Fatal(a.short)
	}
	for env, want := range map[string]string{
		"":                                  "wsproxy: cannot open a resumable stream: the far end is not the agent that the URL names",
		"CONVERGE_WSPROXY_RESUME_WINDOW=0 ": "Host key verification failed.", // ssh's own check
	} {
		for _, program := range []string{"ssh", "sftp"} {
			line := env + strings.Replace(swapped, " ssh ", " "+program+" ", 1)
			if r := shell(t, nil, line); r.code != 255 || !strings.Contains(r.stderr, want) {
				t.Errorf("%s\n%+v", line, r)
			}
		}
	}
	if strings.Contains(other.out.String(), "logged in") {
		t.Errorf("somebody logged in:\n%s", other.out)
	}
}

// TestShortInTerminal pastes the short line into an interactive zsh: a password,
// a terminal that follows the window, keys that are the job's, and the status at
// the end.
func TestShortInTerminal(t *testing.T) {
	s := startServer(t)
	a := awaitAgent(t, start(t, nil, tool("agent"), "--keep", "--shell", "/bin/bash", "--wsproxy", tool("wsproxy"),
		"--ssh-option=-Fnone", "--ssh-option=-oPubkeyAuthentication=no", s.ws("/agent/"+uniqueID())))
	password := a.out.Await(t, `password: (\S+)`, 1)[1]
	screen := newScreen(t, "100", "30")
	screen.typeLine("exec zsh -f -o extendedglob")
	screen.typeLine("echo zsh=$ZSH_VERSION.")
	screen.waitFor(`zsh=\d\S*\.`)
	screen.typeLine(a.short)
	screen.waitFor(`password:`)
	screen.typeLine(password)
	screen.waitFor(`Welcome to this job`)
	screen.typeLine("echo size=$(stty size).")
	screen.waitFor(`size=30 100\.`)
	screen.typeLine(`trap 'echo "resized to $(stty size)."' WINCH; echo tr''apped`)
	screen.waitFor(`trapped`)
	screen.tmux("resize-window", "-x", "72", "-y", "21")
	screen.waitFor(`resized to 21 72\.`)
	screen.typeLine("(echo run''ning; exec sleep 1000)")
	screen.waitFor(`running`)
	screen.tmux("send-keys", "C-c") // neither ssh's nor wsproxy's
	screen.typeLine("echo code=$?.")
	screen.waitFor(`code=130\.`)
	screen.typeLine("exit 3")
	screen.waitFor(`Connection to \S+ closed`)
	screen.typeLine("echo status=$?.")
	screen.waitFor(`status=3\.`)
}

// TestShortFiles moves files with the short lines.
func TestShortFiles(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	a := startAgent(t, s, id)
	options := []string{"-F", "none", "-i", id.file, "-oIdentitiesOnly=yes", "-oBatchMode=yes"}
	wsproxy := func(stdin, program string, args ...string) {
		t.Helper()
		runCommand(t, strings.NewReader(stdin), tool("wsproxy"), append([]string{program}, args...)...).must(t)
	}
	from := tree(t)
	for _, program := range []string{"sftp", "scp", "rsync"} {
		t.Run(program, func(t *testing.T) {
			far, back := filepath.Join(t.TempDir(), "far"), filepath.Join(t.TempDir(), "back")
			switch program {
			case "sftp":
				wsproxy("put -Rp "+from+" "+far+"\nget -Rp "+far+" "+back+"\n", program, append([]string{a.url, "-b", "-"}, options...)...)
			case "scp":
				wsproxy("", program, append(append([]string{a.url, "-rp"}, options...), from, "job:"+far)...)
				wsproxy("", program, append(append([]string{a.url, "-rp"}, options...), "job:"+far, back)...)
			case "rsync": // takes no option of ssh's: the key is an agent's
				line := `ssh-add -q "$KEY" && "$WSPROXY" rsync "$URL" -a "$FROM/" "job:$FAR/" && "$WSPROXY" rsync "$URL" -a "job:$FAR/" "$BACK/"`
				runCommand(t, nil, "env", "KEY="+id.file, "WSPROXY="+tool("wsproxy"), "URL="+a.url, "FROM="+from, "FAR="+far, "BACK="+back,
					"ssh-agent", "/bin/sh", "-c", line).must(t)
			}
			for _, file := range []string{"plain", "empty", "a name with spaces", "ümläut", "deep/er/file", "deep/run.sh"} {
				if fileSum(t, filepath.Join(back, file)) != fileSum(t, filepath.Join(from, file)) {
					t.Errorf("%s has changed on its way", file)
				}
			}
		})
	}
}

// TestDocumentedLines types what the README and its page on clients say of
// wsproxy, with a real URL.
func TestDocumentedLines(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	far, here := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		filepath.Join(far, "report.xml"):        "report",
		filepath.Join(far, "logs", "log"):       "log",
		filepath.Join(far, "build", "Makefile"): "all:\n\t@echo made\n",
		filepath.Join(here, "fixes", "fix"):     "fix",
	} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := agentCommand(s.ws("/agent/"+uniqueID()), id, "--keep")
	a := awaitAgent(t, start(t, nil, "/bin/sh", append([]string{"-c", `cd "$0" && exec "$@"`, far}, command...)...))
	_, port, _ := net.SplitHostPort(freePort(t))
	seen := map[string]bool{}
	for _, page := range []string{"../README.md", "../docs/clients.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^(wsproxy (ssh|sftp|scp|rsync) )("wss://HOST/client/ID#PIN")(.*)$`).FindAllStringSubmatch(string(text), -1) {
			line := m[1] + `"` + a.url + `"` + strings.NewReplacer("job:/tmp", "job:"+far, "-L 8000:", "-L "+port+":").Replace(m[4])
			if seen[line] {
				continue
			}
			seen[line] = true
			r := runCommand(t, strings.NewReader("pwd\n"), "env", "PATH="+bin+":"+os.Getenv("PATH"), "KEY="+id.file, "HERE="+here,
				"ssh-agent", "/bin/sh", "-c", `ssh-add -q "$KEY" && cd "$HERE" && `+line)
			if r.code != 0 || strings.Contains(m[4], "make") && !strings.Contains(r.stdout, "made\n") {
				t.Errorf("%s: %s\n%+v", page, line, r)
			}
		}
	}
	if len(seen) < 6 {
		t.Errorf("the pages have only %v", seen)
	}
	for _, file := range []string{filepath.Join(here, "report.xml"), filepath.Join(here, "logs", "log"), filepath.Join(far, "fixes", "fix")} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
}

// TestNames: by the block that wsproxy writes stock programs find the agents of a
// server by their names.
func TestNames(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	home := t.TempDir()
	config := filepath.Join(home, "config")
	in := func(line string) result {
		t.Helper()
		return runCommand(t, nil, "env", "HOME="+home, "XDG_CONFIG_HOME=", "PATH="+bin+":"+os.Getenv("PATH"), "HOST="+s.ws(""), "CONFIG="+config,
			"GIT_SSH_COMMAND=ssh -F "+config, "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "/bin/sh", "-c", "cd && "+line)
	}
	if err := os.WriteFile(config, []byte("IdentityFile "+id.file+"\nIdentitiesOnly yes\nBatchMode yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	in(`wsproxy ssh-config --server "$HOST" >> "$CONFIG"`).must(t)
	name := uniqueID()
	a := runAgent(t, s.ws("/agent/Team/"+name), id, "--keep")
	job := "Team--" + name + ".converge"

	if r := in("ssh -F config " + job + " true"); r.code != 255 || !strings.Contains(r.stderr, "no key of the agent is known") {
		t.Errorf("%+v", r)
	}
	in(`wsproxy pin "` + a.url + `"`).must(t)
	if r := in("ssh -F config " + job + " echo in").must(t); r.stdout != "in\n" {
		t.Errorf("%q", r.stdout)
	}
	from, far := tree(t), t.TempDir()
	in("scp -F config -rp '" + from + "' " + job + ":" + far + "/scp").must(t)
	in("printf 'put -Rp %s %s\n' '" + from + "' " + far + "/sftp | sftp -F config -b - " + job).must(t)
	in("rsync -a -e 'ssh -F config' '" + from + "/' " + job + ":" + far + "/rsync/").must(t)
	for _, program := range []string{"scp", "sftp", "rsync"} {
		if fileSum(t, filepath.Join(far, program, "deep/er/file")) != fileSum(t, filepath.Join(from, "deep/er/file")) {
			t.Errorf("%s has changed a file on its way", program)
		}
	}
	in("git init -q -b main work && cd work && git -c user.name=t -c user.email=t@localhost commit -q --allow-empty -m one && git clone -q --bare . '" + far + "/repo.git'").must(t)
	in("git clone -q " + job + ":" + far + "/repo.git by-path && git clone -q ssh://" + job + far + "/repo.git by-url").must(t)
	if r := in("git -C by-path log --format=%s && git -C by-url log --format=%s").must(t); r.stdout != "one\none\n" {
		t.Errorf("git cloned %q", r.stdout)
	}

	// The job runs again, with another key: refused until somebody says so.
	a.finish(t)
	a = runAgent(t, s.ws("/agent/Team/"+name), id, "--keep")
	if r := in("ssh -F config " + job + " true"); r.code != 255 || !strings.Contains(r.stderr, "has not the key that is kept for it: if its job ran again") {
		t.Errorf("%+v", r)
	}
	if r := in("CONVERGE_WSPROXY_RESUME_WINDOW=0 ssh -F config " + job + " true"); r.code != 255 || !strings.Contains(r.stderr, "Host key verification failed") {
		t.Errorf("%+v", r)
	}
	in(`wsproxy pin "` + a.url + `" && ssh -F config ` + job + " true").must(t)

	// Who wants to believes the first key, and no second one.
	in(`printf 'IdentityFile %s\nIdentitiesOnly yes\nBatchMode yes\n' '` + id.file + `' > lax && wsproxy ssh-config --server "$HOST" --accept-new --pins pins >> lax`).must(t)
	in("ssh -F lax " + job + " true && ssh -F lax " + job + " true").must(t)
	a.finish(t)
	runAgent(t, s.ws("/agent/Team/"+name), id, "--keep")
	if r := in("ssh -F lax " + job + " true"); r.code != 255 {
		t.Errorf("%+v", r)
	}
}

// TestPrintJSON: a program reads what the agent prints, and uses it.
func TestPrintJSON(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	stdout := filepath.Join(t.TempDir(), "stdout")
	command := agentCommand(s.ws("/agent/"+uniqueID()), id, "--keep", "--print", "json")
	p := start(t, nil, "/bin/sh", append([]string{"-c", `out=$1; shift; exec "$@" >"$out"`, "sh", stdout}, command...)...)
	p.out.Await(t, `converge: waiting for somebody to log in`, 1)
	// Python's reader, as an example of somebody else's.
	read := func(key string) string {
		t.Helper()
		r := runCommand(t, nil, "/usr/bin/python3", "-c", "import json, sys; print(json.loads(open(sys.argv[1]).read())[sys.argv[2]])", stdout, key)
		return strings.TrimSuffix(r.must(t).stdout, "\n")
	}
	for _, key := range []string{"ssh", "ssh_stock"} {
		if r := shell(t, nil, read(key)+" echo in").must(t); r.stdout != "in\n" {
			t.Errorf("%s gave %q", key, r.stdout)
		}
	}
	shell(t, strings.NewReader("pwd\n"), read("sftp")).must(t)
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte("job "+read("host_key")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	runCommand(t, nil, "ssh", "-Fnone", "-i"+id.file, "-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oUserKnownHostsFile="+known, "-oStrictHostKeyChecking=yes",
		"-oProxyCommand="+tool("wsproxy")+" "+read("client_url"), read("user")+"@job", "true").must(t)
	p.signal(syscall.SIGTERM)
	p.wait(t)
	text, err := os.ReadFile(stdout)
	if err != nil || bytes.Count(text, []byte("\n")) != 1 || !json.Valid(text) {
		t.Errorf("%v, %q", err, text)
	}
}

// TestJobLogs: in the log of a CI system what few need is folded away, and its
// summary tells who was there.
func TestJobLogs(t *testing.T) {
	s, id := startServer(t), newIdentity(t)
	for name, test := range map[string]struct{ env, fold string }{
		"github": {"GITHUB_ACTIONS=true", `(?s)\n::group::(.*?)\n::endgroup::\n`},
		"gitlab": {"GITLAB_CI=true", `(?s)\n\x1b\[0Ksection_start:\d+:\w+\[collapsed=true\]\r\x1b\[0K(.*?)\n\x1b\[0Ksection_end:\d+:\w+\r\x1b\[0K\n`},
	} {
		t.Run(name, func(t *testing.T) {
			summary := filepath.Join(t.TempDir(), "summary")
			command := agentCommand(s.ws("/agent/"+uniqueID()), id)
			a := awaitAgent(t, start(t, []string{test.env, "GITHUB_STEP_SUMMARY=" + summary}, command[0], command[1:]...))
			folded := a.out.Await(t, test.fold, 1)[1]
			if !strings.Contains(folded, a.ssh) || strings.Contains(folded, a.short) || !strings.Contains(folded, "host key: SHA256:") {
				t.Errorf("folded away is %q", folded)
			}
			visit(t, id, a)
			if code := a.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			text, err := os.ReadFile(summary)
			if name == "gitlab" {
				if err == nil {
					t.Errorf("a summary that nobody asked for: %s", text)
				}
				return
			}
			host, _, _ := net.SplitHostPort(s.addr)
			if err != nil || !regexp.MustCompile(`(?m)^    .* abc \(key ".*"\) logged in$`).Match(text) ||
				!strings.Contains(string(text), "because its last user logged out") || strings.Contains(string(text), host) || strings.Contains(string(text), a.id) {
				t.Errorf("%v, %s", err, text)
			}
		})
	}
}
