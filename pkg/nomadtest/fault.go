// Package nomadtest has the parts of Nomad, Consul and Gitea that a CI system
// talks to, as servers on loopback addresses for tests: jobs that are dispatched,
// followed and stopped, keys and values, commit statuses; with faults where a test
// wants them. Builds are steered by the test, or a script really runs as Nomad's
// raw_exec driver would run it. It shares no code with what is tested, and must
// not be part of a program.
package nomadtest

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// Fault is what goes wrong with one request.
type Fault struct {
	// Status, if not 0, is answered with Body, and nothing is done.
	Status int
	Body   string
	// Cut, if not 0, ends the connection after so many bytes of the answer.
	Cut int
	// Hang, if not nil, keeps the request waiting until it is closed or the
	// client leaves.
	Hang <-chan struct{}
}

// faults is what the servers have in common.
type faults struct {
	// URL is where the server listens.
	URL string

	server *httptest.Server
	mu     sync.Mutex
	fault  func(*http.Request) *Fault
	count  map[string]int
}

// serve starts it, until the test ends.
func (f *faults) serve(t testing.TB, handler http.Handler) {
	f.count = map[string]int{}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.count[r.Method+" "+r.URL.Path]++
		decide := f.fault
		f.mu.Unlock()
		var fault *Fault
		if decide != nil {
			fault = decide(r)
		}
		switch {
		case fault == nil:
			handler.ServeHTTP(w, r)
		case fault.Hang != nil:
			select {
			case <-fault.Hang:
				handler.ServeHTTP(w, r)
			case <-r.Context().Done():
			}
		case fault.Status != 0:
			http.Error(w, fault.Body, fault.Status)
		default:
			handler.ServeHTTP(&cutter{ResponseWriter: w, left: fault.Cut}, r)
		}
	}))
	f.URL = f.server.URL
	t.Cleanup(f.close)
}

func (f *faults) close() {
	f.server.CloseClientConnections()
	f.server.Close()
}

// SetFault decides about each request from now on; nil, or a nil Fault, lets all
// go well.
func (f *faults) SetFault(decide func(*http.Request) *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = decide
}

// Break answers everything with a status, 0 for not any more.
func (f *faults) Break(status int) {
	if status == 0 {
		f.SetFault(nil)
		return
	}
	f.SetFault(func(*http.Request) *Fault { return &Fault{Status: status, Body: "broken by the test"} })
}

// Requests counts those that began with METHOD PATH.
func (f *faults) Requests(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := 0
	for what, n := range f.count {
		if strings.HasPrefix(what, prefix) {
			sum += n
		}
	}
	return sum
}

// cutter ends the connection after some bytes.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	if c.left -= n; c.left <= 0 || err != nil {
		c.Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func (c *cutter) Flush() { _ = http.NewResponseController(c.ResponseWriter).Flush() }

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}
