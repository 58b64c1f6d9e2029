package expiry

import (
	"slices"
	"time"
)

// sameDate is the distance below which two dates of .hold are one: an observed
// date is off by the time that the observation takes, and by the file system's
// rounding.
const sameDate = 100 * time.Millisecond

// State is all that a session's expiry depends on. It is a value: Step never
// changes the one it is given, and copies may be kept and used concurrently.
// The zero State is not usable; New makes one.
type State struct {
	cfg   Config
	start time.Time

	// All durations below are offsets from start.

	now      time.Duration // the latest instant seen
	busy     bool          // the job runs: nothing is due
	base     time.Duration // from when the timings count: 0, or the job's end
	loggedIn bool          // somebody has logged in at some time
	activity time.Duration // the last user activity, 0 for none
	held     bool          // .hold exists
	hold     time.Duration // its date, if held
	users    []user        // never changed in place: states share it
	gone     time.Duration // when the last user present went, if nobody is
	goodbye  bool          // that user left an interactive shell
	warned   time.Duration // warnings from this level up are past
	ended    Reason
}

// user is an authenticated connection.
type user struct {
	id      UserID
	open    [uses]int
	idle    time.Duration // since when nothing is open, if nothing is
	away    bool          // counts as logged out although connected
	goodbye bool          // the last session closed was a Shell
}

func (u user) holdsNothing() bool { return u.open == [uses]int{} }

// saidGoodbye tells whether u left an interactive shell, and nothing was cut
// off. Forwards do not matter: clients end them with the connection.
func (u user) saidGoodbye() bool {
	return u.goodbye && u.open[Shell] == 0 && u.open[Exec] == 0
}

// New begins a session at start. It returns what Step does. An invalid cfg
// makes an invalid session: call Config.Validate first.
func New(cfg Config, start time.Time) (State, []Effect, time.Time) {
	s := State{cfg: cfg, start: start, warned: never, busy: cfg.Busy}
	// What would have been due before the start is no news to anybody.
	deadline, _ := s.deadline()
	s.warned = cfg.passedLevel(deadline)
	return s, nil, s.wake(start)
}

// Step applies an event that happened at now. It returns the new state, the
// effects in order, and the time at which Step must be called again (with Tick)
// if nothing happens before; the zero time means that nothing is due ever. That
// time is always after now.
//
// What was due up to now happens before the event: an activity that comes after
// the deadline does not revive the session. A now before an earlier one counts
// as that one.
func Step(s State, e Event, now time.Time) (State, []Effect, time.Time) {
	if s.ended != None {
		return s, nil, time.Time{}
	}
	phaseBefore := s.Phase()
	at := max(s.now, now.Sub(s.start))
	s.advance(at)
	deadlineBefore, _ := s.deadline()

	var effects []Effect
	if s.ended == None {
		effects = s.apply(e)
		s.advance(at)
	}
	if s.ended != None {
		return s, append(effects, End{s.ended}), time.Time{}
	}

	if phase := s.Phase(); phase != phaseBefore {
		effects = append(effects, PhaseChanged{phaseBefore, phase})
	}
	deadline, _ := s.deadline()
	if deadline != deadlineBefore && e.kind != evActivity {
		changed := DeadlineChanged{Deadline: s.wall(deadline, now)}
		if deadline != never {
			changed.Remaining = deadline - s.now
		}
		effects = append(effects, changed)
	}
	passed := s.cfg.passedLevel(remaining(deadline, s.now))
	if passed < s.warned {
		effects = append(effects, Warn{deadline - s.now, s.wall(deadline, now)})
	}
	s.warned = passed // more than before if the deadline moved later: armed again
	return s, effects, s.wake(now)
}

// Phase tells where the session stands.
func (s State) Phase() Phase {
	switch {
	case s.ended != None:
		return Ended
	case !s.loggedIn:
		return Waiting
	case s.present() > 0:
		return Active
	}
	return Lingering
}

// advance moves the time to at and lets everything happen, in its order, that
// was due by then. Of two things due together the deadline comes first.
func (s *State) advance(at time.Duration) {
	for {
		deadline, why := s.deadline()
		left := s.leaving()
		idle, who := s.nextIdle()
		// What a change made due in the past is due now.
		next := max(s.now, min(deadline, left, idle))
		if next > at {
			s.now = at
			return
		}
		s.now = next
		switch {
		case deadline <= next:
			s.ended = why
			return
		case left <= next:
			s.ended = LastLogout
			return
		default:
			s.users = slices.Clone(s.users)
			s.users[who].away = true
			s.leave(s.users[who])
		}
	}
}

