package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/dispatch/internal/engine"
	"example.com/converge/dispatch/internal/meter"
	"example.com/converge/dispatch/internal/nomad"
	"example.com/converge/dispatch/internal/repos"
	"example.com/converge/pkg/nomadtest"
)

// engineOf runs the engine alone, without HTTP in front.
func (h *house) engineOf() *engine.Engine {
	h.t.Helper()
	client, err := nomad.New(h.s.Nomad)
	if err != nil {
		h.t.Fatal(err)
	}
	consul, err := repos.NewConsul(h.s.Consul)
	if err != nil {
		h.t.Fatal(err)
	}
	e, err := engine.New(engine.Options{
		Settings: h.s, Nomad: client, Repos: consul, Meter: meter.New(), Log: slog.New(slog.NewTextHandler(h.log, nil)), ArchiveWait: h.archiveWait, Back: h.back,
	})
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { e.Run(ctx) })
	h.stop = func() { cancel(); running.Wait(); client.Close(); consul.Close() }
	h.t.Cleanup(func() {
		h.stop()
		if h.t.Failed() {
			h.t.Log(h.log)
		}
	})
	return e
}

// launch starts a build of a trusted push.
func (h *house) launch(e *engine.Engine) build.Build {
	h.t.Helper()
	b, err := e.Launch(h.t.Context(), h.want())
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

func (h *house) want() engine.Want {
	h.t.Helper()
	consul, err := repos.NewConsul(h.s.Consul)
	if err != nil {
		h.t.Fatal(err)
	}
	defer consul.Close()
	repo, err := consul.Get(h.t.Context(), h.repo)
	if err != nil {
		h.t.Fatal(err)
	}
	return engine.Want{Repo: repo, Origin: h.repo, Commit: commit, Branch: "main", Flavor: "default", Sender: "ann", Kind: build.Push}
}

// TestLogsFollowed: a reader that came before the build started gets all of both
// logs as they grow, and the end, although Nomad's stream never ends.
func TestLogsFollowed(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	r, err := e.Open(t.Context(), b.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := make([]byte, 6)
	h.nomad.Place(b.ID)
	h.nomad.Start(b.ID)
	for _, line := range []string{"first\n", "2\tnd\n\n", "third\n"} {
		h.nomad.Write(b.ID, "stdout", line)
		if _, err := io.ReadFull(r, got); err != nil || string(got) != line {
			t.Fatalf("%q, %v", got, err)
		}
	}
	// Two more share the copy, one from the end.
	all, err := e.Open(t.Context(), b.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	tail, err := e.Open(t.Context(), b.ID, build.Stdout, -6, true)
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	h.nomad.Write(b.ID, "stdout", "last\n")
	h.nomad.Finish(b.ID, 0)
	for _, test := range []struct {
		r      build.Log
		want   string
		offset int64
	}{{r, "last\n", 0}, {all, "first\n2\tnd\n\nthird\nlast\n", 0}, {tail, "third\nlast\n", 12}} {
		text, err := io.ReadAll(test.r)
		if err != nil || string(text) != test.want || test.r.Offset() != test.offset {
			t.Errorf("%q at %d, %v", text, test.r.Offset(), err)
		}
	}
	if n := h.nomad.Requests("GET /v1/client/fs/logs/"); n > 6 {
		t.Errorf("Nomad was asked for logs %d times", n)
	}
	h.archived(b.ID, build.Stdout)
	h.nomad.Collect(b.ID)
	r, err = e.Open(t.Context(), b.ID, build.Stdout, 6, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if text, err := io.ReadAll(r); string(text) != "2\tnd\n\nthird\nlast\n" || r.Offset() != 6 {
		t.Errorf("%q, %v", text, err)
	}
}

// TestLogsCut: streams that are cut go on where they were, byte for byte.
func TestLogsCut(t *testing.T) {
	h := newHouse(t)
	var cuts atomic.Int32
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if !strings.HasPrefix(r.URL.Path, "/v1/client/fs/logs/") {
			return nil
		}
		switch n := cuts.Add(1); {
		case n <= 2:
			return &nomadtest.Fault{Cut: 5}
		case n == 3:
			return &nomadtest.Fault{Status: 500, Body: "broken by the test"}
		}
		return nil
	})
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	const text = "one two three four five six seven\n"
	h.nomad.Write(b.ID, "stdout", text)
	h.nomad.Finish(b.ID, 0)
	r, err := e.Open(t.Context(), b.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
}

// TestLogsGone: a log that Nomad has deleted first is said to be gone, and one of a
// build that never started is empty.
func TestLogsGone(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.nomad.CollectLogs(b.ID)
	h.nomad.Finish(b.ID, 0)
	h.archived(b.ID, build.Stdout)
	if _, err := e.Open(t.Context(), b.ID, build.Stdout, 0, false); !errors.Is(err, build.ErrGone) {
		t.Error(err)
	}
	other := h.launch(e)
	r, err := e.Open(t.Context(), other.ID, build.Stdout, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || len(text) > 0 {
		t.Errorf("%q, %v", text, err)
	}
	_ = r.Close()
	// Who waits for one that does not start ends with his context.
	ctx, cancel := context.WithCancel(t.Context())
	r, err = e.Open(ctx, other.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(r); err == nil {
		t.Error("the end of the context was the end of the log")
	}
	_ = r.Close()
	h.nomad.FailSetup(other.ID, "Driver Failure", "x")
	if text := h.archived(other.ID, build.Stderr); text != "" {
		t.Errorf("%q", text)
	}
}

// TestSubscribe: a slow reader gets the newest state of each build.
func TestSubscribe(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	ctx, cancel := context.WithCancel(t.Context())
	all := e.Subscribe(ctx, "")
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.nomad.Finish(b.ID, 7)
	h.archived(b.ID, build.Stdout)
	deadline := time.After(time.Minute)
	for {
		select {
		case got := <-all:
			if got.Archived {
				if got.State != build.Failure || got.Exit != 7 || got.ID != b.ID {
					t.Errorf("%+v", got)
				}
				cancel()
				for range all { // until it is closed
				}
				return
			}
		case <-deadline:
			t.Fatal("the end was not told")
		}
	}
}

// TestLogsOutOfReach: the machine that has the logs is down, and stays so.
func TestLogsOutOfReach(t *testing.T) {
	h := newHouse(t)
	h.archiveWait = time.Millisecond
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	r, err := e.Open(t.Context(), b.ID, build.Stdout, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	h.nomad.Lose(b.ID, "lost")
	h.nomad.Stop(b.ID)
	if text := h.archived(b.ID, build.Stdout); text != "" {
		t.Errorf("%q", text)
	}
	if text, err := io.ReadAll(r); len(text) > 0 || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := e.Open(t.Context(), b.ID, build.Stdout, 0, false); !errors.Is(err, build.ErrGone) {
		t.Error(err)
	}
}

// TestTooMuchKept: what is kept is bounded also between two sweeps, and of a build
// that Nomad still has the record stays.
func TestTooMuchKept(t *testing.T) {
	h := newHouse(t)
	h.s.KeepBytes = 20_000
	e := h.engineOf()
	var ids []string
	for i := range 6 {
		w := h.want()
		w.Commit = object(i)
		b, err := e.Launch(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		h.nomad.Start(b.ID)
		h.nomad.Write(b.ID, "stdout", strings.Repeat("x", 6000))
		h.nomad.Finish(b.ID, 0)
		h.log.Expect(t, `msg="build ended" build=`+b.ID+" ")
		ids = append(ids, b.ID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // the sweeper's
		r, err := e.Open(ctx, ids[0], build.Stdout, 0, false)
		if errors.Is(err, build.ErrGone) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
	}
	if b, err := e.Get(ctx, ids[0]); err != nil || b.State != build.Success {
		t.Errorf("%+v, %v", b, err)
	}
	r, err := e.Open(ctx, ids[5], build.Stdout, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
}

// TestStrangeIDs: whoever names builds that nobody knows takes few of the
// connections that Nomad gives to one address.
func TestStrangeIDs(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	const most = 8
	reached, never := make(chan struct{}, most), make(chan struct{})
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if strings.Contains(r.URL.Path, "strange") {
			reached <- struct{}{}
			return &nomadtest.Fault{Hang: never}
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel()
	for i := range most {
		asking.Go(func() { _, _ = e.Get(ctx, fmt.Sprintf("builder/dispatch-%d-strange", i)) })
		<-reached
	}
	soon, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, err := e.Get(soon, "builder/dispatch-9-last"); !errors.Is(err, build.ErrAway) {
		t.Error(err)
	}
	if n := h.nomad.Requests("GET /v1/job/builder/dispatch-9-last"); n != 0 {
		t.Errorf("Nomad was asked %d times", n)
	}
	close(never)
	if _, err := e.Get(t.Context(), "builder/dispatch-9-last"); !errors.Is(err, build.ErrUnknown) {
		t.Errorf("afterwards: %v", err)
	}
}
