//go:build linux || darwin

package host

import (
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// settle is what processes that a finished command has left behind have
	// to leave its session, before they get SIGHUP: the shell of "setsid x &"
	// has ended before setsid has started.
	settle = time.Second
	// lookEvery is how often remains are looked at: they are nobody's
	// children here, so that nothing tells when they end.
	lookEvery = 20 * time.Millisecond
	// lingerEvery is how often those are looked at that may live for long.
	lingerEvery = time.Second
	// forever is longer than any agent lives.
	forever = 1 << 62 * time.Nanosecond
	// trust is for how long a session's number is taken to be the session's
	// after the last of those that are known in it has been seen. Numbers go
	// round slower than that.
	trust = 5 * time.Second
	// killRounds bounds the attempts to kill those who fork, or hang in the
	// kernel.
	killRounds = 100
)

// remains are the processes of a session whose leader is about to be reaped.
type remains struct {
	session int
	list    []*os.Process
	// seen is when somebody of the list was last in the session.
	seen time.Time
}

// endLeft gives remains a moment to leave the session, unless hurry is closed,
// sends SIGHUP to those that have not, and goes on as linger does.
func (r *remains) endLeft(hurry, kill <-chan struct{}) {
	defer r.release()
	if r.await(settle, lookEvery, hurry) {
		return
	}
	r.renew()
	r.signal(unix.SIGHUP)
	r.signal(unix.SIGCONT)
	r.linger(hurry, kill)
}

// linger waits for remains that have got SIGHUP. Those that ignore it may live
// until hurry is closed. Then they get SIGTERM, and SIGKILL after the grace or
// when kill is closed.
func (r *remains) linger(hurry, kill <-chan struct{}) {
	defer r.release()
	if r.await(lingerEvery, lookEvery, hurry) || r.await(forever, lingerEvery, hurry) {
		return
	}
	r.renew()
	r.signal(unix.SIGTERM)
	r.signal(unix.SIGCONT)
	if r.await(hangupGrace, lookEvery, kill) {
		return
	}
	for range killRounds {
		r.renew()
		r.signal(unix.SIGKILL)
		if r.await(lookEvery, lookEvery, nil) {
			return
		}
	}
}

// await returns true as soon as all are gone, and false after the time or when
// enough is closed.
func (r *remains) await(limit, every time.Duration, enough <-chan struct{}) bool {
	if r.gone() {
		return true
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case <-ticker.C:
			if r.gone() {
				return true
			}
		case <-enough:
			return r.gone()
		case <-timer.C:
			return r.gone()
		}
	}
}

// gone reports whether nobody is left: of those that are known, nor of those
// that they have started.
func (r *remains) gone() bool {
	if !r.known() {
		r.renew()
	}
	return len(r.list) == 0
}

// known drops those that have ended or left the session, and reports whether
// somebody is left.
func (r *remains) known() bool {
	r.list = slices.DeleteFunc(r.list, func(p *os.Process) bool {
		if r.has(p) {
			return false
		}
		_ = p.Release()
		return true
	})
	if len(r.list) == 0 {
		return false
	}
	r.seen = time.Now()
	return true
}

// renew looks for those that were started since. As long as somebody is in the
// session, its number is not given away.
func (r *remains) renew() {
	if !r.known() && time.Since(r.seen) > trust {
		return
	}
	now := members(r.session)
	r.release()
	if r.list = now; len(now) > 0 {
		r.seen = time.Now()
	}
}

// has reports whether a process is alive and in the session.
func (r *remains) has(p *os.Process) bool {
	return inSession(p.Pid, r.session) && alive(p)
}

// signal sends to all. An error means that the process is gone.
func (r *remains) signal(signal os.Signal) {
	for _, p := range r.list {
		_ = p.Signal(signal)
	}
}

// release forgets them.
func (r *remains) release() {
	for _, p := range r.list {
		_ = p.Release()
	}
	r.list = nil
}

// members returns the living processes of a session, without its leader.
func members(session int) []*os.Process {
	var list []*os.Process
	for _, pid := range processes() {
		if pid == session || !inSession(pid, session) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// The handle may be of a later process with the same number.
		if !inSession(pid, session) || !alive(p) {
			_ = p.Release()
			continue
		}
		list = append(list, p)
	}
	return list
}

func inSession(pid, session int) bool {
	got, err := unix.Getsid(pid)
	return err == nil && got == session
}

// alive reports whether a process runs. One that has ended and waits for its
// parent to notice does not.
func alive(p *os.Process) bool {
	return p.Signal(syscall.Signal(0)) == nil && !zombie(p.Pid)
}
