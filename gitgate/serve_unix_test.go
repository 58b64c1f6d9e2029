//go:build unix

package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"example.com/converge/gitgate/internal/gittest"
	"example.com/converge/pkg/certtest"
)

func get(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestTLS serves with a certificate, and with the next one after it was renewed.
func TestTLS(t *testing.T) {
	repo := gittest.New(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	client := func(serial int64) *http.Client {
		pair, err := certtest.New(serial)
		if err != nil {
			t.Fatal(err)
		}
		if err := pair.Write(certFile, keyFile); err != nil {
			t.Fatal(err)
		}
		return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pair.Pool()}, DisableKeepAlives: true}}
	}
	first := client(1)
	r := serve(t, fmt.Sprintf("tls_cert: %s\ntls_key: %s\nrepos:\n%s", certFile, keyFile, entry(repo.URL(), "/hook", filepath.Join(dir, "site"))))
	r.await("msg=cloned", 1)
	base := "https://" + r.address
	repo.Commit()
	if code := r.hook(first, base, "/hook", payload(repo.URL(), "refs/heads/master", repo.Head())); code != http.StatusAccepted {
		t.Errorf("answered %d", code)
	}
	second := client(2)
	if err := r.cmd.Process.Signal(syscall.SIGHUP); err != nil { // no wait for the next look
		t.Fatal(err)
	}
	r.await("configuration reloaded", 1)
	if code, text := get(t, second, base+"/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("%d %s", code, text)
	}
	if _, err := first.Get(base + "/healthz"); err == nil {
		t.Error("the old certificate is served")
	}
	r.end()
}

// TestWatching: /healthz, /readyz, /metrics, polls, and notices of what fails and
// of what is good again.
func TestWatching(t *testing.T) {
	notices := make(chan string, 100)
	told := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		notices <- string(body)
	}))
	defer told.Close()
	repo := gittest.New(t)
	if err := os.Rename(repo.Bare, repo.Bare+".away"); err != nil {
		t.Fatal(err)
	}
	figures := gittest.FreeAddress(t)
	site := filepath.Join(t.TempDir(), "site")
	r := serve(t, fmt.Sprintf("retry_count: 1\npoll: 300ms\nnotify: json+%s/x\nmetrics_listen: %s\nrepos:\n%s", told.URL, figures, entry(repo.URL(), "/hook", site, "name: site")))
	r.await("reason=no-repo", 2) // by the polls
	base := "http://" + r.address
	if code, text := get(t, http.DefaultClient, base+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "1 of 1") {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := get(t, http.DefaultClient, base+"/healthz"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if code, _ := get(t, http.DefaultClient, base+"/metrics"); code != http.StatusNotFound {
		t.Errorf("the figures are shown to everybody: %d", code)
	}
	if err := os.Rename(repo.Bare+".away", repo.Bare); err != nil {
		t.Fatal(err)
	}
	r.await("msg=cloned", 1)
	if first := <-notices; !strings.Contains(first, `"event":"failure"`) || !strings.Contains(first, `"reason":"no-repo"`) {
		t.Error(first)
	}
	if second := <-notices; !strings.Contains(second, `"event":"success"`) || !strings.Contains(second, repo.Head()) {
		t.Errorf("a failure is told more than once, or the end of it is not: %s", second)
	}
	if code, text := get(t, http.DefaultClient, base+"/readyz"); code != http.StatusOK {
		t.Errorf("%d %s", code, text)
	}
	repo.Commit() // and nobody sends a webhook
	r.await("msg=updated .*because=poll.*commit="+repo.Head(), 1)
	code, text := get(t, http.DefaultClient, "http://"+figures+"/metrics")
	for _, want := range []string{`gitgate_syncs_total{repo="site",result="no-repo"}`, `gitgate_syncs_total{repo="site",result="changed"} 2`, `gitgate_up{repo="site"} 1`, `gitgate_webhooks_total{code="404",repo=""} 1`} {
		if code != http.StatusOK || !strings.Contains(text, want) {
			t.Errorf("%d, lacks %s", code, want)
		}
	}
	r.end()
}

// TestLost: a failed update forgets its delivery, so that the forge's button to
// send it again does what it says.
func TestLost(t *testing.T) {
	repo := gittest.New(t)
	site := filepath.Join(t.TempDir(), "site")
	r := serve(t, "retry_count: 1\ninitialise: false\nrepos:\n"+entry(repo.URL(), "/hook", site))
	if err := os.Rename(repo.Bare, repo.Bare+".away"); err != nil {
		t.Fatal(err)
	}
	r.push(repo, "/hook", repo.URL())
	r.await("reason=no-repo", 1)
	if err := os.Rename(repo.Bare+".away", repo.Bare); err != nil {
		t.Fatal(err)
	}
	r.push(repo, "/hook", repo.URL()) // the same bytes
	r.await("msg=cloned", 1)
	r.end()
}
