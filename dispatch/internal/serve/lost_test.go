package serve

import (
	"bufio"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/converge/dispatch/internal/build"
	"example.com/converge/pkg/nomadtest"
)

// TestMachineAwayForAMoment: a machine that Nomad has no way to while a build ends
// still has the log when it is back.
func TestMachineAwayForAMoment(t *testing.T) {
	h := newHouse(t)
	asked := make(chan struct{}, 1)
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if !strings.HasPrefix(r.URL.Path, logsPath) {
			return nil
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return &nomadtest.Fault{Status: http.StatusNotFound, Body: "No path to node"}
	})
	b := h.launch(h.engineOf())
	h.nomad.Start(b.ID)
	h.nomad.Write(b.ID, "stdout", "words\n")
	h.nomad.Finish(b.ID, 0)
	<-asked
	h.nomad.SetFault(nil)
	if text := h.archived(b.ID, build.Stdout); text != "words\n" {
		t.Errorf("%q", text)
	}
}

const logsPath = "/v1/client/fs/logs/"

// TestNomadAwayAfterTheEnd: the time that logs are asked for does not run while Nomad
// itself is away.
func TestNomadAwayAfterTheEnd(t *testing.T) {
	h := newHouse(t)
	broken := &nomadtest.Fault{Status: http.StatusInternalServerError, Body: "broken by the test"}
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if strings.HasPrefix(r.URL.Path, logsPath) {
			return broken
		}
		return nil
	})
	b := h.launch(h.engineOf())
	h.nomad.Start(b.ID)
	h.nomad.Write(b.ID, "stdout", "words\n")
	h.nomad.Finish(b.ID, 0)
	h.status(commit, "success", "success")
	h.stop()
	h.archiveWait = time.Millisecond
	var asked atomic.Int32
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if strings.HasPrefix(r.URL.Path, logsPath) && asked.Add(1) > 3 {
			return nil
		}
		return broken
	})
	h.engineOf()
	if text := h.archived(b.ID, build.Stdout); text != "words\n" {
		t.Errorf("%q", text)
	}
}

// TestOutOfReachHoldsNobodyUp: builds whose machines are away, as many as are archived
// at a time, do not keep another from being archived.
func TestOutOfReachHoldsNobodyUp(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	const places = 8
	var mu sync.Mutex
	away, tried := map[string]bool{}, make(chan struct{})
	h.nomad.SetFault(func(r *http.Request) *nomadtest.Fault {
		if !strings.HasPrefix(r.URL.Path, logsPath) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if !away[r.URL.Path] {
			if len(away) == places {
				return nil
			}
			if away[r.URL.Path] = true; len(away) == places {
				close(tried)
			}
		}
		return &nomadtest.Fault{Status: http.StatusNotFound, Body: "No path to node"}
	})
	finish := func(i int) string {
		w := h.want()
		w.Commit = object(i)
		b, err := e.Launch(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		h.nomad.Start(b.ID)
		h.nomad.Write(b.ID, "stdout", "words\n")
		h.nomad.Finish(b.ID, 0)
		return b.ID
	}
	for i := range places {
		finish(i)
	}
	<-tried
	if text := h.archived(finish(places), build.Stdout); text != "words\n" {
		t.Errorf("%q", text)
	}
}

// TestLogBeginsAnew: of a build that runs again on another machine the log is that of
// the second run, also where dispatch was started again meanwhile, and a page that
// follows drops what it has shown.
func TestLogBeginsAnew(t *testing.T) {
	h := newHouse(t).start()
	id := h.hook(h.push("main", commit, "ann"))
	h.nomad.Start(id)
	h.nomad.Write(id, "stdout", "one\n")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/builds/"+url.PathEscape(id)+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	events := bufio.NewScanner(resp.Body)
	expect := func(text string) {
		t.Helper()
		for events.Scan() {
			if strings.Contains(events.Text(), text) {
				return
			}
		}
		t.Fatalf("the events ended without %s: %v", text, events.Err())
	}
	expect(`"lines":"one\n"`)
	h.nomad.Lose(id, "lost")
	h.nomad.Replace(id)
	h.nomad.Start(id)
	h.nomad.Write(id, "stdout", "two, and more\n")
	expect(`"anew":true`)
	expect(`"lines":"two, and more\n"`)
	h.stop()
	h.nomad.Lose(id, "lost")
	h.nomad.Replace(id)
	h.nomad.Start(id)
	h.nomad.Write(id, "stdout", "three\n")
	h.nomad.Finish(id, 0)
	h.start()
	if text := h.archived(id, build.Stdout); text != "three\n" {
		t.Errorf("%q", text)
	}
}

// TestLostAndRunAgain: a build whose machine was lost is an error that nobody has
// cancelled, and Nomad's second run of it is followed to its end.
func TestLostAndRunAgain(t *testing.T) {
	h := newHouse(t)
	e := h.engineOf()
	b := h.launch(e)
	h.nomad.Start(b.ID)
	h.status(commit, "pending", "running")
	h.nomad.Lose(b.ID, "lost")
	h.status(commit, "error", "Nomad has lost the machine that ran it")
	h.nomad.Replace(b.ID)
	h.status(commit, "pending", "queued")
	h.nomad.Start(b.ID)
	h.nomad.Finish(b.ID, 0)
	h.status(commit, "success", "success")
	h.archived(b.ID, build.Stdout)
	// One that has no room again is still there to be cancelled.
	other := h.want()
	other.Commit = newer
	b, err := e.Launch(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	h.nomad.Start(b.ID)
	h.nomad.Lose(b.ID, "lost")
	h.status(newer, "error", "Nomad has lost the machine that ran it")
	if err := e.Cancel(t.Context(), h.ann(), b.ID); err != nil {
		t.Fatal(err)
	}
	h.status(newer, "failure", "cancelled")
}
