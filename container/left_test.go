//go:build unix

package container_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/converge/container"
	"example.com/converge/container/enginetest"
	"example.com/converge/pkg/watchtest"
)

// agent puts a script in the place of the image's guest agent; $GUEST is the agent.
func agent(t *testing.T, e *enginetest.Engine, script string) (image string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nGUEST="+guestFile+"\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	image = "agent-" + strings.ToLower(t.Name())
	e.Paths = map[string]string{container.DefaultAgentPath: path}
	e.Images[image] = enginetest.Image{}
	return image
}

// A create whose answer was lost leaves nothing, although the tries after it fail
// for good.
func TestLostAnswerAndThenRefused(t *testing.T) {
	for _, status := range []int{400, 403, 409, 500} {
		e, w := fake(t)
		n, serving := 0, false
		e.Fault = func(w http.ResponseWriter, r *http.Request) bool {
			if n > 0 && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/containers/") {
				enginetest.Say(w, 400, "no inspection")
				return true
			}
			if serving || !strings.HasSuffix(r.URL.Path, "containers/create") {
				return false
			}
			if n++; n > 1 {
				enginetest.Say(w, status, "refused")
				return true
			}
			serving = true
			e.ServeHTTP(httptest.NewRecorder(), r)
			serving = false
			panic(http.ErrAbortHandler)
		}
		e.Start()
		fails(t, w.config("shell"), "refused")
		w.none(t)
	}
}

// What answers, and is no engine, is not asked for a minute.
func TestNoEngine(t *testing.T) {
	e, w := fake(t)
	e.Fault = func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, "<html>welcome")
		return true
	}
	e.Start()
	fails(t, w.config("shell"), "the engine's answer cannot be read")
	if n := e.Requests("/images/"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A program that begins only when its client has left is ended all the same, in a
// container that stays.
func TestGoneBeforeBegin(t *testing.T) {
	e, w := fake(t)
	folder := t.TempDir()
	at, begin := filepath.Join(folder, "at"), filepath.Join(folder, "begin")
	for _, path := range []string{at, begin} {
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := agent(t, e, fmt.Sprintf("[ $1 != console ] || { echo $$ > %s; read go < %s; }\nexec $GUEST \"$@\"\n", at, begin))
	e.Start()
	cfg := w.config(image)
	cfg.Execution.GuestFile = ""
	_, keeper := connect(t, cfg)
	cfg = w.config("")
	cfg.Execution.GuestFile, cfg.Execution.Existing = "", keeper.ContainerID()
	_, c := connect(t, cfg)
	r := session(t, c)
	started := make(chan error, 1)
	go func() {
		started <- r.OnExecRequest(1, "exec sleep 1000", strings.NewReader(""), r.out, r.errs, r.exit)
	}()
	text, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.OnClose()
	}()
	watchtest.Eventually(t, "the session does not end", func() bool {
		return errors.Is(r.OnExecRequest(2, "true", strings.NewReader(""), io.Discard, io.Discard, nil), container.ErrClosed)
	})
	if err := os.WriteFile(begin, []byte("\n"), 0); err != nil {
		t.Fatal(err)
	}
	<-ended
	<-started
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program is there: %v", err)
	}
}

// Forward servers that do not end keep no container.
func TestStuckForwardServer(t *testing.T) {
	defer container.SetTunnelGrace(time.Hour)()
	e, w := fake(t)
	image := agent(t, e, "[ $1 = forward-server ] || exec $GUEST \"$@\"\n$GUEST \"$@\"\nexec sleep 1000\n")
	e.Start()
	cfg := w.config(image)
	cfg.Execution.GuestFile = ""
	h, c := connect(t, cfg)
	for range 3 {
		if _, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.OnDisconnect()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the container is not removed")
	}
	w.none(t)
}

// The engine's reason for an output that ends is told.
func TestReasonOfTheStream(t *testing.T) {
	e, w := fake(t)
	e.Fault = on("POST /v1.41/exec/", func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x03\x00\x00\x00\x00\x00\x00\x09disk full")
		_ = conn.Close()
		return true
	})
	e.Start()
	_, c := connect(t, w.config("shell"))
	r := session(t, c)
	err := r.OnExecRequest(1, "true", strings.NewReader(""), r.out, r.errs, r.exit)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
}

// An image that was committed from a container has its labels, and containers of that
// are not ours.
func TestSweepLeavesCommitted(t *testing.T) {
	e, w := fake(t)
	e.Start()
	connect(t, w.config("shell"))
	labels := e.Created()[0].Labels
	parts := strings.Split(labels[container.LabelOwner], "/")
	parts[3] = "4194399" // more than there can be
	owner := strings.Join(parts, "/")
	for _, name := range []string{"somebodys", "converge-0123456789abcdef0123"} {
		body := fmt.Sprintf(`{"Image": "shell", "Labels": {%q: %q}}`, container.LabelOwner, owner)
		asked := httptest.NewRequest(http.MethodPost, "/v1.41/containers/create?name="+name, strings.NewReader(body))
		e.ServeHTTP(httptest.NewRecorder(), asked)
	}
	if n, err := container.Sweep(t.Context(), w.config(""), logger(t)); n != 1 || err != nil {
		t.Errorf("removed %d, %v", n, err)
	}
	if left := e.Containers(); len(left) != 2 || !slices.Contains(left, "somebodys") {
		t.Errorf("left: %q", left)
	}
	e.Kill("somebodys")
}
