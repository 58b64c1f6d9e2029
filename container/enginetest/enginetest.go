//go:build unix

// Package enginetest is an engine for tests: as much of Docker's API as the
// library uses, on a unix socket, with faults to order. Its containers are
// processes of this machine. Real prepares a real one, which the caller has
// started, for the same tests. It knows nothing of the library, and is for tests
// alone.
package enginetest

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/moby/moby/api/types/container"
)

// Image is what the engine has, or could pull.
type Image struct {
	Entrypoint, Cmd []string
	// Files are there in each of its containers, beside /bin/sh.
	Files []string
	// NoShell says that not even that is there.
	NoShell bool
	// Architecture is amd64 if it is "".
	Architecture string
}

// Engine is one engine. Its exported fields are set before Start; what is said to
// be under Lock is read and changed then.
type Engine struct {
	// Version is that of the API.
	Version string
	// Images are there; Registry could be pulled.
	Images, Registry map[string]Image
	// Paths are files of this machine by their names in every container.
	Paths map[string]string
	// Split sends every byte of framed output by itself, in frames of their own
	// of three bytes.
	Split bool
	// Garbage sends output without frames.
	Garbage bool
	// Fault is asked before each request is served. It may answer it, and
	// reports whether it has. To drop the connection it panics with
	// http.ErrAbortHandler.
	Fault func(w http.ResponseWriter, r *http.Request) bool

	t      testing.TB
	socket string
	folder string
	server *http.Server
	done   chan struct{}

	mu         sync.Mutex
	next       int
	containers map[string]*box
	execs      map[string]*program
	conns      map[net.Conn]struct{}
	requests   []string
	created    []container.CreateRequest
	pulls      []string
	wg         sync.WaitGroup
}

// New returns an engine that is not started. It ends with the test, which fails
// if a container is left then.
func New(t testing.TB) *Engine {
	folder, err := os.MkdirTemp("", "engine")
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{
		Version: "1.41", Images: map[string]Image{"busybox": {Cmd: []string{"/bin/sh"}}},
		t: t, folder: folder, socket: filepath.Join(folder, "engine.sock"),
		containers: map[string]*box{}, execs: map[string]*program{}, conns: map[net.Conn]struct{}{},
	}
	t.Cleanup(func() {
		e.Stop()
		for _, b := range e.list() {
			t.Errorf("container %s is left", b.name)
			b.kill()
		}
		e.wg.Wait()
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Host is the engine's address.
func (e *Engine) Host() string { return "unix://" + e.socket }

// Start serves, also again after Stop.
func (e *Engine) Start() *Engine {
	l, err := net.Listen("unix", e.socket)
	if err != nil {
		e.t.Fatal(err)
	}
	e.done = make(chan struct{})
	e.server = &http.Server{Handler: e, ConnState: e.track}
	server, done := e.server, e.done
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	return e
}

// Stop cuts all connections and serves no more; the containers go on.
func (e *Engine) Stop() {
	if e.server == nil {
		return
	}
	_ = e.server.Close()
	e.mu.Lock()
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	<-e.done
	e.server = nil
}

// track knows connections that were taken over, which a server does not close.
func (e *Engine) track(c net.Conn, s http.ConnState) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch s {
	case http.StateNew, http.StateHijacked:
		e.conns[c] = struct{}{}
	case http.StateClosed:
		delete(e.conns, c)
	}
}

// Containers returns the names of the containers that there are.
func (e *Engine) Containers() []string {
	var names []string
	for _, b := range e.list() {
		names = append(names, b.name)
	}
	return names
}

// Requests returns how many requests contained the words, such as "POST /exec/".
func (e *Engine) Requests(words string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, r := range e.requests {
		if strings.Contains(r, words) {
			n++
		}
	}
	return n
}

// Created returns what containers were asked for.
func (e *Engine) Created() []container.CreateRequest {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]container.CreateRequest(nil), e.created...)
}

// Pulled returns what was pulled.
func (e *Engine) Pulled() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.pulls...)
}

// Kill removes a container as somebody else would.
func (e *Engine) Kill(name string) {
	for _, b := range e.list() {
		if b.name == name || b.id == name {
			b.kill()
			e.mu.Lock()
			delete(e.containers, b.id)
			e.mu.Unlock()
		}
	}
}

func (e *Engine) list() []*box {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*box
	for _, b := range e.containers {
		list = append(list, b)
	}
	return list
}

// find returns a container by id or name.
func (e *Engine) find(name string) *box {
	for _, b := range e.list() {
		if b.id == name || b.name == name {
			return b
		}
	}
	return nil
}

func (e *Engine) id(kind string) string {
	e.next++
	return fmt.Sprintf("%s%04d", kind, e.next)
}

// Say answers with a status and the engine's words.
func Say(w http.ResponseWriter, status int, format string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(format, args...)})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
