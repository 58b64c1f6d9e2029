package announce

import (
	"fmt"
	"strings"
	"time"

	"example.com/converge/pkg/expiry"
)

// Greeting returns the text for an interactive shell: who else is here, when
// the session ends and how to keep it. others are the present users but for
// the one who reads it; hold is the command that touches .hold.
func Greeting(s expiry.Status, others []string, hold string) string {
	var b strings.Builder
	b.WriteString("Welcome to this job, by way of Converge.\n")
	if len(others) > 0 {
		fmt.Fprintf(&b, "Also here: %s\n", strings.Join(others, "; "))
	}
	expires := !s.Deadline.IsZero()
	capped := expires && s.Reason == expiry.MaxDuration
	switch {
	case s.Busy:
		b.WriteString("The job's command is still running; the session does not end before it.\n")
	case capped:
		fmt.Fprintf(&b, "The session ends at %s, %s from now. Nothing extends it.\n", At(s.Deadline, s.Remaining), Span(s.Remaining))
	case expires:
		fmt.Fprintf(&b, "The session ends at %s, %s from now, unless you work on.\n", At(s.Deadline, s.Remaining), Span(s.Remaining))
	default:
		b.WriteString("The session does not expire.\n")
	}
	var use []string
	switch {
	case s.Keep:
		b.WriteString("It stays when the last user logs out.")
	case s.Busy && s.Held:
		b.WriteString("It is held: it stays after the command, too.")
	case s.Busy:
		b.WriteString("If the command fails, or you are here, it stays for you. When the command has ended, it ends when the last user logs out.")
		use = append(use, "keep")
	case s.Held:
		b.WriteString("It is held: it stays when the last user logs out.")
	default:
		b.WriteString("It ends when the last user logs out.")
		use = append(use, "keep")
	}
	if expires && !capped {
		use = append(use, "extend")
	}
	if len(use) > 0 {
		fmt.Fprintf(&b, " To %s it:\n  %s", strings.Join(use, " or "), hold)
	}
	b.WriteString("\n")
	if !s.Limit.IsZero() && !capped {
		fmt.Fprintf(&b, "Nothing extends it past %s.\n", At(s.Limit, s.Limit.Sub(s.Deadline)+s.Remaining))
	}
	return b.String()
}

// Warning returns the line for a session that is about to end. hold is the
// command that touches .hold; "" where that would not help.
func Warning(w expiry.Warn, hold string) string {
	text := fmt.Sprintf("This session ends in %s, at %s. ", Span(w.Remaining), At(w.Deadline, w.Remaining))
	if hold == "" {
		return text + "Nothing extends it."
	}
	return text + "To extend it: " + hold
}

// at formats an instant with its time zone.
func at(t time.Time) string { return t.Format("15:04:05 MST") }

// Span words a duration, to the second below ten minutes and to the minute
// above.
func Span(d time.Duration) string {
	if d < 10*time.Minute {
		d = d.Round(time.Second)
	} else {
		d = d.Round(time.Minute)
	}
	hours, minutes, seconds := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	var parts []string
	for _, p := range []struct {
		n    int
		unit string
	}{{hours, "h"}, {minutes, "min"}, {seconds, "s"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.unit))
		}
	}
	if len(parts) == 0 {
		return "0 s"
	}
	return strings.Join(parts, " ")
}
