package nomadtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Namespace is the one that the fake has.
const Namespace = "ci"

// maxPayload is Nomad's limit.
const maxPayload = 16384

// Job is a parameterized job.
type Job struct {
	ID                         string
	MetaRequired, MetaOptional []string
	// Payload is optional where it is "".
	Payload string
	// Group and Tasks are runner and executor where they are empty.
	Group string
	Tasks []string
	// Restarts are those of the group's policy.
	Restarts int
	// Plain jobs are not parameterized.
	Plain bool
}

// Builder is a job that keeps the contract; optional is what else it takes.
func Builder(id string, optional ...string) Job {
	return Job{ID: id, MetaRequired: []string{"REPO_URL", "COMMIT", "BRANCH", "FLAVOR"}, MetaOptional: optional}
}

// Nomad is a running fake. Its methods may be called concurrently.
type Nomad struct {
	faults

	t       testing.TB
	token   string
	state   sync.Mutex
	jobs    map[string]*Job
	kids    map[string]*child
	order   []string
	tokens  map[string]string // idempotency tokens
	index   uint64
	changed chan struct{}
	run     func(context.Context, Task) int
	running sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
}

// child is a dispatched job with its allocation, and those on machines that were lost.
type child struct {
	id, parent string
	meta       map[string]string
	payload    []byte
	status     string
	stopped    bool
	submitted  int64
	modified   uint64
	alloc      *allocation
	lost       []*allocation
	cancel     context.CancelFunc
}

// NewNomad starts one, which the test's end stops.
func NewNomad(t testing.TB) *Nomad {
	t.Helper()
	n := &Nomad{t: t, jobs: map[string]*Job{}, kids: map[string]*child{}, tokens: map[string]string{}, index: 10, changed: make(chan struct{})}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status/leader", func(w http.ResponseWriter, _ *http.Request) { answer(w, "127.0.0.1:4647") })
	mux.HandleFunc("GET /v1/jobs", n.listJobs)
	mux.HandleFunc("GET /v1/allocations", n.listAllocations)
	mux.HandleFunc("GET /v1/client/fs/logs/{alloc}", n.serveLog)
	mux.HandleFunc("GET /v1/job/{id}", n.readJob)
	mux.HandleFunc("DELETE /v1/job/{id}", n.stopJob)
	mux.HandleFunc("GET /v1/job/{id}/allocations", n.jobAllocations)
	mux.HandleFunc("PUT /v1/job/{id}/dispatch", n.dispatch)
	mux.HandleFunc("POST /v1/job/{id}/dispatch", n.dispatch)
	n.serve(t, n.guard(mux))
	t.Cleanup(func() { n.cancel(); n.running.Wait() })
	return n
}

// guard checks namespace and token.
func (n *Nomad) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.state.Lock()
		token := n.token
		n.state.Unlock()
		if token != "" && r.Header.Get("X-Nomad-Token") != token {
			http.Error(w, "Permission denied", http.StatusForbidden)
			return
		}
		if ns := r.URL.Query().Get("namespace"); ns != Namespace && !strings.HasPrefix(r.URL.Path, "/v1/status/") {
			http.Error(w, fmt.Sprintf("Namespace %q not found", ns), http.StatusNotFound)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RequireToken lets in nobody without it.
func (n *Nomad) RequireToken(token string) {
	n.state.Lock()
	defer n.state.Unlock()
	n.token = token
}

// Register makes a job known.
func (n *Nomad) Register(job Job) {
	n.change(func() {
		if job.Group == "" {
			job.Group = "runner"
		}
		if job.Tasks == nil {
			job.Tasks = []string{"executor"}
		}
		n.jobs[job.ID] = &job
	})
}

// change does something under the lock, and wakes those who wait for changes.
func (n *Nomad) change(do func()) {
	n.state.Lock()
	defer n.state.Unlock()
	n.index++
	do()
	close(n.changed)
	n.changed = make(chan struct{})
}

// block waits as a blocking query does, and returns with the lock held.
func (n *Nomad) block(w http.ResponseWriter, r *http.Request) {
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 5 * time.Minute
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	n.state.Lock()
	for index >= n.index && r.Context().Err() == nil {
		changed := n.changed
		n.state.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		case <-timer.C:
			index = 0
		}
		n.state.Lock()
	}
	w.Header().Set("X-Nomad-Index", strconv.FormatUint(n.index, 10))
	w.Header().Set("X-Nomad-LastContact", "0")
	w.Header().Set("X-Nomad-KnownLeader", "true")
}

func (n *Nomad) listJobs(w http.ResponseWriter, r *http.Request) {
	n.block(w, r)
	defer n.state.Unlock()
	list := []map[string]any{}
	for _, id := range n.order {
		c := n.kids[id]
		if c == nil || !strings.HasPrefix(id, r.URL.Query().Get("prefix")) {
			continue
		}
		stub := map[string]any{"ID": id, "ParentID": c.parent, "Name": id, "Namespace": Namespace, "Type": "batch", "Status": c.status, "Stop": c.stopped, "SubmitTime": c.submitted}
		if r.URL.Query().Get("meta") == "true" {
			stub["Meta"] = c.meta
		}
		list = append(list, stub)
	}
	answer(w, list)
}

