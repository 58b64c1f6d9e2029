// Package pagetime says times as a web page has them: how far away they are, in
// words, and exactly, for programs. It knows no page.
package pagetime

import (
	"fmt"
	"time"
)

// Time is an instant: Exact by RFC 3339, in UTC, and Said in words. The zero value
// is none.
type Time struct{ Exact, Said string }

// Since says how long ago t was, such as "5 min".
func Since(t, now time.Time) Time { return Time{exact(t), Span(now.Sub(t))} }

// Until says when t will be, such as "in 5 min", and "now" from then on.
func Until(t, now time.Time) Time {
	if d := t.Sub(now); d > 0 {
		return Time{exact(t), "in " + Span(d)}
	}
	return Time{exact(t), "now"}
}

func exact(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Span says a duration with one or two figures: nobody looks at the others, and a
// page that says little changes seldom.
func Span(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "a moment"
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d/(10*time.Second))*10)
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d", int(d/time.Hour), int(d/time.Minute)%60)
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
