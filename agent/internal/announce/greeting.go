package announce

import (
	"fmt"
	"strings"
	"time"

	"example.com/converge/pkg/expiry"
)

// Greeting returns the text for an interactive shell: who else is here, when
// the session ends and how to keep it. others are the present users but for
// the one who reads it; hold is how this platform touches .hold.
func Greeting(s expiry.Status, others []string, hold string) string {
	var b strings.Builder
	b.WriteString("Welcome to this job, by way of Converge.\n")
	if len(others) > 0 {
		fmt.Fprintf(&b, "Also here: %s\n", strings.Join(others, ", "))
	}
	switch {
	case s.Deadline.IsZero():
		b.WriteString("The session does not expire.\n")
	default:
		fmt.Fprintf(&b, "The session ends at %s, %s from now, unless you work on.\n", at(s.Deadline), Span(s.Remaining))
	}
	switch {
	case s.Keep:
		b.WriteString("It stays when the last user logs out.\n")
	case s.Held:
		b.WriteString("It is held: it stays when the last user logs out.\n")
	default:
		fmt.Fprintf(&b, "It ends when the last user logs out. To keep it, and to extend it:\n  %s\n", hold)
	}
	if !s.Limit.IsZero() {
		fmt.Fprintf(&b, "Nothing extends it past %s.\n", at(s.Limit))
	}
	return b.String()
}

// Warning returns the line for a session that is about to end.
func Warning(w expiry.Warn, hold string) string {
	return fmt.Sprintf("This session ends in %s, at %s. To extend it: %s", Span(w.Remaining), at(w.Deadline), hold)
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
