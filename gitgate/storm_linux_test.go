package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/gitgate/internal/gittest"
)

// resident is the memory of a process, in KiB.
func resident(t *testing.T, pid int) (kib int) {
	t.Helper()
	for line := range strings.Lines(gittest.Read(fmt.Sprintf("/proc/%d/status", pid))) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// children are the lines of /proc/*/stat of a process's children.
func children(t *testing.T, pid int) (all []string) {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		line := gittest.Read(name)
		if at := strings.LastIndex(line, ") "); at > 0 {
			if fields := strings.Fields(line[at+2:]); len(fields) > 1 && fields[1] == fmt.Sprint(pid) {
				all = append(all, line)
			}
		}
	}
	return all
}

// TestMemory sends thousands of webhooks of all kinds, and wants the memory to stay
// where it was after the first thousands.
func TestMemory(t *testing.T) {
	repo := gittest.New(t)
	head := repo.Head()
	r := serve(t, "initialise: false\nreplay_window: 0\nrepos:\n"+entry(repo.URL(), "/hook", filepath.Join(t.TempDir(), "site")))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 20}}
	defer client.CloseIdleConnections()
	storm := func() time.Duration {
		start := time.Now()
		var wait sync.WaitGroup
		for worker := range 20 {
			wait.Go(func() {
				padding := strings.Repeat(" ", 20_000)
				for i := range 100 {
					ref, path, want := "refs/heads/master", "/hook", http.StatusAccepted
					switch i % 4 {
					case 1:
						ref, want = "refs/heads/other", http.StatusOK
					case 2:
						path, want = fmt.Sprintf("/none%d-%d", worker, i), http.StatusNotFound
					}
					if code := r.hook(client, "http://"+r.address, path, payload(repo.URL(), ref, head)+strings.Repeat(" ", worker*100+i)+padding); code != want && code != http.StatusTooManyRequests {
						t.Errorf("answered %d, want %d", code, want)
					}
				}
			})
		}
		wait.Wait()
		return time.Since(start)
	}
	storm()
	storm()
	before := resident(t, r.cmd.Process.Pid)
	var took time.Duration
	for range 4 {
		took += storm()
	}
	r.await(`msg="up to date"`, 1)
	// Soon nothing runs any more, and nothing is left of what ran.
	for deadline := time.Now().Add(patience); len(children(t, r.cmd.Process.Pid)) > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("children are left: %q", children(t, r.cmd.Process.Pid))
		}
	}
	after := resident(t, r.cmd.Process.Pid)
	t.Logf("%d KiB after 4000 webhooks, %d KiB after 12000; the last 8000 in %s", before, after, took)
	if after > before+before/2+16<<10 {
		t.Errorf("memory grows from %d to %d KiB", before, after)
	}
	r.end()
}
