package expiry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// session is a Loop running inside a synctest bubble, with its effects written
// down with their times.
type session struct {
	*Loop
	t     *testing.T
	begin time.Time
	stop  context.CancelFunc

	mu    sync.Mutex
	trace []string

	reason Reason // set by the goroutine that runs: Wait after Done
	err    error
}

func run(t *testing.T, cfg Config) *session {
	t.Helper()
	s := &session{t: t, begin: time.Now()}
	var err error
	s.Loop, err = NewLoop(cfg, func(effect Effect) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trace = append(s.trace, fmt.Sprintf("%v %s", time.Since(s.begin), s.text(effect)))
	})
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	t.Cleanup(func() { s.stop(); <-s.Done() })
	go func() { s.reason, s.err = s.Run(ctx) }()
	return s
}

// text is the tests' text with offsets from the bubble's start.
func (s *session) text(effect Effect) string {
	switch e := effect.(type) {
	case Warn:
		e.Deadline = epoch.Add(e.Deadline.Sub(s.begin.Round(0)))
		effect = e
	case DeadlineChanged:
		if !e.Deadline.IsZero() {
			e.Deadline = epoch.Add(e.Deadline.Sub(s.begin.Round(0)))
		}
		effect = e
	}
	return text(effect)
}

func (s *session) effects() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.trace, ", ")
}

// at sleeps until an offset and sends events there.
func (s *session) at(offset time.Duration, events ...Event) {
	time.Sleep(offset - time.Since(s.begin))
	for _, e := range events {
		s.Send(e)
	}
	synctest.Wait()
}

// ends waits for the end and checks when and why it came, and all effects.
func (s *session) ends(at time.Duration, reason Reason, effects string) {
	s.t.Helper()
	<-s.Done()
	synctest.Wait()
	if took := time.Since(s.begin); took != at || s.reason != reason || s.err != nil {
		s.t.Errorf("ended at %v by %v, %v; want %v by %v", took, s.reason, s.err, at, reason)
	}
	if got := s.effects(); got != effects {
		s.t.Errorf("effects:\ngot  %s\nwant %s", got, effects)
	}
	if st := s.Snapshot(); st.Phase != Ended || st.Reason != reason || !st.Deadline.IsZero() {
		s.t.Errorf("snapshot after the end: %+v", st)
	}
}

func TestLoopWarnsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, DefaultConfig())
		s.ends(10*time.Minute, FirstConnectTimeout, "5m0s warn 5m0s (10m0s), 7m30s warn 2m30s (10m0s), "+
			"8m45s warn 1m15s (10m0s), 10m0s end first-connect-timeout")
	})
}

func TestLoopGoodbyeIsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, DefaultConfig())
		s.at(time.Minute, Login(1), Opened(1, Shell))
		s.at(2*time.Minute, Closed(1, Shell), Logout(1))
		s.ends(2*time.Minute, LastLogout, "1m0s waiting->active, 2m0s end last-logout")
	})
}

func TestLoopGraceAndLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, DefaultConfig())
		s.at(time.Minute, Login(1), Opened(1, Exec), Closed(1, Exec), Logout(1))
		st := s.Snapshot()
		if st.Phase != Lingering || st.Remaining != 10*time.Second || st.Reason != LastLogout || len(st.Users) != 0 {
			t.Errorf("in the grace: %+v", st)
		}
		s.at(time.Minute+9*time.Second, Login(2), Opened(2, Exec), Login(7), Opened(7, Shell))
		if st := s.Snapshot(); st.Phase != Active || !slices.Equal(st.Users, []UserID{2, 7}) {
			t.Errorf("after the second login: %+v", st)
		}
		s.at(2*time.Minute, Closed(7, Shell), Logout(7), Closed(2, Exec), Logout(2))
		s.ends(2*time.Minute+10*time.Second, LastLogout, "1m0s waiting->active, 1m0s active->lingering, "+
			"1m9s lingering->active, 2m0s active->lingering, 2m10s end last-logout")
	})
}

