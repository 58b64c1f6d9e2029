package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
)

func (h *house) get(path string) (int, string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, h.url+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.do(req)
}

// TestHealth: it is alive at once, and ready where Nomad and Consul answer.
func TestHealth(t *testing.T) {
	h := newHouse(t)
	h.nomad.Break(500)
	h.start()
	if code, text := h.get("/healthz"); code != http.StatusOK || text != "ok\n" {
		t.Errorf("%d %s", code, text)
	}
	if code, _ := h.get("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("%d without Nomad", code)
	}
	h.nomad.Break(0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for code, text := h.get("/readyz"); code != http.StatusOK; code, text = h.get("/readyz") {
		if ctx.Err() != nil {
			t.Fatalf("%d %s", code, text)
		}
	}
	h.consul.Break(500)
	if code, text := h.get("/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(text, "configuration cannot be read") {
		t.Errorf("%d %s without Consul", code, text)
	}
}

// TestBack: what waits for Nomad is told when all of it can be watched again.
func TestBack(t *testing.T) {
	h := newHouse(t)
	back := make(chan error, 10)
	started := make(chan *engine.Engine, 1)
	h.back = func() { e := <-started; back <- e.Ready(); started <- e }
	h.nomad.Break(500)
	started <- h.engineOf()
	h.log.Expect(t, "cannot be watched")
	if len(back) > 0 {
		t.Error("it was told while Nomad was away")
	}
	h.nomad.Break(0)
	select {
	case err := <-back:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it was not told")
	}
}

// TestFiguresHaveNoSecrets: metrics are of flavours, and name no repository.
func TestFiguresHaveNoSecrets(t *testing.T) {
	h := newHouse(t).start()
	id := h.hook(h.push("main", commit, "ann"))
	h.nomad.Start(id)
	h.nomad.Finish(id, 0)
	h.archived(id, build.Stdout)
	if code, _ := h.get("/metrics"); code == http.StatusOK {
		t.Error("figures are shown on the public listener")
	}
}

// TestSecondCommand: what another program dispatches is followed, too: it is in
// Nomad, and nowhere else.
func TestSecondCommand(t *testing.T) {
	h := newHouse(t).start()
	other := newHouse(t)
	other.s = h.s
	copied := *h.s
	copied.StateDir = t.TempDir() // as on another machine
	other.s, other.repo, other.consul, other.gitea, other.nomad = &copied, h.repo, h.consul, h.gitea, h.nomad
	e := other.engineOf()
	b := other.launch(e)
	h.nomad.Start(b.ID)
	h.nomad.Write(b.ID, "stdout", "x\n")
	h.nomad.Finish(b.ID, 0)
	h.status(commit, "success", "success")
	if log := h.archived(b.ID, build.Stdout); log != "x\n" {
		t.Errorf("%q", log)
	}
}

// TestSlowReader: who does not read the log that he asked for does not keep the
// program from ending.
func TestSlowReader(t *testing.T) {
	h := newHouse(t)
	h.shutdownWait = time.Millisecond
	h.start()
	id := h.hook(h.push("main", commit, "ann"))
	h.nomad.Start(id)
	for range 32 {
		h.nomad.Write(id, "stdout", strings.Repeat("x", 1<<20))
	}
	c, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := fmt.Fprintf(c, "GET /build?job=%s&log=stdout HTTP/1.1\r\nHost: x\r\n\r\n", url.QueryEscape(id)); err != nil {
		t.Fatal(err)
	}
	// It waits in its write when nothing can be sent any more.
	deadline := time.Now().Add(time.Minute)
	for stuck := false; !stuck; {
		all := make([]byte, 4<<20)
		for one := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
			stuck = stuck || strings.Contains(one, "[IO wait") && strings.Contains(one, "web.(*Web).text") && strings.Contains(one, "Write(")
		}
		if time.Now().After(deadline) {
			t.Fatal("all of it was sent")
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.stop()
	}()
	select {
	case <-ended:
	case <-time.After(2 * time.Minute): // a write of a log has five
		_ = c.Close()
		<-ended
		t.Error("it waited for him")
	}
}
