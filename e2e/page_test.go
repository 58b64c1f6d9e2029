package e2e

import (
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// downloads makes a folder as make build-downloads does, for this platform.
func downloads(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"agent", "wsproxy", "tcptows"} {
		if err := os.Link(tool(name), filepath.Join(dir, fmt.Sprintf("%s-%s-%s", name, runtime.GOOS, runtime.GOARCH))); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// page fetches a home page and returns its command blocks by name.
func page(t *testing.T, url string) map[string]string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	blocks := map[string]string{}
	tags := regexp.MustCompile(`<[^>]*>`)
	for _, m := range regexp.MustCompile(`(?s)<pre[^>]*data-run="([^"]+)"[^>]*>(.*?)</pre>`).FindAllStringSubmatch(string(body), -1) {
		blocks[m[1]] = html.UnescapeString(tags.ReplaceAllString(m[2], ""))
	}
	return blocks
}

// typePage types the lines of a page: the job's into a folder of its own, the
// engineer's into another.
func typePage(t *testing.T, url string) {
	t.Helper()
	blocks := page(t, url)
	id := newIdentity(t)
	common := " -F none -i " + id.file + " -oIdentitiesOnly=yes -oBatchMode=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null"
	mine := func(line string) string { // the test's own identity and known_hosts
		line = strings.TrimSpace(line)
		for _, program := range []string{"ssh ", "sftp "} {
			if rest, ok := strings.CutPrefix(line, program); ok {
				return program + common + " " + rest
			}
		}
		t.Fatalf("unexpected line %q", line)
		return ""
	}
	for _, name := range []string{"job", "job-safe", "engineer", "ssh-wsproxy", "sftp-wsproxy", "tcptows", "ssh-tcptows", "sftp-tcptows"} {
		if blocks[name] == "" {
			t.Fatalf("the page has no block %q: %v", name, blocks)
		}
	}

	job := t.TempDir()
	if err := os.WriteFile(filepath.Join(job, "authorized_keys"), []byte(id.public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	inJob := func(env []string, script string) *process {
		p := start(t, env, "/bin/sh", "-c", "cd '"+job+"' && set -e\n"+strings.Replace(script, "./agent", "exec ./agent", 1))
		p.out.Await(t, `Its id is (\S+)`, 1)
		return p
	}
	// The plain lines give a password; the tests log in by the same key.
	plain := inJob([]string{"CONVERGE_AGENT_AUTHORIZED_KEY=" + id.public, "CONVERGE_AGENT_KEEP=1"}, blocks["job"])
	agentID := plain.out.Await(t, `Its id is (\S+)`, 1)[1]
	if !strings.Contains(blocks["ssh-wsproxy"], "/client/"+agentID) {
		t.Errorf("the engineer's lines are for another id than the job's: %q, %q", agentID, blocks["ssh-wsproxy"])
	}

	engineer := t.TempDir()
	runCommand(t, nil, "/bin/sh", "-c", "cd '"+engineer+"' && set -e\n"+blocks["engineer"]).must(t)
	typed := func(stdin, line string) result {
		return shell(t, strings.NewReader(stdin), "cd '"+engineer+"' && PATH=\"$PWD:$PATH\" "+line)
	}
	if r := typed("", mine(blocks["ssh-wsproxy"])+" echo typed").must(t); r.stdout != "typed\n" {
		t.Errorf("ssh gave %q", r.stdout)
	}
	typed("pwd\n", mine(blocks["sftp-wsproxy"])).must(t)
	short := strings.Replace(plain.out.Await(t, `(?m)^  (wsproxy ssh ".*")$`, 1)[1], "wsproxy ssh ", "wsproxy ssh"+common+" ", 1)
	if r := typed("", short+" echo typed").must(t); r.stdout != "typed\n" {
		t.Errorf("the line of the job's log gave %q", r.stdout)
	}

	// Port 10000 of the page may be in use here: any free one serves.
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	_ = free.Close()
	onPort := func(line string) string { return strings.Replace(line, "10000", port, 1) }
	forward := start(t, nil, "/bin/sh", "-c", "cd '"+engineer+"' && exec "+strings.TrimSpace(onPort(blocks["tcptows"])))
	forward.out.Await(t, "listening on", 1)
	typed("", mine(onPort(blocks["ssh-tcptows"]))+" true").must(t)
	typed("pwd\n", mine(onPort(blocks["sftp-tcptows"]))).must(t)

	plain.signal(syscall.SIGTERM)
	plain.wait(t)
	safe := inJob([]string{"CONVERGE_AGENT_KEEP=1"}, blocks["job-safe"])
	if strings.Contains(safe.out.String(), "password:") {
		t.Error("the safer lines give a password")
	}
	typed("", mine(blocks["ssh-wsproxy"])+" true").must(t)
}

// TestPage types all lines of the home page of a running server.
func TestPage(t *testing.T) {
	s := startServer(t, "--downloads", downloads(t))
	typePage(t, "http://"+s.addr+"/")
}

// TestNginx is the same behind a real reverse proxy under a sub-path, as
// docs/reverse-proxy.md sets it up.
func TestNginx(t *testing.T) {
	s := startServer(t, "--downloads", downloads(t), "--trusted-proxy", "127.0.0.0/8")
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := l.Addr().String()
	_ = l.Close()
	snippet, err := os.ReadFile(filepath.Join("..", "docs", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("daemon off;\npid %[1]s/pid;\nerror_log stderr;\nevents {}\nhttp {\naccess_log off;\n"+
		"client_body_temp_path %[1]s/b;\nproxy_temp_path %[1]s/p;\nfastcgi_temp_path %[1]s/f;\nuwsgi_temp_path %[1]s/u;\nscgi_temp_path %[1]s/s;\n"+
		"server {\nlisten %[2]s;\n%[3]s}\n}\n", dir, front, strings.ReplaceAll(string(snippet), "127.0.0.1:8080", s.addr))
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("nginx", "-t", "-q", "-c", file).CombinedOutput(); err != nil {
		t.Fatalf("nginx refuses the configuration: %v\n%s", err, out)
	}
	start(t, nil, "nginx", "-c", file)
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get("http://" + front + "/converge/readyz")
		if err == nil {
			_ = resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not answer: %v", err)
		}
	}
	typePage(t, "http://"+front+"/converge/")
}
