package nomad

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Child is a dispatched job.
type Child struct {
	ID, Parent string
	// Status is pending, running or dead; Stopped says that somebody stopped it.
	Status  string
	Stopped bool
	Meta    map[string]string
	// Submitted is when it was dispatched.
	Submitted time.Time
}

// IsChild reports whether an id is of a child of the job.
func IsChild(id, job string) bool { return strings.HasPrefix(id, job+infix) }

// Children waits until something has changed since index, 0 for not at all, for
// some minutes at most, and returns all children of a job with the new index. The
// error is ErrAway or the context's.
func (c *Client) Children(ctx context.Context, job string, index uint64) ([]Child, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+timeout)
	defer cancel()
	q := &api.QueryOptions{Prefix: job + infix, WaitIndex: index, WaitTime: wait}
	listed, meta, err := c.api.Jobs().ListOptions(&api.JobListOptions{Fields: &api.JobListFields{Meta: true}}, q.WithContext(ctx))
	if err != nil {
		return nil, 0, c.mistake("list the builds of "+job, err)
	}
	children := make([]Child, 0, len(listed))
	for _, s := range listed {
		if !IsChild(s.ID, job) {
			continue
		}
		children = append(children, Child{
			ID: s.ID, Parent: job, Status: s.Status, Stopped: s.Stop, Meta: s.Meta, Submitted: time.Unix(0, s.SubmitTime),
		})
	}
	return children, next(meta, index), nil
}

// Child reads one, with its meta. The error is ErrNoJob or ErrAway.
func (c *Client) Child(ctx context.Context, id string) (Child, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	j, _, err := c.api.Jobs().Info(id, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return Child{}, c.mistake("read "+id, err)
	}
	child := Child{ID: id, Meta: j.Meta}
	if j.ParentID != nil {
		child.Parent = *j.ParentID
	}
	if child.Parent == "" {
		child.Parent, _, _ = strings.Cut(id, infix)
	}
	if j.Status != nil {
		child.Status = *j.Status
	}
	if j.Stop != nil {
		child.Stopped = *j.Stop
	}
	if j.SubmitTime != nil {
		child.Submitted = time.Unix(0, *j.SubmitTime)
	}
	return child, nil
}

// Allocations waits as Children does, and returns all of the namespace, of each
// job the newest.
func (c *Client) Allocations(ctx context.Context, index uint64) (map[string]*api.AllocationListStub, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+wait/16+timeout)
	defer cancel()
	q := &api.QueryOptions{WaitIndex: index, WaitTime: wait, Params: map[string]string{"resources": "false", "task_states": "true"}}
	listed, meta, err := c.api.Allocations().List(q.WithContext(ctx))
	if err != nil {
		return nil, 0, c.mistake("list the allocations", err)
	}
	return newest(listed), next(meta, index), nil
}

// AllocationOf returns the newest allocation of a job, nil where there is none.
func (c *Client) AllocationOf(ctx context.Context, id string) (*api.AllocationListStub, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	listed, _, err := c.api.Jobs().Allocations(id, true, (&api.QueryOptions{}).WithContext(ctx))
	var said api.UnexpectedResponseError
	switch {
	case errors.As(err, &said) && said.StatusCode() == http.StatusNotFound:
		return nil, nil
	case err != nil:
		return nil, c.mistake(fmt.Sprintf("list the allocations of %s", id), err)
	}
	return newest(listed)[id], nil
}

func newest(listed []*api.AllocationListStub) map[string]*api.AllocationListStub {
	all := make(map[string]*api.AllocationListStub, len(listed))
	for _, s := range listed {
		if other := all[s.JobID]; other == nil || s.CreateIndex > other.CreateIndex {
			all[s.JobID] = s
		}
	}
	return all
}

// next is the index to wait for. One that went back, as after a restore, starts
// over (https://developer.hashicorp.com/nomad/api-docs#blocking-queries).
func next(meta *api.QueryMeta, index uint64) uint64 {
	if meta.LastIndex < index {
		return 0
	}
	return max(1, meta.LastIndex)
}
