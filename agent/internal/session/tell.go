package session

import (
	"fmt"
	"io"
	"strings"
	"time"

	"example.com/converge/agent/internal/announce"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
	"example.com/converge/pkg/rendezvous"
)

// say writes a line to the job's log, and keeps it for the summary.
func (r *run) say(text string) {
	r.inform(text)
	r.note(text)
}

// inform writes a line to the job's log alone.
func (r *run) inform(text string) { r.job.Say("converge: " + text + "\n") }

// note keeps a line for the summary alone.
func (r *run) note(text string) {
	r.job.Note(time.Now().Format("15:04:05 MST") + "  " + text)
}

// loggedIn and loggedOut say who came and went. Where from is for the log alone:
// more people may see the summary.
func (r *run) loggedIn(u sshd.UserInfo) {
	r.inform(fmt.Sprintf("%s logged in from %s", name(u), u.Remote))
	r.note(name(u) + " logged in")
}

func (r *run) loggedOut(u sshd.UserInfo) {
	r.inform(fmt.Sprintf("%s from %s logged out", name(u), u.Remote))
	r.note(name(u) + " logged out")
}

// tellServer says how the agent stands, for the sessions page of the server.
func (r *run) tellServer() {
	if r.link == nil {
		return
	}
	s := r.loop.Snapshot()
	status := rendezvous.Status{State: s.Phase.String(), Users: len(s.Users)}
	if s.Busy {
		status.State = "job-running"
	}
	if !s.Deadline.IsZero() {
		status.Expires = max(s.Deadline.Unix(), 0)
	}
	r.link.Status(status)
}

// summarize adds to the step's summary.
func (r *run) summarize(heading string) {
	if err := r.job.Summarize(heading); err != nil {
		r.log.Warn("the summary lacks something", "err", err)
	}
}

// registered prints the lines to paste, and until when somebody is waited for.
// The summary, which is seen when the job is over, has neither them nor a
// password.
func (r *run) registered(id string) {
	r.mu.Lock()
	r.id = id
	r.mu.Unlock()
	access, _ := r.access()
	status := r.loop.Snapshot()
	if r.cfg.Print == announce.JSON {
		_, _ = io.WriteString(r.cfg.Object, access.Object(status.Deadline))
	} else {
		r.job.Say(access.Head())
		r.job.Fold("Converge: other ways in, and the host key", access.Details(r.cfg.Print == announce.All))
	}
	r.note("people could log in; the host key is " + access.Fingerprint())
	r.summarize("Converge: this job could be entered")
	r.tellWaiting(status)
	r.tellServer()
	if status.Phase == expiry.Waiting && !status.Busy {
		r.inform(announce.Waiting(status.Remaining, status.Deadline))
	}
}

// progress is the line for a log that has been silent for long: who is waited
// for, or who is here, and until when; "" while the job's command has the log.
func (r *run) progress() string {
	st := r.loop.Snapshot()
	users := r.sshd.Users()
	switch {
	case st.Phase == expiry.Ended, st.Busy && len(users) == 0:
		return ""
	case st.Phase == expiry.Waiting:
		if text := r.waiting(st); text != "" {
			return "converge: " + text + "\n"
		}
		return ""
	}
	var here []string
	for _, u := range users {
		here = append(here, describe(u))
	}
	line := announce.Outlook(st)
	if len(here) > 0 {
		line = "here: " + strings.Join(here, "; ") + ". " + line
	}
	return "converge: " + line + "\n"
}

// waiting says that nobody has come yet, with the line to paste once more: the
// first may have been long ago. It is "" while nobody can come.
func (r *run) waiting(st expiry.Status) string {
	access, ok := r.access()
	switch text := announce.Waiting(st.Remaining, st.Deadline); {
	case !ok:
		return ""
	case r.cfg.Print == announce.JSON:
		return text
	default:
		return text + ": " + access.Short()
	}
}