func (n *Nomad) readJob(w http.ResponseWriter, r *http.Request) {
	n.block(w, r)
	defer n.state.Unlock()
	id := r.PathValue("id")
	if c := n.kids[id]; c != nil {
		answer(w, map[string]any{"ID": id, "ParentID": c.parent, "Status": c.status, "Stop": c.stopped, "Meta": c.meta, "SubmitTime": c.submitted, "Dispatched": true})
		return
	}
	j := n.jobs[id]
	if j == nil {
		http.Error(w, "job not found", http.StatusNotFound)
		return
	}
	tasks := []map[string]any{}
	for _, name := range j.Tasks {
		tasks = append(tasks, map[string]any{"Name": name})
	}
	job := map[string]any{"ID": id, "Type": "batch", "Status": "running", "Stop": false, "TaskGroups": []map[string]any{{
		"Name": j.Group, "Tasks": tasks,
		"RestartPolicy":    map[string]any{"Attempts": j.Restarts, "Mode": "fail"},
		"ReschedulePolicy": map[string]any{"Attempts": 0, "Unlimited": false},
	}}}
	if !j.Plain {
		payload := j.Payload
		if payload == "" {
			payload = "optional"
		}
		job["ParameterizedJob"] = map[string]any{"Payload": payload, "MetaRequired": j.MetaRequired, "MetaOptional": j.MetaOptional}
	}
	answer(w, job)
}

func (n *Nomad) stopJob(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !n.Stop(id) {
		http.Error(w, "job not found", http.StatusNotFound)
		return
	}
	answer(w, map[string]any{"EvalID": rand.Text()})
}

// dispatch is POST /v1/job/ID/dispatch.
func (n *Nomad) dispatch(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Meta    map[string]string
		Payload []byte
	}
	if err := decode(r.Body, &asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	token := r.URL.Query().Get("idempotency_token")
	id, code, text := n.add(r.PathValue("id"), asked.Meta, asked.Payload, token)
	if code != 0 {
		http.Error(w, text, code)
		return
	}
	answer(w, map[string]any{"DispatchedJobID": id, "EvalID": rand.Text(), "EvalCreateIndex": 1, "JobCreateIndex": 1})
}

func (n *Nomad) add(parent string, meta map[string]string, payload []byte, token string) (id string, code int, text string) {
	n.change(func() {
		j := n.jobs[parent]
		if j == nil {
			code, text = http.StatusInternalServerError, "parameterized job not found"
			return
		}
		if j.Plain {
			code, text = http.StatusInternalServerError, "Specified job \""+parent+"\" is not a parameterized job"
			return
		}
		if len(payload) > maxPayload {
			code, text = http.StatusInternalServerError, fmt.Sprintf("Payload exceeds maximum size; %d > %d", len(payload), maxPayload)
			return
		}
		var missing, unwanted []string
		for _, key := range j.MetaRequired {
			if _, ok := meta[key]; !ok {
				missing = append(missing, key)
			}
		}
		for key := range meta {
			if !slices.Contains(j.MetaRequired, key) && !slices.Contains(j.MetaOptional, key) {
				unwanted = append(unwanted, key)
			}
		}
		switch {
		case len(missing) > 0:
			code, text = http.StatusInternalServerError, fmt.Sprintf("Dispatch did not provide required meta keys: %v", missing)
			return
		case len(unwanted) > 0:
			code, text = http.StatusInternalServerError, fmt.Sprintf("Dispatch request included unpermitted metadata keys: %v", unwanted)
			return
		}
		if known := n.tokens[parent+" "+token]; token != "" && n.kids[known] != nil {
			id = known
			return
		}
		id = fmt.Sprintf("%s/dispatch-%d-%s", parent, time.Now().Unix(), strings.ToLower(rand.Text()[:8]))
		n.tokens[parent+" "+token] = id
		c := &child{id: id, parent: parent, meta: maps.Clone(meta), payload: payload, status: "pending", submitted: time.Now().UnixNano(), modified: n.index}
		n.kids[id] = c
		n.order = append(n.order, id)
		if n.run != nil {
			n.execute(c)
		}
	})
	return id, code, text
}

// Children returns the ids of what was dispatched, oldest first.
func (n *Nomad) Children() []string {
	n.state.Lock()
	defer n.state.Unlock()
	return slices.DeleteFunc(slices.Clone(n.order), func(id string) bool { return n.kids[id] == nil })
}

// Meta and Payload are what a build was dispatched with.
func (n *Nomad) Meta(id string) map[string]string {
	n.state.Lock()
	defer n.state.Unlock()
	return maps.Clone(n.need(id).meta)
}

// Payload is what a build was dispatched with.
func (n *Nomad) Payload(id string) []byte {
	n.state.Lock()
	defer n.state.Unlock()
	return slices.Clone(n.need(id).payload)
}

// Stopped reports whether somebody has stopped a build.
func (n *Nomad) Stopped(id string) bool {
	n.state.Lock()
	defer n.state.Unlock()
	return n.need(id).stopped
}

// need finds a build; the lock is held.
func (n *Nomad) need(id string) *child {
	c := n.kids[id]
	if c == nil {
		panic("nomadtest: there is no build " + id)
	}
	return c
}

// Wait waits until what a test looks for is there, and looks again after each
// change.
func (n *Nomad) Wait(ctx context.Context, is func() bool) error {
	for {
		n.state.Lock()
		changed := n.changed
		n.state.Unlock()
		if is() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("nomadtest: what was waited for did not happen: %w", ctx.Err())
		}
	}
}

// WaitChildren waits until so many builds were dispatched.
func (n *Nomad) WaitChildren(ctx context.Context, count int) ([]string, error) {
	err := n.Wait(ctx, func() bool { return len(n.Children()) >= count })
	return n.Children(), err
}

func decode(r io.Reader, into any) error {
	text, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return err
	}
	return unmarshal(text, into)
}
