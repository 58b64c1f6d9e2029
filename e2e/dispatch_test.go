//go:build linux

package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"html"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/nomadtest"
)

// gitForge is a forge with a certificate of its own: git for one repository, and
// the API of a Gitea.
type gitForge struct {
	*nomadtest.Gitea
	url, ca string
	client  *http.Client
}

func startGitForge(t *testing.T, s *sources) *gitForge {
	t.Helper()
	f := &gitForge{Gitea: nomadtest.NewGitea(t)}
	api, err := url.Parse(f.Gitea.URL)
	if err != nil {
		t.Fatal(err)
	}
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", httputil.NewSingleHostReverseProxy(api))
	mux.Handle("/acme/app.git/", &cgi.Handler{Path: git, Args: []string{"http-backend"}, Stderr: io.Discard, Env: []string{
		"GIT_PROJECT_ROOT=" + filepath.Dir(filepath.Dir(s.bare)), "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*",
	}})
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	f.url, f.ca = server.URL, filepath.Join(t.TempDir(), "ca.pem")
	writeText(t, f.ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	f.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	return f
}

// push is the webhook of a push, as Gitea sends it.
func (f *gitForge) push(t *testing.T, hook, secret, sender, commit string) result {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"ref": "refs/heads/main", "before": strings.Repeat("0", 40), "after": commit,
		"repository": map[string]any{"id": 1, "name": "app", "full_name": "acme/app", "clone_url": f.url + "/acme/app.git", "html_url": f.url + "/acme/app", "ssh_url": "git@127.0.0.1:acme/app.git"},
		"pusher":     map[string]any{"id": 2, "login": sender, "username": sender},
		"sender":     map[string]any{"id": 2, "login": sender, "username": sender},
		"commits":    []any{}, "head_commit": map[string]any{"id": commit},
	})
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, hook, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Content-Type": "application/json", "X-Gitea-Event": "push", "X-GitHub-Event": "push", "X-Gogs-Event": "push",
		"X-Gitea-Delivery": uniqueID(), "X-Gitea-Signature": hex.EncodeToString(mac.Sum(nil)),
	} {
		r.Header.Set(name, value)
	}
	return fetchResult(t, r)
}

func fetchResult(t *testing.T, r *http.Request) result {
	t.Helper()
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result{stdout: string(text), code: answer.StatusCode}
}

func visitPage(t *testing.T, url string) result {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fetchResult(t, r)
}

// startDispatch starts one, behind a proxy whose address is its public one.
func startDispatch(t *testing.T, env ...string) (public string) {
	t.Helper()
	var to *httputil.ReverseProxy
	ready := make(chan struct{})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-ready
		to.ServeHTTP(w, r)
	}))
	t.Cleanup(proxy.Close)
	p := start(t, append(env, "ALBATROS_URL="+proxy.URL, "CONVERGE_DISPATCH_STATE_DIR="+t.TempDir()), tool("dispatch"), "--listen", "127.0.0.1:0")
	address, err := url.Parse("http://" + p.out.Await(t, `msg=serving address=(\S+)`, 1)[1])
	if err != nil {
		t.Fatal(err)
	}
	to = httputil.NewSingleHostReverseProxy(address)
	to.FlushInterval = -1
	close(ready)
	return proxy.URL
}

// awaitStatus waits until the last status of a commit is one that is looked for.
func (f *gitForge) awaitStatus(t *testing.T, commit string, is func(nomadtest.Status) bool) nomadtest.Status {
	t.Helper()
	timeout := time.After(patience)
	for {
		changed := f.Changed()
		all := f.Statuses("acme/app", commit)
		if len(all) > 0 && is(all[len(all)-1]) {
			return all[len(all)-1]
		}
		select {
		case <-changed:
		case <-timeout:
			for _, log := range []string{"stdout", "stderr"} {
				if len(all) > 0 {
					t.Logf("%s:\n%s", log, visitPage(t, all[0].Target+"&log="+log).stdout)
				}
			}
			t.Fatalf("no such status came within %v: %+v", patience, all)
		}
	}
}

// metaOptional is what the shipped builders permit, from their job file.
func metaOptional(t *testing.T) []string {
	t.Helper()
	return jobFile(t, "builder.hcl", nil).one(t, "parameterized").texts("meta_optional")
}

