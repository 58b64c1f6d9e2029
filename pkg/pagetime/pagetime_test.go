package pagetime

import (
	"testing"
	"time"
)

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "a moment", 9 * time.Second: "a moment", 59 * time.Second: "50 s", 61 * time.Second: "1 min",
		90 * time.Minute: "1 h 30", 47 * time.Hour: "47 h 00", 72 * time.Hour: "3 days",
	} {
		if got := Span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestTimes(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.FixedZone("", 3600))
	const exact = "2026-03-04T04:06:07Z"
	if got := Since(at, at.Add(5*time.Minute)); got != (Time{exact, "5 min"}) {
		t.Errorf("%+v", got)
	}
	for before, want := range map[time.Duration]string{5 * time.Minute: "in 5 min", 0: "now", -time.Hour: "now"} {
		if got := Until(at, at.Add(-before)); got != (Time{exact, want}) {
			t.Errorf("%v before: %+v, want %q", before, got, want)
		}
	}
}
