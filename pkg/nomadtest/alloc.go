package nomadtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

func unmarshal(text []byte, into any) error { return json.Unmarshal(text, into) }

// allocation is a child's newest, or one that was lost.
type allocation struct {
	id, client, desired string
	task                string // pending, running, dead
	failed              bool
	started, finished   time.Time
	events              []map[string]any
	logs                map[string][]byte
	created, modified   uint64
	changed             time.Time
}

func (a *allocation) event(kind, message string, details map[string]string) {
	if details == nil {
		details = map[string]string{}
	}
	a.events = append(a.events, map[string]any{"Type": kind, "Time": time.Now().UnixNano(), "DisplayMessage": message, "Details": details})
}

// summaries are a child's allocations as lists have them.
func (c *child) summaries() []map[string]any {
	var all []map[string]any
	for _, a := range c.allocations() {
		all = append(all, c.summary(a))
	}
	return all
}

func (c *child) allocations() []*allocation {
	all := slices.Clone(c.lost)
	if c.alloc != nil {
		all = append(all, c.alloc)
	}
	return all
}

func (c *child) summary(a *allocation) map[string]any {
	states := map[string]any{}
	if a.task != "" {
		states["executor"] = map[string]any{"State": a.task, "Failed": a.failed, "StartedAt": a.started, "FinishedAt": a.finished, "Events": a.events}
	}
	return map[string]any{
		"ID": a.id, "Name": c.id + ".runner[0]", "Namespace": Namespace, "JobID": c.id, "TaskGroup": "runner", "JobType": "batch",
		"DesiredStatus": a.desired, "ClientStatus": a.client, "TaskStates": states,
		"CreateIndex": a.created, "ModifyIndex": a.modified, "CreateTime": a.changed.UnixNano(), "ModifyTime": a.changed.UnixNano(),
	}
}

func (n *Nomad) listAllocations(w http.ResponseWriter, r *http.Request) {
	n.block(w, r)
	defer n.state.Unlock()
	list := []map[string]any{}
	for _, id := range n.order {
		if c := n.kids[id]; c != nil {
			list = append(list, c.summaries()...)
		}
	}
	answer(w, list)
}

func (n *Nomad) jobAllocations(w http.ResponseWriter, r *http.Request) {
	n.block(w, r)
	defer n.state.Unlock()
	list := []map[string]any{}
	if c := n.kids[r.PathValue("id")]; c != nil {
		list = append(list, c.summaries()...)
	}
	answer(w, list)
}

// on changes a build's allocation, which is made where there is none.
func (n *Nomad) on(id string, do func(c *child, a *allocation)) {
	n.change(func() { n.onLocked(n.need(id), do) })
}

