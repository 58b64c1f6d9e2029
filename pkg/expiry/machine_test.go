package expiry

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// epoch is the start of all sessions in the tests of the core.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// machine drives the core by the clock as the loop does: ticks come on time.
type machine struct {
	t     testing.TB
	state State
	wake  time.Time
	trace []string // effects with their times
}

func start(t testing.TB, cfg Config) *machine {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t}
	var effects []Effect
	m.state, effects, m.wake = New(cfg, epoch)
	if len(effects) != 0 {
		t.Fatalf("effects at the start: %v", effects)
	}
	return m
}

// step applies one event at an offset, with no ticks before it.
func (m *machine) step(at time.Duration, e Event) []Effect {
	var effects []Effect
	now := epoch.Add(at)
	m.state, effects, m.wake = Step(m.state, e, now)
	if !m.wake.IsZero() && !m.wake.After(now) {
		m.t.Fatalf("%v at %v: the next wake-up %v is not in the future", e, at, m.wake.Sub(epoch))
	}
	for _, effect := range effects {
		m.trace = append(m.trace, fmt.Sprintf("%v %s", at, text(effect)))
	}
	return effects
}

// until ticks at every wake-up up to an offset, that included.
func (m *machine) until(at time.Duration) {
	for n := 0; !m.wake.IsZero() && !m.wake.After(epoch.Add(at)); n++ {
		if n > 1000 {
			m.t.Fatalf("more than 1000 wake-ups before %v", at)
		}
		m.step(m.wake.Sub(epoch), Tick())
	}
}

// do lets the time run to an offset and applies events there.
func (m *machine) do(at time.Duration, events ...Event) {
	m.t.Helper()
	m.until(at)
	for _, e := range events {
		m.step(at, e)
	}
}

// finish lets the time run until nothing is due and returns the trace so far.
func (m *machine) finish() string {
	m.t.Helper()
	m.until(1000 * time.Hour)
	return strings.Join(m.trace, ", ")
}

// text writes an effect with offsets.
func text(effect Effect) string {
	offset := func(at time.Time) string {
		if at.IsZero() {
			return "never"
		}
		return at.Sub(epoch).String()
	}
	switch e := effect.(type) {
	case Warn:
		return fmt.Sprintf("warn %v (%s)", e.Remaining, offset(e.Deadline))
	case End:
		return fmt.Sprintf("end %v", e.Reason)
	case PhaseChanged:
		return fmt.Sprintf("%v->%v", e.From, e.To)
	case DeadlineChanged:
		return fmt.Sprintf("deadline %s", offset(e.Deadline))
	case WriteHold:
		return fmt.Sprintf("write %v", e.Ahead)
	}
	return fmt.Sprintf("unknown effect %T", effect)
}

// brief writes what a Status says.
func brief(s State, at time.Duration) string {
	st := s.Status(epoch.Add(at))
	end := "never"
	if !st.Deadline.IsZero() {
		end = st.Deadline.Sub(epoch).String()
	}
	return fmt.Sprintf("%v %v %s %v", st.Phase, st.Users, end, st.Reason)
}
