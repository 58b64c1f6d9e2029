//go:build linux

package sshd

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/converge/container/enginetest"
	"example.com/converge/pkg/watchtest"
)

// An engine that hangs does not hold up the end of the agent: what it has left
// is for the next one to sweep.
func TestEngineHangs(t *testing.T) {
	e := enginetest.New(t)
	e.Images = map[string]enginetest.Image{"shell": {}}
	asked := make(chan struct{})
	var once sync.Once
	e.Fault = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodDelete {
			once.Do(func() { close(asked) })
			<-r.Context().Done()
			return true
		}
		return false
	}
	e.Start()
	w := &world{engine: e.Host(), shell: "shell"}
	b := w.bench(t, nil)
	client := b.dial()
	if err := b.session(client).Run("true"); err != nil {
		t.Fatal(err)
	}
	client.Close()
	<-asked
	b.events.wait(t, "logout 1", 1) // who waits for users does not wait for the engine
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.shutdown(t, ctx)
	left := e.Containers()
	if len(left) != 1 {
		t.Errorf("left: %q", left)
	}
	for _, name := range left {
		e.Kill(name)
	}
}

// A daemon that is lost in the middle, and is back, costs a command its streams
// alone; a container that is taken away ends what is in it.
func TestEngineLost(t *testing.T) {
	e := enginetest.New(t)
	e.Images = map[string]enginetest.Image{"shell": {}}
	e.Start()
	w := &world{engine: e.Host(), shell: "shell"}
	b := w.bench(t, nil)
	client := b.dial()
	session := b.session(client)
	var out, errs watchtest.Output
	session.Stdout, session.Stderr = &out, &errs
	if _, err := session.StdinPipe(); err != nil { // open
		t.Fatal(err)
	}
	if err := session.Start("echo ready; cat; exit 7"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	e.Stop()
	e.Start()
	// With its connection cut the program has come to the end of its input.
	if err := session.Wait(); status(err) != 7 {
		t.Errorf("%v %q", err, &errs)
	}
	if err := b.session(client).Run("exit 3"); status(err) != 3 {
		t.Errorf("afterwards: %v", err)
	}
	// Somebody else takes the container away.
	session = b.session(client)
	session.Stdout, session.Stderr = &out, &errs
	if err := session.Start("echo again; exec sleep 3600"); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "again")
	for _, name := range slices.Clone(e.Containers()) {
		e.Kill(name)
	}
	if err := session.Wait(); err == nil {
		t.Errorf("it ended well: %q", &errs)
	}
	_, stderr, code := run(t, b.ssh("true")) // another connection has another
	if code != 0 {
		t.Errorf("%d %q", code, stderr)
	}
	var late watchtest.Output
	session = b.session(client)
	session.Stderr = &late
	if err := session.Run("true"); status(err) != cannotStart || !strings.Contains(late.String(), "No such container") {
		t.Errorf("without its container: %v %q", err, &late)
	}
}