func TestLoopControlPersist(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, DefaultConfig())
		s.at(time.Minute, Login(1), Opened(1, Exec), Closed(1, Exec))
		s.ends(time.Minute+40*time.Second, LastLogout,
			"1m0s waiting->active, 1m30s active->lingering, 1m40s end last-logout")
	})
}

func TestLoopActivityHoldAndCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Warning = 0
		s := run(t, cfg)
		s.at(time.Minute, Login(1), Opened(1, Shell))
		for i := range 100 { // a key every second
			s.at(2*time.Minute+time.Duration(i)*time.Second, Activity())
		}
		st := s.Snapshot()
		end := s.begin.Add(13*time.Minute + 39*time.Second)
		if st.Remaining != 10*time.Minute || !st.Deadline.Equal(end) || st.Held || st.Reason != Expired ||
			!st.Limit.Equal(s.begin.Add(6*time.Hour)) || !st.Start.Equal(s.begin) {
			t.Errorf("after activity: %+v", st)
		}
		s.at(4*time.Minute, HoldTouched(time.Hour))
		if st := s.Snapshot(); !st.Held || st.Remaining != 70*time.Minute {
			t.Errorf("held: %+v", st)
		}
		s.at(5*time.Minute, HoldRemoved())
		s.at(6*time.Minute, Extend(20*time.Minute))
		s.at(7*time.Minute, Closed(1, Shell), Logout(1))
		s.at(8*time.Minute, Resume())
		s.ends(8*time.Minute, Resumed, "1m0s waiting->active, 4m0s deadline 1h14m0s, 5m0s deadline 13m39s, "+
			"6m0s write 17m39s, 6m0s deadline 33m39s, 7m0s active->lingering, 8m0s end resumed")
	})
}

func TestLoopWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := run(t, Config{Keep: true})
		s.at(1000*time.Hour, Login(1), Logout(1))
		if st := s.Snapshot(); st.Phase != Lingering || !st.Keep || !st.Deadline.IsZero() || !st.Limit.IsZero() || st.Reason != None {
			t.Errorf("%+v", st)
		}
		s.at(2000*time.Hour, Signal())
		s.ends(2000*time.Hour, Signalled, "1000h0m0s waiting->active, 1000h0m0s active->lingering, 2000h0m0s end signal")
	})
}

func TestLoopCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		loop, err := NewLoop(DefaultConfig(), func(effect Effect) { t.Errorf("effect %v", effect) })
		if err != nil {
			t.Fatal(err)
		}
		why := errors.New("the command succeeded")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			time.Sleep(time.Minute)
			cancel(why)
		}()
		if reason, err := loop.Run(ctx); reason != None || !errors.Is(err, why) {
			t.Errorf("Run gave %v, %v", reason, err)
		}
		<-loop.Done()
		if _, err := loop.Run(t.Context()); !errors.Is(err, ErrRun) {
			t.Errorf("second Run: %v", err)
		}
		for range 2 * maxQueued {
			loop.Send(Login(1))
		}
		if st := loop.Snapshot(); st.Phase != Waiting || len(loop.queue) != 0 {
			t.Errorf("Send after the end changed the session: %+v", st)
		}
	})
}

// What was sent before Run is not lost, and has its time.
func TestLoopSendBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Warning = 0
		loop, err := NewLoop(cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		loop.Send(Login(1))
		loop.Send(Opened(1, Forward))
		if st := loop.Snapshot(); st.Phase != Waiting || st.Remaining != 10*time.Minute {
			t.Errorf("before Run: %+v", st)
		}
		time.Sleep(3 * time.Minute)
		loop.Send(Activity())
		time.Sleep(time.Minute)
		if reason, err := loop.Run(t.Context()); reason != Expired || err != nil {
			t.Errorf("Run gave %v, %v", reason, err)
		}
		if took := time.Since(begin); took != 13*time.Minute {
			t.Errorf("ended after %v, want 13m", took)
		}
	})
}

