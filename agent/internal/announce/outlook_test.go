package announce

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"example.com/converge/pkg/expiry"
)

func TestOutlook(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, zone)
	in := func(d time.Duration, why expiry.Reason) expiry.Status {
		return expiry.Status{Phase: expiry.Active, Deadline: noon.Add(d), Remaining: d, Reason: why}
	}
	held := in(time.Hour, expiry.Expired)
	held.Held = true
	kept := expiry.Status{Keep: true}
	for _, test := range []struct {
		status expiry.Status
		want   string
	}{
		{in(10*time.Minute, expiry.Expired), "The session ends at 12:10:00 CET, 10 min from now, unless its users work on or extend it."},
		{in(13*time.Hour, expiry.Expired), "The session ends at 2026-03-02 01:00:00 CET, 13 h from now, unless its users work on or extend it."},
		{in(time.Minute, expiry.FirstConnectTimeout), "The session ends at 12:01:00 CET, 1 min from now, unless somebody logs in or extends it."},
		{in(5*time.Second, expiry.LastLogout), "The session ends at 12:00:05 CET, 5 s from now, unless somebody logs in."},
		{in(5*time.Hour, expiry.MaxDuration), "The session ends at 17:00:00 CET, 5 h from now: nothing extends it further."},
		{held, "The session ends at 13:00:00 CET, 1 h from now, unless its users work on or extend it. It is held: it stays when the last user logs out."},
		{kept, "The session does not expire. It stays when the last user logs out."},
		{expiry.Status{Busy: true}, "The job's command is still running; the session does not end before it."},
		{expiry.Status{Phase: expiry.Ended, Reason: expiry.Resumed}, "The session ended because it was told to resume the job."},
	} {
		if got := Outlook(test.status); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}

// While the job runs a greeting promises no end that does not come.
func TestGreetingWhileBusy(t *testing.T) {
	text := Greeting(expiry.Status{Busy: true}, nil, "HOLD")
	for _, want := range []string{"The job's command is still running", "If the command fails, or you are here, it stays", "To keep it:\n  HOLD"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	if held := Greeting(expiry.Status{Busy: true, Held: true}, nil, "HOLD"); !strings.Contains(held, "it stays after the command, too") || strings.Contains(held, "HOLD") {
		t.Errorf("%q", held)
	}
}

func TestCommands(t *testing.T) {
	if got := Commands(""); got != "" {
		t.Errorf("without a program: %q", got)
	}
	if got := Commands(AgentCommand); !strings.Contains(got, AgentVariable) || !strings.HasSuffix(got, "\n") || strings.Count(got, "\n") != 1 ||
		runtime.GOOS != "windows" && len(got) > 80 {
		t.Errorf("%d letters: %q", len(got), got)
	}
}
