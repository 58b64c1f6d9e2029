package session

import (
	"time"

	"example.com/converge/agent/internal/notify"
	"example.com/converge/agent/internal/sshd"
	"example.com/converge/pkg/expiry"
)

// notice is one with how to come in, and until when. The password is in the job's
// log alone.
func (r *run) notice(e notify.Event, deadline time.Time, left time.Duration) notify.Notice {
	a, _ := r.access()
	n := notify.Notice{Event: e, Left: left, Access: notify.Access{
		ID: a.ID, SSH: a.Short(), SSHStock: a.SSH(), SFTP: a.ShortSFTP(), ClientURL: a.URL(),
		HostKey: a.PublicKey(), User: a.User, Password: a.Password != "",
	}}
	if !deadline.IsZero() {
		at := deadline.UTC().Truncate(time.Second)
		n.Expires = &at
	}
	return n
}

// tellWaiting tells, once for each id, that the job can be entered: when it has
// an id, and its command, if there is one, has failed.
func (r *run) tellWaiting(st expiry.Status) {
	r.mu.Lock()
	due := r.id != "" && r.id != r.told && !r.busy
	if due {
		r.told = r.id
	}
	r.mu.Unlock()
	if due {
		r.notices.Send(r.notice(notify.Waiting, st.Deadline, st.Remaining))
	}
}

func (r *run) tellLogin(u sshd.UserInfo) {
	n := r.notice(notify.Connected, time.Time{}, 0) // the end is put off by this
	n.Who = name(u)
	r.notices.Send(n)
}

func (r *run) tellWarning(w expiry.Warn) {
	r.notices.Send(r.notice(notify.Warning, w.Deadline, w.Remaining))
}

func (r *run) tellEnd(reason expiry.Reason) {
	n := r.notice(notify.Ended, time.Time{}, 0)
	n.Reason, n.Sentence = reason.String(), reason.Sentence()
	if r.lostBy(reason) != nil {
		n.Reason, n.Sentence = "unreachable", "The session ended because the agent lost its place at the server."
	}
	r.notices.Send(n)
}

// lose notes why nobody can come any more.
func (r *run) lose(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = err
}

// lostBy returns the error that ended the session; nil if something else did.
func (r *run) lostBy(reason expiry.Reason) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reason != expiry.Signalled {
		return nil
	}
	return r.lost
}