// TestStory: a signed push becomes a build, which really runs and fails; the commit
// says so, and then that one can get in; stock ssh does with the line of the build's
// page; and when the session is over, the commit says that.
func TestStory(t *testing.T) {
	const hookToken, secret = "hook-token", "hook-secret"
	id := newIdentity(t)
	s := newSources(t, "#!/bin/sh\nprintf '\\033[31mtest failed\\033[0m\\n'\ncat \"$SECRET_PATH\" | wc -c\necho on stderr >&2\nexit 42")
	commit := s.commit()
	f := startGitForge(t, s)
	f.AddUser("alice-token", nomadtest.User{ID: 2, Login: "alice", Reads: []string{"acme/app"}}, id.public)
	repository := f.url + "/acme/app.git"
	consul := nomadtest.NewConsul(t)
	consul.Put(repository, map[string]any{
		"hook":    map[string]any{"token": hookToken, "secret": secret},
		"gitea":   map[string]any{"url": f.url, "token": f.Token},
		"trusted": map[string]any{"senders": []string{"alice", "gone"}},
		"inject":  "SECRET1=xx\n",
	})
	script, err := filepath.Abs("../deploy/nomad/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	nomad := nomadtest.NewNomad(t)
	nomad.Register(nomadtest.Builder("builder", metaOptional(t)...))
	nomad.RunScripts(nomadtest.Exec{Command: []string{"/bin/sh", script}, Dir: t.TempDir(), Env: []string{
		"GIT_SSL_CAINFO=" + f.ca, "CURL_CA_BUNDLE=" + f.ca, "CONVERGE_AGENT_CA=" + f.ca, "BUILDER_AGENT=" + tool("agent"), "SHELL=/bin/bash",
		"CONVERGE_AGENT_WSPROXY=" + tool("wsproxy"), "CONVERGE_AGENT_SSH_OPTION=-i" + id.file + "\n-oIdentitiesOnly=yes\n-Fnone\n-oBatchMode=yes",
	}}.Run)
	server := startServer(t)
	public := startDispatch(t, "NOMAD_ADDR="+nomad.URL, "CONSUL_HTTP_ADDR="+consul.URL, "SSL_CERT_FILE="+f.ca, "CONVERGE_DISPATCH_DEBUG_SERVER="+server.ws(""))

	// Neither another signature nor another token gets in.
	if r := f.push(t, public+"/hook?token="+hookToken, "wrong", "alice", commit); r.code != http.StatusUnauthorized {
		t.Errorf("a forged push: %d %s", r.code, r.stdout)
	}
	if r := f.push(t, public+"/hook?token=wrong", secret, "alice", commit); r.code != http.StatusForbidden {
		t.Errorf("another token: %d %s", r.code, r.stdout)
	}
	pushed := f.push(t, public+"/hook?token="+hookToken, secret, "alice", commit)
	build := strings.TrimSpace(pushed.stdout)
	if pushed.code != http.StatusOK || !regexp.MustCompile(`^builder/dispatch-\d+-\w+$`).MatchString(build) {
		t.Fatalf("a push: %d %s", pushed.code, pushed.stdout)
	}

	open := f.awaitStatus(t, commit, func(s nomadtest.Status) bool { return strings.Contains(s.Description, "debug session open") })
	if open.State != "failure" || open.Context != "Albatros default" || !regexp.MustCompile(`^exit 42, debug session open until \d\d:\d\d`).MatchString(open.Description) || !strings.HasPrefix(open.Target, public+"/build?job=") {
		t.Errorf("the commit says %+v", open)
	}
	var said []string
	for _, s := range f.Statuses("acme/app", commit) {
		said = append(said, s.State+" "+s.Description)
	}
	if all := strings.Join(said, "\n"); !regexp.MustCompile(`(?s)^pending .*\nfailure exit 42\nfailure exit 42, debug session open`).MatchString(all) {
		t.Errorf("the commit said\n%s", all)
	}
	// The status leads to the page, which has the line.
	page := visitPage(t, open.Target)
	line := regexp.MustCompile(`(?m)ssh [^<>\n]*ProxyCommand[^<>\n]*`).FindString(page.stdout)
	if page.code != http.StatusOK || line == "" {
		t.Fatalf("the page: %d\n%s", page.code, page.stdout)
	}
	r := shell(t, strings.NewReader("cat \"$SECRET_PATH\"; echo \"$COMMIT\"; ls -A; exit 0\n"), html.UnescapeString(line)+" -T").must(t)
	for _, want := range []string{"SECRET1=xx\n", commit, ".albatros"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}
	over := f.awaitStatus(t, commit, func(s nomadtest.Status) bool { return strings.Contains(s.Description, "debug session ended") })
	if over.State != "failure" || over.Description != "exit 42, debug session ended" {
		t.Errorf("the commit says %+v", over)
	}
	if log := visitPage(t, open.Target+"&log=stdout"); log.code != http.StatusOK || log.stdout != "\x1b[31mtest failed\x1b[0m\n11\n" {
		t.Errorf("the log: %d %q", log.code, log.stdout)
	}
	if log := visitPage(t, open.Target+"&log=stderr"); !strings.HasPrefix(log.stdout, "on stderr\n") || strings.Contains(log.stdout, "SECRET1") {
		t.Errorf("the log: %d %q", log.code, log.stdout)
	}
	// The page no longer has it.
	if page := visitPage(t, open.Target); page.code != http.StatusOK || strings.Contains(page.stdout, "ProxyCommand") {
		t.Errorf("the page: %d\n%s", page.code, page.stdout)
	}

	// Somebody who is not trusted is built, too: without secrets and without a session.
	writeText(t, filepath.Join(s.work, "more"), "x")
	another := s.commit()
	if r := f.push(t, public+"/hook?token="+hookToken, secret, "mallory", another); r.code != http.StatusOK {
		t.Fatalf("mallory's push: %d %s", r.code, r.stdout)
	}
	last := f.awaitStatus(t, another, func(s nomadtest.Status) bool { return s.State == "failure" })
	if last.Description != "exit 42" {
		t.Errorf("mallory's commit says %+v", last)
	}
	if log := visitPage(t, last.Target+"&log=stdout"); log.stdout != "\x1b[31mtest failed\x1b[0m\n0\n" {
		t.Errorf("mallory's build: %q", log.stdout)
	}
}