func (n *Nomad) onLocked(c *child, do func(c *child, a *allocation)) {
	if c.alloc == nil {
		c.alloc = &allocation{id: uuid(), client: "pending", desired: "run", logs: map[string][]byte{}, created: n.index}
		c.status = "running"
	}
	do(c, c.alloc)
	c.alloc.modified, c.alloc.changed = n.index, time.Now()
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Place gives a build an allocation that is pending.
func (n *Nomad) Place(id string) {
	n.on(id, func(_ *child, a *allocation) { a.task = "pending"; a.event("Received", "Task received by client", nil) })
}

// Start makes its task run.
func (n *Nomad) Start(id string) { n.on(id, func(_ *child, a *allocation) { a.start() }) }

func (a *allocation) start() {
	a.client, a.task, a.started = "running", "running", time.Now()
	a.event("Started", "Task started by client", nil)
}

// Write appends to a log, stdout or stderr.
func (n *Nomad) Write(id, stream, text string) {
	n.on(id, func(_ *child, a *allocation) { a.logs[stream] = append(a.logs[stream], text...) })
}

// Finish ends its task with an exit status.
func (n *Nomad) Finish(id string, exit int) {
	n.on(id, func(c *child, a *allocation) { c.finish(exit) })
}

func (c *child) finish(exit int) {
	a := c.alloc
	a.task, a.finished, a.client, a.failed = "dead", time.Now(), "complete", exit != 0
	if exit != 0 {
		a.client = "failed"
	}
	a.event("Terminated", fmt.Sprintf("Exit Code: %d", exit), map[string]string{"exit_code": strconv.Itoa(exit), "signal": "0"})
	c.status = "dead"
}

// FailSetup ends it before its task started, by an event such as Driver Failure.
func (n *Nomad) FailSetup(id, kind, message string) {
	n.on(id, func(c *child, a *allocation) {
		a.task, a.failed, a.client, a.finished = "dead", true, "failed", time.Now()
		a.event(kind, message, nil)
		c.status = "dead"
	})
}

// Lose makes its machine vanish: status is lost or unknown. What was lost waits for
// room on another machine.
func (n *Nomad) Lose(id, status string) {
	n.on(id, func(c *child, a *allocation) {
		if a.client = status; status == "lost" {
			a.desired, c.status = "stop", "pending"
		}
	})
}

// Replace gives a build that was lost an allocation on another machine, whatever its
// group's reschedule block says.
func (n *Nomad) Replace(id string) {
	n.change(func() {
		c := n.need(id)
		c.lost, c.alloc = append(c.lost, c.alloc), nil
		n.onLocked(c, func(_ *child, a *allocation) { a.task = "pending" })
	})
}

// Stop is DELETE /v1/job/ID. A script that runs is interrupted.
func (n *Nomad) Stop(id string) bool {
	found := false
	n.change(func() {
		c := n.kids[id]
		if c == nil {
			return
		}
		found = true
		c.stopped = true
		switch {
		case c.alloc == nil || c.alloc.client == "lost":
			c.status = "dead"
		case c.cancel != nil:
			c.alloc.desired = "stop"
			c.alloc.event("Killing", "Sent interrupt", nil)
			c.cancel()
		case c.alloc.client == "pending" || c.alloc.client == "running":
			c.alloc.desired = "stop"
			c.alloc.event("Killing", "Sent interrupt", nil)
			c.finish(130)
			c.alloc.client, c.alloc.failed = "complete", false
		}
		if c.alloc != nil {
			c.alloc.modified, c.alloc.changed = n.index, time.Now()
		}
	})
	return found
}

// Collect is Nomad's garbage collection: the build and its logs are gone.
func (n *Nomad) Collect(id string) {
	n.change(func() { delete(n.kids, id) })
}

// CollectLogs removes the logs alone.
func (n *Nomad) CollectLogs(id string) {
	n.on(id, func(_ *child, a *allocation) { a.logs = nil })
}

// allocation finds one, nil for none. The lock is held.
func (n *Nomad) allocation(id string) *allocation {
	for _, c := range n.kids {
		for _, a := range c.allocations() {
			if a.id == id {
				return a
			}
		}
	}
	return nil
}

// serveLog is the log as plain text; followed, it never ends by itself.
func (n *Nomad) serveLog(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	offset, _ := strconv.ParseInt(q.Get("offset"), 10, 64)
	stream := q.Get("type")
	if q.Get("plain") != "true" || q.Get("task") != "executor" || stream != "stdout" && stream != "stderr" || q.Get("origin") != "start" {
		http.Error(w, "this fake gives logs of the executor as plain text from the start", http.StatusBadRequest)
		return
	}
	look := func() (log []byte, refusal string) {
		switch a := n.allocation(r.PathValue("alloc")); {
		case a == nil || a.logs == nil:
			return nil, fmt.Sprintf("Unknown allocation %q", r.PathValue("alloc"))
		case a.client == "lost" || a.client == "unknown":
			return nil, "No path to node"
		case a.started.IsZero():
			return nil, `task "executor" not started yet. No logs available`
		default:
			return a.logs[stream], ""
		}
	}
	n.state.Lock()
	_, refusal := look()
	n.state.Unlock()
	if refusal != "" {
		http.Error(w, refusal, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	for {
		n.state.Lock()
		log, refusal := look()
		changed := n.changed
		var more []byte
		if offset < int64(len(log)) {
			more = append(more, log[offset:]...)
		}
		n.state.Unlock()
		if len(more) > 0 {
			if _, err := w.Write(more); err != nil {
				return
			}
			offset += int64(len(more))
			_ = http.NewResponseController(w).Flush()
		}
		if q.Get("follow") != "true" || refusal != "" {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// Task is what a script is given.
type Task struct {
	JobID, AllocID string
	Meta           map[string]string
	Payload        []byte
	Stdout, Stderr io.Writer
}

// RunScripts makes each build that is dispatched from now on really run: do's
// result is its exit status. Its context ends when the build is stopped, or the
// test ends.
func (n *Nomad) RunScripts(do func(context.Context, Task) int) {
	n.state.Lock()
	defer n.state.Unlock()
	n.run = do
}

// execute runs a build. The lock is held.
func (n *Nomad) execute(c *child) {
	ctx, cancel := context.WithCancel(n.ctx)
	n.onLocked(c, func(c *child, a *allocation) { c.cancel = cancel; a.start() })
	task := Task{
		JobID: c.id, AllocID: c.alloc.id, Meta: c.meta, Payload: c.payload,
		Stdout: logWriter{n, c, "stdout"}, Stderr: logWriter{n, c, "stderr"},
	}
	do := n.run
	n.running.Go(func() {
		defer cancel()
		exit := do(ctx, task)
		n.change(func() {
			n.onLocked(c, func(c *child, a *allocation) {
				c.cancel = nil
				c.finish(exit)
				if a.desired == "stop" {
					a.client = "complete"
				}
			})
		})
	})
}

type logWriter struct {
	n      *Nomad
	c      *child
	stream string
}

func (w logWriter) Write(p []byte) (int, error) {
	w.n.change(func() {
		w.n.onLocked(w.c, func(_ *child, a *allocation) {
			if a.logs != nil {
				a.logs[w.stream] = append(a.logs[w.stream], p...)
			}
		})
	})
	return len(p), nil
}

// Environment is what Nomad would set for a task, but for its folders.
func (t Task) Environment() []string {
	env := []string{"NOMAD_JOB_ID=" + t.JobID, "NOMAD_JOB_NAME=" + t.JobID, "NOMAD_ALLOC_ID=" + t.AllocID, "NOMAD_TASK_NAME=executor", "NOMAD_GROUP_NAME=runner", "NOMAD_NAMESPACE=" + Namespace}
	if parent, _, ok := strings.Cut(t.JobID, "/dispatch-"); ok {
		env = append(env, "NOMAD_JOB_PARENT_ID="+parent)
	}
	for name, value := range t.Meta {
		env = append(env, "NOMAD_META_"+name+"="+value)
	}
	return env
}
