package nomad

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hashicorp/nomad/api"

	"example.com/converge/dispatch/internal/build"
)

// Verdict is how a build stands, as Nomad has it.
type Verdict struct {
	State  build.State
	Reason string
	// Exit is -1 where there is none.
	Exit           int
	Allocation     string
	Started, Ended time.Time
	// Over says that the task has ended, so that its log grows no more.
	Over bool
}

// Reasons of a Verdict that others look for.
const (
	ReasonQueued    = "queued"
	ReasonCancelled = "cancelled"
)

// Judge tells how a build stands from its job and its allocation, which is nil
// where there is none. A job's status is dead for success and failure alike, so
// the allocation decides.
func Judge(job Child, a *api.AllocationListStub) Verdict {
	v := Verdict{Exit: -1}
	if a == nil {
		switch {
		case job.Stopped:
			v.State, v.Reason, v.Over = build.Failure, ReasonCancelled, true
		case job.Status == "dead":
			v.State, v.Reason, v.Over = build.Error, "Nomad ended it without running it", true
		default:
			v.State, v.Reason = build.Queued, ReasonQueued
		}
		return v
	}
	v.Allocation = a.ID
	task := a.TaskStates[Task]
	started := false
	if task != nil {
		v.Started, v.Ended = task.StartedAt, task.FinishedAt
		started = event(task, api.TaskStarted) != nil
	}
	terminated := event(task, api.TaskTerminated)
	if terminated != nil {
		v.Exit = exitCode(terminated)
	}
	stopped := job.Stopped || a.DesiredStatus == api.AllocDesiredStatusStop
	switch a.ClientStatus {
	case api.AllocClientStatusPending, "":
		v.State, v.Reason = build.Queued, ReasonQueued
		if stopped {
			v.State, v.Reason, v.Over = build.Failure, ReasonCancelled, true
		}
	case api.AllocClientStatusRunning:
		v.State, v.Reason = build.Running, "running"
		if task != nil && task.State == "pending" {
			v.State, v.Reason = build.Queued, ReasonQueued // prestart tasks run
		}
		if stopped { // it may take its time to end
			v.State, v.Reason = build.Failure, ReasonCancelled
		}
		if task != nil && task.State == "dead" { // its helpers have not ended yet
			v = ended(v, a, task, stopped, started, terminated)
		}
	case api.AllocClientStatusComplete, api.AllocClientStatusFailed:
		v = ended(v, a, task, stopped, started, terminated)
	default: // lost, unknown
		// Nomad itself stops an allocation that it has lost, and places another one as
		// soon as there is room, whatever the group's reschedule block says.
		v.State, v.Reason, v.Over = build.Error, "Nomad has lost the machine that ran it", job.Status == "dead"
		if job.Stopped {
			v.State, v.Reason, v.Over = build.Failure, ReasonCancelled, true
		}
	}
	return v
}

// ended judges a task, or an allocation, that has.
func ended(v Verdict, a *api.AllocationListStub, task *api.TaskState, stopped, started bool, terminated *api.TaskEvent) Verdict {
	v.Over = true
	if v.Ended.IsZero() {
		v.Ended = time.Unix(0, a.ModifyTime)
	}
	// Where the task has ended by itself, what became of those beside it, such as
	// one that cleans up, does not count.
	failed := task != nil && task.Failed
	if terminated == nil {
		failed = failed || a.ClientStatus == api.AllocClientStatusFailed
	}
	switch {
	// Stopping an allocation that has ended changes nothing of how it ended.
	case stopped && (terminated == nil || event(task, api.TaskKilling) != nil):
		v.State, v.Reason = build.Failure, ReasonCancelled
	case !failed && v.Exit <= 0:
		v.State, v.Reason = build.Success, "success"
		if v.Exit < 0 {
			v.Exit = 0
		}
	case terminated != nil && v.Exit != 0 && terminated.Details["oom_killed"] == "true":
		v.State, v.Reason = build.Failure, fmt.Sprintf("exit %d, out of memory", v.Exit)
	case terminated != nil && v.Exit != 0:
		v.State, v.Reason = build.Failure, fmt.Sprintf("exit %d", v.Exit)
	case !started:
		v.State, v.Reason = build.Error, whyNot(a)
	default:
		v.State, v.Reason = build.Error, "the task ended without an exit status"
	}
	return v
}

// event returns a task's last event of a type, or nil.
func event(task *api.TaskState, kind string) *api.TaskEvent {
	if task == nil {
		return nil
	}
	for i := len(task.Events) - 1; i >= 0; i-- {
		if task.Events[i].Type == kind {
			return task.Events[i]
		}
	}
	return nil
}

// exitCode prefers the details: the field is deprecated.
func exitCode(e *api.TaskEvent) int {
	if n, err := strconv.Atoi(e.Details["exit_code"]); err == nil {
		return n
	}
	return e.ExitCode
}

// whyNot finds the event that kept the task, or one beside it, from starting.
func whyNot(a *api.AllocationListStub) string {
	order := []string{api.TaskDriverFailure, api.TaskFailedValidation, api.TaskSetupFailure, api.TaskArtifactDownloadFailed, "Template failed"}
	names := []string{Task}
	for name := range a.TaskStates {
		if name != Task {
			names = append(names, name)
		}
	}
	for _, name := range names {
		for _, kind := range order {
			e := event(a.TaskStates[name], kind)
			if e == nil {
				continue
			}
			text := e.DisplayMessage
			if len([]rune(text)) > 100 {
				text = string([]rune(text)[:99]) + "…"
			}
			if text == "" || text == kind {
				return kind
			}
			return kind + ": " + text
		}
	}
	return "the task did not start"
}
