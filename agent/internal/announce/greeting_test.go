package announce

import (
	"testing"
	"time"

	"example.com/converge/pkg/expiry"
)

// noon is an instant in a zone of its own.
var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.FixedZone("XYZ", 3600))

func TestGreeting(t *testing.T) {
	tests := []struct {
		name   string
		status expiry.Status
		others []string
		want   string
	}{
		{
			name:   "usual",
			status: expiry.Status{Deadline: noon, Remaining: 10 * time.Minute, Reason: expiry.Expired, Limit: noon.Add(6 * time.Hour)},
			want: "The session ends at 12:00:00 XYZ, 10 min from now, unless you work on.\n" +
				"It ends when the last user logs out. To keep or extend it:\n  HOLD\n" +
				"Nothing extends it past 18:00:00 XYZ.\n",
		},
		{
			name:   "company",
			status: expiry.Status{Deadline: noon, Remaining: 90 * time.Second, Reason: expiry.Expired},
			others: []string{"abc from 192.0.2.1, since 11:00:00", "abc from 192.0.2.2, since 11:01:00"},
			want: "Also here: abc from 192.0.2.1, since 11:00:00; abc from 192.0.2.2, since 11:01:00\n" +
				"The session ends at 12:00:00 XYZ, 1 min 30 s from now, unless you work on.\n" +
				"It ends when the last user logs out. To keep or extend it:\n  HOLD\n",
		},
		{
			name:   "held",
			status: expiry.Status{Deadline: noon, Remaining: time.Hour, Reason: expiry.Expired, Held: true},
			want: "The session ends at 12:00:00 XYZ, 1 h from now, unless you work on.\n" +
				"It is held: it stays when the last user logs out. To extend it:\n  HOLD\n",
		},
		{
			name:   "kept",
			status: expiry.Status{Deadline: noon, Remaining: time.Hour, Reason: expiry.Expired, Keep: true, Held: true},
			want: "The session ends at 12:00:00 XYZ, 1 h from now, unless you work on.\n" +
				"It stays when the last user logs out. To extend it:\n  HOLD\n",
		},
		{
			name:   "without an end",
			status: expiry.Status{},
			want:   "The session does not expire.\nIt ends when the last user logs out. To keep it:\n  HOLD\n",
		},
		{
			name:   "kept without an end",
			status: expiry.Status{Keep: true},
			want:   "The session does not expire.\nIt stays when the last user logs out.\n",
		},
		{
			name:   "near the cap",
			status: expiry.Status{Deadline: noon, Remaining: time.Minute, Reason: expiry.MaxDuration, Limit: noon},
			want: "The session ends at 12:00:00 XYZ, 1 min from now. Nothing extends it.\n" +
				"It ends when the last user logs out. To keep it:\n  HOLD\n",
		},
		{
			name:   "held near the cap",
			status: expiry.Status{Deadline: noon, Remaining: time.Minute, Reason: expiry.MaxDuration, Limit: noon, Held: true},
			want: "The session ends at 12:00:00 XYZ, 1 min from now. Nothing extends it.\n" +
				"It is held: it stays when the last user logs out.\n",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := "Welcome to this job, by way of Converge.\n" + test.want
			if got := Greeting(test.status, test.others, "HOLD"); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

func TestWarning(t *testing.T) {
	warn := expiry.Warn{Remaining: 2*time.Minute + 30*time.Second, Deadline: noon}
	for hold, want := range map[string]string{
		"HOLD": "This session ends in 2 min 30 s, at 12:00:00 XYZ. To extend it: HOLD",
		"":     "This session ends in 2 min 30 s, at 12:00:00 XYZ. Nothing extends it.",
	} {
		if got := Warning(warn, hold); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                                  "0 s",
		0:                                             "0 s",
		499 * time.Millisecond:                        "0 s",
		500 * time.Millisecond:                        "1 s",
		59*time.Second + 600*time.Millisecond:         "1 min",
		61 * time.Second:                              "1 min 1 s",
		10*time.Minute - 600*time.Millisecond:         "9 min 59 s",
		10*time.Minute - 400*time.Millisecond:         "10 min",
		10*time.Minute + 29*time.Second:               "10 min",
		59*time.Minute + 30*time.Second:               "1 h",
		time.Hour + time.Minute:                       "1 h 1 min",
		49*time.Hour + 29*time.Second:                 "49 h",
		5*time.Hour + 59*time.Minute + 59*time.Second: "6 h",
	} {
		if got := Span(d); got != want {
			t.Errorf("Span(%v) is %q, want %q", d, got, want)
		}
	}
}
