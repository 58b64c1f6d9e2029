package announce

import (
	"fmt"
	"strings"
	"time"

	"example.com/converge/pkg/expiry"
)

// Outlook returns, in one line, when the session ends and what keeps it: the
// answer to hold, extend and status.
func Outlook(s expiry.Status) string {
	if s.Phase == expiry.Ended {
		return s.Reason.Sentence()
	}
	var b strings.Builder
	switch {
	case s.Busy:
		b.WriteString("The job's command is still running; the session does not end before it.")
	case s.Deadline.IsZero():
		b.WriteString("The session does not expire.")
	default:
		fmt.Fprintf(&b, "The session ends at %s, %s from now", At(s.Deadline, s.Remaining), Span(s.Remaining))
		switch s.Reason {
		case expiry.MaxDuration:
			b.WriteString(": nothing extends it further.")
		case expiry.LastLogout:
			b.WriteString(", unless somebody logs in.")
		case expiry.FirstConnectTimeout:
			b.WriteString(", unless somebody logs in or extends it.")
		default:
			b.WriteString(", unless its users work on or extend it.")
		}
	}
	switch {
	case s.Keep:
		b.WriteString(" It stays when the last user logs out.")
	case s.Held:
		b.WriteString(" It is held: it stays when the last user logs out.")
	}
	return b.String()
}

// Commands returns the line of a greeting that names the agent's own commands;
// agent is how a shell of the job calls it, "" where it cannot.
func Commands(agent string) string {
	if agent == "" {
		return ""
	}
	return fmt.Sprintf("More: %s extend 30m (or hold, status, share, resume to end it)\n", agent)
}

// At formats an instant with its time zone, and with its date if it lies on
// another day than now does. remaining is its distance from now.
func At(t time.Time, remaining time.Duration) string {
	year, month, day := t.Date()
	if y, m, d := t.Add(-remaining).Date(); y != year || m != month || d != day {
		return t.Format("2006-01-02 15:04:05 MST")
	}
	return at(t)
}
