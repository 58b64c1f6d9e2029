package session

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/control"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/expiry/hold"
)

// JobEnd is the end of the job's own command.
type JobEnd struct {
	// Text says how it ended, after "The job's command".
	Text string
	// Stay asks to wait for users although nobody is there.
	Stay bool
}

// awaitJob tells users and the expiry machine of the end of the job's command.
func (r *run) awaitJob(ctx context.Context, job <-chan JobEnd) {
	select {
	case end := <-job:
		text := fmt.Sprintf("The job's command %s.", end.Text)
		r.say(text)
		if !r.cfg.NoWall {
			r.sshd.Wall(text)
		}
		st, err := r.loop.Do(ctx, expiry.JobEnded(end.Stay))
		if err == nil && end.Stay {
			r.mu.Lock()
			r.busy = false
			r.mu.Unlock()
			r.tellWaiting(st)
		}
		if err != nil || st.Phase != expiry.Waiting {
			return
		}
		if text := r.waiting(st); text != "" {
			r.inform(text) // the lines to paste are above all that the command said
		}
	case <-ctx.Done():
	}
}

// command carries out what somebody typed in a shell of the job.
func (r *run) command(ctx context.Context, req control.Request) control.Response {
	switch req.Op {
	case control.Hold:
		return r.change(ctx, expiry.Hold())
	case control.Extend:
		return r.change(ctx, expiry.Extend(req.By))
	case control.Resume:
		return r.change(ctx, expiry.Resume())
	case control.Share:
		return r.share()
	case control.StatusOp:
		st := r.loop.Snapshot()
		var b strings.Builder
		fmt.Fprintln(&b, announce.Outlook(st))
		if !st.Limit.IsZero() && st.Reason != expiry.MaxDuration {
			fmt.Fprintf(&b, "Nothing extends it past %s.\n", announce.At(st.Limit, st.Limit.Sub(st.Deadline)+st.Remaining))
		}
		for _, u := range r.sshd.Users() {
			fmt.Fprintf(&b, "Here: %s\n", describe(u))
		}
		return control.Response{Text: b.String(), Status: r.status(st)}
	}
	return control.Response{Error: fmt.Sprintf("the agent does not know %q: use the agent program that the job runs", req.Op)}
}

// change sends an event and answers with what came of it.
func (r *run) change(ctx context.Context, e expiry.Event) control.Response {
	st, err := r.loop.Do(ctx, e)
	switch {
	case errors.Is(err, expiry.ErrOver):
		return control.Response{Error: "the session is over already"}
	case err != nil:
		return control.Response{Error: fmt.Sprintf("the agent did not answer in time: %v", err)}
	}
	text := announce.Outlook(st) + "\n"
	if err := r.holdError(); err != nil && st.Held && st.Phase != expiry.Ended {
		text += fmt.Sprintf("But there is no .hold to remove: %v\n", err)
	}
	return control.Response{Text: text, Status: r.status(st)}
}

// share answers with the lines that bring others into a shell.
func (r *run) share() control.Response {
	access, ok := r.access()
	if !ok {
		return control.Response{Error: "the agent is not connected to the server yet: try again in a moment"}
	}
	return control.Response{Text: access.Share()}
}

// status translates for programs.
func (r *run) status(st expiry.Status) *control.Status {
	access, _ := r.access()
	s := &control.Status{
		ID: access.ID, AgentDir: r.dir, Phase: st.Phase.String(),
		Held: st.Held, Keep: st.Keep, JobRunning: st.Busy,
		Start: st.Start, Reason: st.Reason.String(), Users: []control.User{},
	}
	if !st.Deadline.IsZero() {
		left := st.Remaining.Seconds()
		s.Deadline, s.RemainingSeconds = &st.Deadline, &left
	}
	if !st.Limit.IsZero() {
		s.Limit = &st.Limit
	}
	for _, u := range r.sshd.Users() {
		s.Users = append(s.Users, control.User{
			Name: u.User, Remote: u.Remote, Since: u.Since.Round(0), Key: u.KeyFingerprint, Owner: u.Owner,
			Away: u.Away, Present: slices.Contains(st.Users, expiry.UserID(u.ID)),
		})
	}
	return s
}

// access returns what it takes to reach the agent; false before it has
// registered, when the id is only what it will ask for.
func (r *run) access() (announce.Access, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	access := r.cfg.Access
	access.ID = r.id
	if r.id == "" {
		access.ID = r.cfg.Link.ID
	}
	return access, r.id != ""
}

// writeHold carries a hold or extend out where everybody can see and undo it.
func (r *run) writeHold(e expiry.WriteHold) {
	err := hold.Write(r.dir, e.Ahead)
	if err != nil {
		r.log.Warn("the session is held, but not by a file", "err", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holdErr = err
}

func (r *run) holdError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holdErr
}

// agentProgram returns the path of this program and how a shell of the job calls
// it; both are "" if it is gone. Even where the job finds it by its name, a login
// shell may not: it begins with a PATH of its own.
func agentProgram() (path, word string) {
	path, err := os.Executable()
	if err != nil {
		return "", ""
	}
	if _, err := os.Stat(path); err != nil {
		return "", ""
	}
	return path, announce.AgentCommand
}
