package expiry

import (
	"fmt"
	"math"
	"time"
)

const (
	// IdleAfter is how long a connection with nothing open (no session, no
	// forward) still counts as present. An ssh ControlPersist master that
	// merely stays connected counts as logged out after it, and as present
	// again as soon as it opens something.
	IdleAfter = 30 * time.Second

	// lastWarning is the smallest remaining time at which the halving of
	// warnings stops.
	lastWarning = time.Minute

	// never is the offset of an instant that does not come.
	never time.Duration = math.MaxInt64
)

// Config holds the timings of a session. The zero value is usable: it never
// expires, has no cap, warns of nothing, and ends at the last logout.
type Config struct {
	// Expiry is how long the session stays after the latest of its start, the
	// last user activity and the date of .hold. 0 means no expiry.
	Expiry time.Duration
	// FirstConnect is how long after the start somebody must have logged in.
	// It takes the place of start + Expiry while nobody has. 0 means the same
	// as Expiry. Where it is longer than Expiry the first login counts as
	// activity, since start + Expiry may be past by then.
	FirstConnect time.Duration
	// Warning is the remaining time at which users are first warned; further
	// warnings follow at its halves down to 1 minute. It is shortened to half
	// of Expiry (or of MaxDuration, if that is shorter) where it is not
	// smaller than that. 0 means no warnings.
	Warning time.Duration
	// Grace is how long the session stays after the last logout of a user who
	// did not leave an interactive shell. 0 means not at all.
	Grace time.Duration
	// MaxDuration caps the whole session, counted from its start, whatever
	// activity and .hold say. 0 means no cap.
	MaxDuration time.Duration
	// Keep turns the last-logout rule off: only Resume, a signal, the expiry
	// and the cap end the session then.
	Keep bool
	// Busy says that the job itself still runs when the session begins: until
	// JobEnded nothing but Resume and Signal ends the session, since it is not
	// what the job waits for, and all times above count from that moment in
	// place of the start.
	Busy bool
}

// DefaultConfig gives the default timings: 10 minutes of expiry, a warning 5
// minutes before, 10 seconds of grace and a cap of 6 hours.
func DefaultConfig() Config {
	return Config{
		Expiry:      10 * time.Minute,
		Warning:     5 * time.Minute,
		Grace:       10 * time.Second,
		MaxDuration: 6 * time.Hour,
	}
}

// Validate refuses negative durations. The error is one sentence that names
// the timing and what to give in its place.
func (c Config) Validate() error {
	for _, d := range []struct {
		name, hint string
		value      time.Duration
	}{
		{"expiry", "0 means no expiry", c.Expiry},
		{"first-connect timeout", "0 means the same as the expiry", c.FirstConnect},
		{"warning time", "0 means no warnings", c.Warning},
		{"grace", "0 means none", c.Grace},
		{"maximum duration", "0 means no cap", c.MaxDuration},
	} {
		if d.value < 0 {
			return fmt.Errorf("check timings: the %s is negative (%v): give a positive duration, or 0 (%s)", d.name, d.value, d.hint)
		}
	}
	return nil
}

// firstConnect is the limit for the first login, or never.
func (c Config) firstConnect() time.Duration {
	if c.FirstConnect > 0 {
		return c.FirstConnect
	}
	return after(0, c.Expiry)
}

// warning is the first warning's remaining time after shortening. It is
// strictly smaller than the expiry, since otherwise every key typed would bring
// a warning.
func (c Config) warning() time.Duration {
	shortest := min(after(0, c.Expiry), after(0, c.MaxDuration))
	if c.Warning >= shortest {
		return shortest / 2
	}
	return c.Warning
}

// levels yields the remaining times at which users are warned, falling.
func (c Config) levels(yield func(time.Duration) bool) {
	level := c.warning()
	if level <= 0 || !yield(level) {
		return
	}
	for level /= 2; level >= lastWarning; level /= 2 {
		if !yield(level) {
			return
		}
	}
}

// passedLevel is the smallest level that is not below remaining: the last one
// to have been due. It is never if none was.
func (c Config) passedLevel(remaining time.Duration) time.Duration {
	passed := never
	for level := range c.levels {
		if level < remaining {
			break
		}
		passed = level
	}
	return passed
}

// levelBelow is the next level to come once those from level up are past, or 0.
func (c Config) levelBelow(level time.Duration) time.Duration {
	for l := range c.levels {
		if l < level {
			return l
		}
	}
	return 0
}

// after is at + d, where d = 0 stands for no limit and overflow for never.
func after(at, d time.Duration) time.Duration {
	if d == 0 {
		return never
	}
	return add(at, d)
}

// add is a + b, limited to never; at least one of them is not negative, so it
// cannot underflow.
func add(a, b time.Duration) time.Duration {
	if a > 0 && b > never-a {
		return never
	}
	return a + b
}
