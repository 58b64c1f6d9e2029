package expiry

import (
	"slices"
	"time"
)

// Status is what a login text, a status command or a sessions page shows.
type Status struct {
	// Phase is where the session stands.
	Phase Phase
	// Users are those present, in ascending order.
	Users []UserID
	// Held tells whether .hold keeps the session, Keep whether the
	// configuration does.
	Held, Keep bool
	// Busy tells that the job still runs, so that nothing is due.
	Busy bool
	// Start is when the session began.
	Start time.Time
	// Deadline is when the session ends if nothing happens, by the wall clock
	// as it stands; the zero time means that it does not. During the grace
	// after the last logout it is the end of the grace.
	Deadline time.Time
	// Remaining is the time to Deadline, never negative; 0 if there is none.
	Remaining time.Duration
	// Limit is the deadline that nothing extends (start + MaxDuration), by the
	// wall clock as it stands; the zero time if there is no cap (yet).
	Limit time.Time
	// Reason is why the session will end at Deadline or, once Ended, why it did.
	Reason Reason
}

// Status describes the state as of now. It shares nothing with the state.
func (s State) Status(now time.Time) Status {
	st := Status{
		Phase:  s.Phase(),
		Held:   s.held,
		Keep:   s.cfg.Keep,
		Start:  s.start.Round(0),
		Busy:   s.busy && s.ended == None,
		Limit:  s.wall(s.limit(), now),
		Reason: s.ended,
	}
	for _, u := range s.users {
		if !u.away {
			st.Users = append(st.Users, u.id)
		}
	}
	slices.Sort(st.Users)
	if s.ended != None {
		return st
	}
	at, why := s.deadline()
	if left := s.leaving(); left < at {
		at, why = left, LastLogout
	}
	if at != never {
		st.Deadline, st.Reason = s.wall(at, now), why
		st.Remaining = max(0, add(at, -now.Sub(s.start)))
	}
	return st
}