// While handle blocks nothing that was in time comes too late: each activity
// below is before the deadline that the one before it sets.
func TestLoopLateRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		first := true
		loop, err := NewLoop(Config{Expiry: 10 * time.Minute}, func(Effect) {
			if first {
				first = false
				<-block
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		result := make(chan Reason)
		go func() {
			reason, _ := loop.Run(t.Context())
			result <- reason
		}()
		loop.Send(Login(1))
		loop.Send(Opened(1, Exec))
		for range 100 {
			time.Sleep(9 * time.Second)
			for range 100 { // a burst is one or two
				loop.Send(Activity())
			}
		}
		loop.mu.Lock()
		queued := len(loop.queue)
		loop.mu.Unlock()
		if queued > 1+2*100 {
			t.Errorf("%d events queued after 100 bursts", queued)
		}
		close(block)
		if reason := <-result; reason != Expired || time.Since(begin) != 25*time.Minute {
			t.Errorf("ended by %v after %v, want expired after 25m", reason, time.Since(begin))
		}
	})
}

// A full queue holds its senders back, and both ways out of that work.
func TestLoopFullQueue(t *testing.T) {
	for _, end := range []bool{false, true} {
		t.Run(fmt.Sprintf("end=%v", end), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				block := make(chan struct{})
				blocked := false
				loop, err := NewLoop(Config{Expiry: time.Hour, Keep: true}, func(Effect) {
					if !blocked {
						blocked = true
						<-block
					}
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go loop.Run(ctx)
				if end {
					loop.Send(Resume())
				} else {
					loop.Send(Login(1))
				}
				synctest.Wait() // handle blocks now

				var sending sync.WaitGroup
				for range 4 {
					sending.Go(func() {
						for range maxQueued {
							loop.Send(Opened(1, Exec))
						}
					})
				}
				synctest.Wait()
				loop.mu.Lock()
				queued := len(loop.queue)
				loop.mu.Unlock()
				if queued != maxQueued {
					t.Errorf("%d events queued, want %d", queued, maxQueued)
				}
				close(block)
				sending.Wait()
				synctest.Wait()
				st := loop.Snapshot()
				if end && st.Reason != Resumed {
					t.Errorf("after the end: %+v", st)
				}
				cancel()
				<-loop.Done()
				if end {
					return
				}
				if opened := loop.state.users[0].open[Exec]; opened != 4*maxQueued {
					t.Errorf("%d of %d events arrived", opened, 4*maxQueued)
				}
			})
		})
	}
}

// Many senders and readers at once; every login finds its logout.
func TestLoopConcurrentSenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Warning, cfg.Keep = 0, true
		s := run(t, cfg)
		var senders sync.WaitGroup
		for g := range 50 {
			senders.Go(func() {
				for i := range 20 {
					id := UserID(g*20 + i)
					for _, e := range []Event{Login(id), Opened(id, Exec), Activity(), Activity(), Activity(), Closed(id, Exec), Logout(id)} {
						s.Send(e)
					}
					if st := s.Snapshot(); st.Phase == Ended {
						t.Errorf("%+v", st)
					}
				}
			})
		}
		senders.Wait()
		synctest.Wait()
		if st := s.Snapshot(); st.Phase != Lingering || len(st.Users) != 0 || st.Remaining != 10*time.Minute {
			t.Errorf("at last: %+v", st)
		}
		s.at(time.Minute, Login(1), Opened(1, Exec), Activity())
		<-s.Done()
		synctest.Wait()
		if took := time.Since(s.begin); took != 11*time.Minute || s.reason != Expired {
			t.Errorf("ended after %v by %v", took, s.reason)
		}
	})
}

// handle sees the state that its effect belongs to.
func TestLoopSnapshotInHandle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var loop *Loop
		var seen []Phase
		loop, err := NewLoop(Config{}, func(Effect) { seen = append(seen, loop.Snapshot().Phase) })
		if err != nil {
			t.Fatal(err)
		}
		loop.Send(Login(1))
		loop.Send(Logout(1))
		if reason, err := loop.Run(t.Context()); reason != LastLogout || err != nil {
			t.Fatalf("Run gave %v, %v", reason, err)
		}
		if want := []Phase{Active, Ended}; !slices.Equal(seen, want) {
			t.Errorf("saw %v, want %v", seen, want)
		}
	})
}
