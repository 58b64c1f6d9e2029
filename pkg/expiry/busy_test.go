package expiry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A session that is open while the job runs has no end of its own before the
// job's.
func TestBusy(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Busy, cfg.Warning = true, 0
	const end = 8 * time.Hour // far beyond expiry and cap
	for name, test := range map[string]struct {
		before func(*machine)
		ended  Event
		after  func(*machine)
		want   string
	}{
		"success, nobody there": {ended: JobEnded(false), want: "8h0m0s end job-done"},
		"failure, nobody comes": {ended: JobEnded(true), want: "8h0m0s deadline 8h10m0s, 8h10m0s end first-connect-timeout"},
		"success, held": {
			before: func(m *machine) { m.do(time.Hour, Hold()) },
			ended:  JobEnded(false),
			want:   "1h0m0s write 0s, 8h0m0s deadline 8h10m0s, 8h10m0s end first-connect-timeout",
		},
		"success, somebody there": {
			before: func(m *machine) { m.do(time.Hour, Login(1), Opened(1, Shell)) },
			ended:  JobEnded(false),
			after:  func(m *machine) { m.do(end+time.Minute, Closed(1, Shell), Logout(1)) },
			want:   "1h0m0s waiting->active, 8h0m0s deadline 8h10m0s, 8h1m0s end last-logout",
		},
		"failure, somebody was there": {
			before: func(m *machine) {
				m.do(time.Hour, Login(1), Opened(1, Shell), Closed(1, Shell), Logout(1))
			},
			ended: JobEnded(true),
			after: func(m *machine) { m.do(end+time.Minute, Login(2), Opened(2, Shell), Closed(2, Shell), Logout(2)) },
			want: "1h0m0s waiting->active, 1h0m0s active->lingering, 8h0m0s lingering->waiting, 8h0m0s deadline 8h10m0s, " +
				"8h1m0s waiting->active, 8h1m0s end last-logout",
		},
		"failure, somebody idle comes back": {
			before: func(m *machine) { m.do(time.Hour, Login(1)) },
			ended:  JobEnded(true),
			after:  func(m *machine) { m.do(end+time.Minute, Opened(1, Exec), Closed(1, Exec), Logout(1)) },
			want: "1h0m0s waiting->active, 1h0m30s active->lingering, 8h0m0s lingering->waiting, 8h0m0s deadline 8h10m0s, " +
				"8h1m0s waiting->active, 8h1m0s active->lingering, 8h1m10s end last-logout",
		},
		"the cap counts from the job's end": {
			ended: JobEnded(true),
			after: func(m *machine) { m.do(end+time.Minute, Extend(100*time.Hour)) },
			want:  "8h0m0s deadline 8h10m0s, 8h1m0s write 99h59m0s, 8h1m0s deadline 14h0m0s, 14h0m0s end max-duration",
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t, cfg)
			if test.before != nil {
				test.before(m)
			}
			m.until(end - 1)
			if st := m.state.Status(epoch.Add(end - 1)); !st.Busy || !st.Deadline.IsZero() || !st.Limit.IsZero() {
				t.Errorf("before the job's end: %+v", st)
			}
			m.do(end, test.ended)
			if st := m.state.Status(epoch.Add(end)); st.Busy {
				t.Errorf("after the job's end: %+v", st)
			}
			if test.after != nil {
				test.after(m)
			}
			if got := m.finish(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// Do returns what came of its event, the effects being carried out.
func TestLoopDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		written := 0
		l, err := NewLoop(DefaultConfig(), func(e Effect) {
			if _, ok := e.(WriteHold); ok {
				written++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		early, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := l.Do(early, Activity()); !errors.Is(err, context.Canceled) {
			t.Errorf("Do before Run: %v", err)
		}
		over := make(chan Reason)
		go func() {
			reason, _ := l.Run(ctx)
			over <- reason
		}()
		if st, err := l.Do(ctx, Extend(time.Hour)); err != nil || written != 1 || !st.Held || st.Remaining != 70*time.Minute {
			t.Errorf("extend: %+v, %v, written %d times", st, err, written)
		}
		if st, err := l.Do(ctx, Resume()); err != nil || st.Phase != Ended || st.Reason != Resumed {
			t.Errorf("resume: %+v, %v", st, err)
		}
		if reason := <-over; reason != Resumed {
			t.Errorf("ended by %v", reason)
		}
		if st, err := l.Do(ctx, Hold()); !errors.Is(err, ErrOver) || st.Phase != Ended {
			t.Errorf("hold after the end: %+v, %v", st, err)
		}
	})
}
