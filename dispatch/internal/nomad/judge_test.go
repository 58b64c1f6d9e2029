package nomad

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"

	"example.com/converge/dispatch/internal/build"
)

func task(state string, failed bool, events ...*api.TaskEvent) *api.TaskState {
	return &api.TaskState{State: state, Failed: failed, Events: events}
}

func happened(kind string) *api.TaskEvent { return &api.TaskEvent{Type: kind} }

func exited(code string) *api.TaskEvent {
	return &api.TaskEvent{Type: api.TaskTerminated, Details: map[string]string{"exit_code": code}}
}

func listed(client string, tasks map[string]*api.TaskState) *api.AllocationListStub {
	return &api.AllocationListStub{ID: "a", ClientStatus: client, DesiredStatus: "run", TaskStates: tasks, ModifyTime: time.Now().UnixNano()}
}

// TestJudge is the table of the states, with what stands beside the executor.
func TestJudge(t *testing.T) {
	alone := func(s *api.TaskState) map[string]*api.TaskState { return map[string]*api.TaskState{Task: s} }
	started := happened(api.TaskStarted)
	stopping := func(s *api.AllocationListStub) *api.AllocationListStub { s.DesiredStatus = "stop"; return s }
	oom := exited("137")
	oom.Details["oom_killed"] = "true"
	broken := &api.TaskEvent{Type: api.TaskDriverFailure, DisplayMessage: strings.Repeat("é", 200)}
	for name, test := range map[string]struct {
		job    Child
		a      *api.AllocationListStub
		state  build.State
		reason string
		exit   int
		over   bool
	}{
		"no allocation":             {Child{Status: "pending"}, nil, build.Queued, "queued", -1, false},
		"running, no allocation":    {Child{Status: "running"}, nil, build.Queued, "queued", -1, false},
		"stopped, no allocation":    {Child{Status: "dead", Stopped: true}, nil, build.Failure, "cancelled", -1, true},
		"dead, no allocation":       {Child{Status: "dead"}, nil, build.Error, "Nomad ended it without running it", -1, true},
		"pending":                   {Child{}, listed("pending", nil), build.Queued, "queued", -1, false},
		"stopped while pending":     {Child{}, stopping(listed("pending", nil)), build.Failure, "cancelled", -1, true},
		"prestart":                  {Child{}, listed("running", alone(task("pending", false))), build.Queued, "queued", -1, false},
		"running":                   {Child{}, listed("running", alone(task("running", false, started))), build.Running, "running", -1, false},
		"being stopped":             {Child{Stopped: true}, stopping(listed("running", alone(task("running", false, started)))), build.Failure, "cancelled", -1, false},
		"complete":                  {Child{Status: "dead"}, listed("complete", alone(task("dead", false, started, exited("0")))), build.Success, "success", 0, true},
		"complete, no task":         {Child{Status: "dead"}, listed("complete", nil), build.Success, "success", 0, true},
		"failed":                    {Child{Status: "dead"}, listed("failed", alone(task("dead", true, started, exited("2")))), build.Failure, "exit 2", 2, true},
		"complete, and failed":      {Child{}, listed("complete", alone(task("dead", true, started, exited("1")))), build.Failure, "exit 1", 1, true},
		"out of memory":             {Child{}, listed("failed", alone(task("dead", true, started, oom))), build.Failure, "exit 137, out of memory", 137, true},
		"driver":                    {Child{}, listed("failed", alone(task("dead", true, broken))), build.Error, "Driver Failure: " + strings.Repeat("é", 99) + "…", -1, true},
		"validation":                {Child{}, listed("failed", alone(task("dead", true, happened(api.TaskFailedValidation)))), build.Error, "Failed Validation", -1, true},
		"setup":                     {Child{}, listed("failed", alone(task("dead", true, happened(api.TaskSetupFailure)))), build.Error, "Setup Failure", -1, true},
		"nothing said":              {Child{}, listed("failed", alone(task("dead", true))), build.Error, "the task did not start", -1, true},
		"no exit status":            {Child{}, listed("failed", alone(task("dead", true, started))), build.Error, "the task ended without an exit status", -1, true},
		"lost, to be run again":     {Child{Status: "pending"}, stopping(listed("lost", alone(task("running", false, started)))), build.Error, "Nomad has lost the machine that ran it", -1, false},
		"lost":                      {Child{Status: "dead"}, stopping(listed("lost", alone(task("running", false, started)))), build.Error, "Nomad has lost the machine that ran it", -1, true},
		"lost, and stopped":         {Child{Status: "dead", Stopped: true}, stopping(listed("lost", alone(task("running", false, started)))), build.Failure, "cancelled", -1, true},
		"unknown":                   {Child{}, listed("unknown", alone(task("running", false, started))), build.Error, "Nomad has lost the machine that ran it", -1, false},
		"stopped":                   {Child{Stopped: true}, stopping(listed("complete", alone(task("dead", false, started, happened(api.TaskKilling), exited("130"))))), build.Failure, "cancelled", 130, true},
		"ended by itself, stopped":  {Child{Stopped: true}, listed("complete", alone(task("dead", false, started, exited("0")))), build.Success, "success", 0, true},
		"failed by itself, stopped": {Child{Stopped: true}, listed("failed", alone(task("dead", true, started, exited("4")))), build.Failure, "exit 4", 4, true},
		"its helpers go on": {Child{}, listed("running", map[string]*api.TaskState{
			Task: task("dead", true, started, exited("3")), "gc": task("running", false, started),
		}), build.Failure, "exit 3", 3, true},
		"a helper failed afterwards": {Child{}, listed("failed", map[string]*api.TaskState{
			Task: task("dead", false, started, exited("0")), "gc": task("dead", true, started, exited("1")),
		}), build.Success, "success", 0, true},
		"a helper failed before": {Child{}, listed("failed", map[string]*api.TaskState{
			Task: task("dead", true, happened("Sibling Task Failed")), "store": task("dead", true, happened(api.TaskDriverFailure)),
		}), build.Error, "Driver Failure", -1, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := Judge(test.job, test.a)
			if v.State != test.state || v.Reason != test.reason || v.Exit != test.exit || v.Over != test.over {
				t.Errorf("%+v", v)
			}
		})
	}
}
