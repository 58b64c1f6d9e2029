package expiry

import (
	"fmt"
	"time"
)

// Phase is where a session stands.
type Phase uint8

const (
	// Waiting: nobody has logged in yet.
	Waiting Phase = iota
	// Active: at least one user is present.
	Active
	// Lingering: nobody is left, but .hold, Keep or the grace keeps the session.
	Lingering
	// Ended: over; no event changes anything any more.
	Ended
)

// String gives the phase's name in lower case.
func (p Phase) String() string {
	switch p {
	case Waiting:
		return "waiting"
	case Active:
		return "active"
	case Lingering:
		return "lingering"
	case Ended:
		return "ended"
	}
	return fmt.Sprintf("phase(%d)", uint8(p))
}

// Reason is why a session ended or, in a Status, why it will.
type Reason uint8

const (
	// None: no end has been reached or is in sight.
	None Reason = iota
	// FirstConnectTimeout: nobody logged in within the limit.
	FirstConnectTimeout
	// Expired: the expiry passed since the last activity and the date of .hold.
	Expired
	// MaxDuration: the cap on the whole session was reached.
	MaxDuration
	// LastLogout: the last user has gone.
	LastLogout
	// Resumed: somebody gave the command to resume the job.
	Resumed
	// Signalled: the process was told to stop.
	Signalled
	// Done: the job ended while nobody was there, and nobody is to be waited
	// for.
	Done
)

// String gives a short name for logs and machine-readable output.
func (r Reason) String() string {
	switch r {
	case None:
		return "none"
	case FirstConnectTimeout:
		return "first-connect-timeout"
	case Expired:
		return "expired"
	case MaxDuration:
		return "max-duration"
	case LastLogout:
		return "last-logout"
	case Resumed:
		return "resumed"
	case Signalled:
		return "signal"
	case Done:
		return "job-done"
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Sentence gives the reason in words for people.
func (r Reason) Sentence() string {
	switch r {
	case None:
		return "The session goes on."
	case FirstConnectTimeout:
		return "The session ended because nobody logged in in time."
	case Expired:
		return "The session ended because it expired: no user was active for too long and .hold was not touched."
	case MaxDuration:
		return "The session ended because it reached its maximum duration, which nothing extends."
	case LastLogout:
		return "The session ended because its last user logged out."
	case Resumed:
		return "The session ended because it was told to resume the job."
	case Signalled:
		return "The session ended because the agent was told to stop by a signal."
	case Done:
		return "The session ended because the job's command has ended and nobody is here."
	}
	return "The session ended for an unknown reason."
}

// Timeout reports whether the end came from a time limit and not from somebody's
// wish; such ends may have an exit code of their own.
func (r Reason) Timeout() bool {
	return r == FirstConnectTimeout || r == Expired || r == MaxDuration
}

// Effect is something for the caller to do: a Warn, End, PhaseChanged,
// DeadlineChanged or WriteHold. Wall times in effects carry no monotonic
// reading: they are for people to read.
type Effect interface{ effect() }

// Warn asks to tell every interactive shell that the session ends soon. Each
// warning time is used once, and again only after the deadline moved later.
type Warn struct {
	// Remaining is the time left.
	Remaining time.Duration
	// Deadline is when the session ends.
	Deadline time.Time
}

// End asks to tell the users why, to close everything and to exit. It is the
// last effect.
type End struct{ Reason Reason }

// PhaseChanged reports a change of phase; the change to Ended is reported by
// End alone.
type PhaseChanged struct{ From, To Phase }

// DeadlineChanged reports that something other than activity (which moves the
// deadline all the time) moved the deadline.
type DeadlineChanged struct {
	// Deadline is the new one; the zero time means none.
	Deadline time.Time
	// Remaining is the time left; 0 where there is no deadline.
	Remaining time.Duration
}

// WriteHold asks to create .hold, or to date it anew, after a Hold or Extend.
// The file is what everybody can see and remove; the state has changed already,
// and the later report of the same date changes nothing more.
type WriteHold struct {
	// Ahead is the date's distance from now; it may be negative.
	Ahead time.Duration
}

func (Warn) effect()            {}
func (End) effect()             {}
func (PhaseChanged) effect()    {}
func (DeadlineChanged) effect() {}
func (WriteHold) effect()       {}