// apply changes the state by an event that happens at s.now.
func (s *State) apply(e Event) []Effect {
	switch e.kind {
	case evLogin:
		if s.find(e.user) >= 0 {
			break
		}
		s.arrive()
		s.users = append(slices.Clip(s.users), user{id: e.user, idle: s.now})
	case evLogout:
		if i := s.find(e.user); i >= 0 {
			u := s.users[i]
			s.users = slices.Delete(slices.Clone(s.users), i, i+1)
			if !u.away {
				s.leave(u)
			}
		}
	case evOpened:
		if i := s.find(e.user); i >= 0 && e.use < uses {
			s.users = slices.Clone(s.users)
			s.users[i].open[e.use]++
			s.users[i].away = false
			s.arrive() // who was away when the job ended comes back
		}
	case evClosed:
		if i := s.find(e.user); i >= 0 && e.use < uses && s.users[i].open[e.use] > 0 {
			s.users = slices.Clone(s.users)
			u := &s.users[i]
			u.open[e.use]--
			if e.use != Forward {
				u.goodbye = e.use == Shell
			}
			if u.holdsNothing() {
				u.idle = s.now
			}
		}
	case evActivity:
		if len(s.users) > 0 {
			s.activity = s.now
		}
	case evHoldTouched:
		date := add(s.now, e.span)
		if s.held && date > s.hold-sameDate && date < add(s.hold, sameDate) {
			break
		}
		s.held, s.hold = true, date
	case evHoldRemoved:
		s.held, s.hold = false, 0
	case evHold:
		return s.writeHold(s.now)
	case evExtend:
		if e.span <= 0 {
			break
		}
		deadline, _ := s.deadline()
		if deadline == never || s.cfg.Expiry == 0 {
			return s.writeHold(s.now) // no date of .hold could do more
		}
		return s.writeHold(add(deadline, e.span) - s.cfg.Expiry)
	case evResume:
		s.ended = Resumed
	case evSignal:
		s.ended = Signalled
	case evJobEnded:
		s.jobEnded(e.stay)
	}
	return nil
}

// arrive notes that somebody is there.
func (s *State) arrive() {
	if !s.loggedIn && s.cfg.firstConnect() > s.cfg.Expiry {
		s.activity = s.now // the formula without it may be past already
	}
	s.loggedIn = true
}

// jobEnded lets the times begin, and a session in which nobody is present begin
// anew.
func (s *State) jobEnded(stay bool) {
	if !s.busy {
		return
	}
	s.busy, s.base = false, s.now
	if s.present() > 0 {
		return
	}
	s.loggedIn = false
	if !stay && !s.held && !s.cfg.Keep {
		s.ended = Done
	}
}

// writeHold dates .hold, never earlier than it is dated already.
func (s *State) writeHold(date time.Duration) []Effect {
	if s.held {
		date = max(date, s.hold)
	}
	s.held, s.hold = true, date
	return []Effect{WriteHold{date - s.now}}
}

// leave notes that u, who is not counted as present any more, has gone.
func (s *State) leave(u user) {
	if s.present() == 0 {
		s.gone, s.goodbye = s.now, u.saidGoodbye()
	}
}

// deadline is the one formula, and the reason for which the session ends there.
func (s *State) deadline() (time.Duration, Reason) {
	if s.busy {
		return never, None
	}
	at, why := after(max(s.base, s.activity), s.cfg.Expiry), Expired
	if !s.loggedIn {
		at, why = add(s.base, s.cfg.firstConnect()), FirstConnectTimeout
	}
	if s.held {
		at = max(at, after(s.hold, s.cfg.Expiry))
	}
	if limit := s.limit(); at > limit {
		return limit, MaxDuration
	}
	return at, why
}

// limit is the deadline that nothing moves, or never.
func (s *State) limit() time.Duration {
	if s.busy {
		return never
	}
	return after(s.base, s.cfg.MaxDuration)
}

// leaving is when the last-logout rule ends the session.
func (s *State) leaving() time.Duration {
	switch {
	case s.busy || !s.loggedIn || s.held || s.cfg.Keep || s.present() > 0:
		return never
	case s.goodbye:
		return s.gone
	}
	return add(s.gone, s.cfg.Grace)
}

// nextIdle is when the next connection with nothing open counts as logged out,
// and its place in s.users.
func (s *State) nextIdle() (at time.Duration, who int) {
	at = never
	for i, u := range s.users {
		if !u.away && u.holdsNothing() && add(u.idle, IdleAfter) < at {
			at, who = add(u.idle, IdleAfter), i
		}
	}
	return at, who
}

// wake is when Step must be called next; all of it lies after s.now.
func (s *State) wake(now time.Time) time.Time {
	deadline, _ := s.deadline()
	idle, _ := s.nextIdle()
	next := min(deadline, s.leaving(), idle)
	if level := s.cfg.levelBelow(s.warned); level > 0 && deadline != never {
		next = min(next, deadline-level)
	}
	return s.clock(next, now)
}

// clock turns an offset into a time with now's wall and monotonic readings; the
// zero time for never.
func (s *State) clock(at time.Duration, now time.Time) time.Time {
	if at == never {
		return time.Time{}
	}
	return now.Add(add(at, -now.Sub(s.start)))
}

// wall is clock for people: the wall reading alone, as the wall clock stands.
func (s *State) wall(at time.Duration, now time.Time) time.Time {
	return s.clock(at, now).Round(0)
}

func (s *State) present() int {
	n := 0
	for _, u := range s.users {
		if !u.away {
			n++
		}
	}
	return n
}

func (s *State) find(id UserID) int {
	return slices.IndexFunc(s.users, func(u user) bool { return u.id == id })
}

// remaining is the time from now to a deadline, or never.
func remaining(deadline, now time.Duration) time.Duration {
	if deadline == never {
		return never
	}
	return deadline - now
}
