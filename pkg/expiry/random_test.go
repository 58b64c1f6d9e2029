package expiry

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	modelSeed = flag.Uint64("model.seed", 1, "first seed of the random sequences")
	modelRuns = flag.Int("model.runs", 10_000, "number of random sequences")
)

type timedEvent struct {
	clock int
	event Event
}

// sequence draws timings and events. No two events share an instant, so that no
// two users go idle at the same one.
func sequence(rnd *rand.Rand) (Config, []timedEvent) {
	pick := func(choices ...time.Duration) time.Duration { return choices[rnd.IntN(len(choices))] }
	cfg := Config{
		Expiry:       pick(0, time.Minute, 5*time.Minute, 10*time.Minute, 10*time.Minute),
		FirstConnect: pick(0, 0, 2*time.Minute, 15*time.Minute),
		Warning:      pick(0, 30*time.Second, 4*time.Minute, 5*time.Minute),
		Grace:        pick(0, 10*time.Second, 10*time.Second, time.Minute),
		MaxDuration:  pick(0, 3*time.Minute, 20*time.Minute, 30*time.Minute, 30*time.Minute),
		Keep:         rnd.IntN(5) == 0,
		Busy:         rnd.IntN(3) == 0,
	}
	var events []timedEvent
	var open []Event // what ends the things opened
	clock := 0
	for range rnd.IntN(30) {
		// Mostly in quick succession, so that users overlap; at times a pause.
		step := 1 + rnd.IntN(4)
		if rnd.IntN(5) == 0 {
			step = 1 + rnd.IntN(80)
		}
		clock += step
		user, use := UserID(rnd.IntN(3)), Use(rnd.IntN(int(uses)))
		var e Event
		switch n := rnd.IntN(100); {
		case n < 20:
			e = Login(user)
		case n < 32:
			e = Logout(user)
		case n < 52:
			e = Opened(user, use)
			open = append(open, Closed(user, use))
		case n < 70:
			e = Closed(user, use) // mostly of nothing
			if len(open) > 0 && rnd.IntN(8) > 0 {
				i := rnd.IntN(len(open))
				e = open[i]
				open = slices.Delete(open, i, i+1)
			}
		case n < 80:
			e = Activity()
		case n < 87:
			e = HoldTouched(time.Duration(rnd.IntN(200)-100) * unit)
		case n < 92:
			e = HoldRemoved()
		case n < 94:
			e = Hold()
		case n < 97:
			e = Extend(time.Duration(rnd.IntN(100)-10) * unit)
		case n < 98:
			e = Tick()
		case n < 99:
			e = Resume()
		default:
			e = Signal()
		}
		if cfg.Busy && rnd.IntN(8) == 0 {
			e = JobEnded(rnd.IntN(2) == 0)
		}
		events = append(events, timedEvent{clock, e})
	}
	return cfg, events
}

// compare runs one sequence through the model and the core, and says where they
// part.
func compare(t *testing.T, cfg Config, events []timedEvent) error {
	ref, m := newModel(cfg), start(t, cfg)
	lazy, _, _ := New(cfg, epoch) // stepped by the events alone
	var got []string
	step := func(e Event, at time.Duration) {
		for _, effect := range m.step(at, e) {
			switch effect.(type) {
			case Warn, End, WriteHold:
				got = append(got, fmt.Sprintf("%v %s", at, text(effect)))
			}
		}
	}
	check := func(after any) error {
		if !slices.Equal(got, ref.out) {
			return fmt.Errorf("at %v after %v: effects\n core:  %q\n model: %q", ref.now(), after, got, ref.out)
		}
		if c, r := viewOf(m.state), ref.view(); c != r {
			return fmt.Errorf("at %v after %v: state\n core:  %v\n model: %v", ref.now(), after, c, r)
		}
		return nil
	}
	last := 0
	if len(events) > 0 {
		last = events[len(events)-1].clock
	}
	next := 0
	// To the end of both, or far beyond all timings. After it a few units more.
	for over := 0; ref.clock < last+400 && over < 10; {
		if ref.why != None && m.state.Phase() == Ended {
			over++
		}
		ref.pass()
		for !m.wake.IsZero() && m.wake.Sub(epoch) <= ref.now() {
			step(Tick(), m.wake.Sub(epoch))
		}
		if err := check("a while"); err != nil {
			return err
		}
		if next < len(events) && events[next].clock == ref.clock {
			e := events[next].event
			next++
			ref.happen(e)
			step(e, ref.now())
			if err := check(e); err != nil {
				return err
			}
			lazy, _, _ = Step(lazy, e, epoch.Add(ref.now()))
			if a, b := brief(lazy, ref.now()), brief(m.state, ref.now()); a != b {
				return fmt.Errorf("at %v after %v: stepped late\n lazy:   %s\n prompt: %s", ref.now(), e, a, b)
			}
		}
	}
	return nil
}

// TestAgainstModel compares the core with the model over many random sequences.
// A failure prints the seed and the sequence; -model.seed repeats it.
func TestAgainstModel(t *testing.T) {
	reached := map[string]int{}
	for i := range *modelRuns {
		seed := *modelSeed + uint64(i)
		cfg, events := sequence(rand.New(rand.NewPCG(seed, 0)))
		if err := compare(t, cfg, events); err != nil {
			var b strings.Builder
			for _, e := range events {
				fmt.Fprintf(&b, "  %v %v\n", time.Duration(e.clock)*unit, e.event)
			}
			t.Fatalf("seed %d (-model.seed=%d -model.runs=1): %v\n%+v\n%s", seed, seed, err, cfg, b.String())
		}
		s := finalState(cfg, events)
		reached[s.Phase().String()]++
		reached[s.ended.String()]++
	}
	if *modelRuns < 1000 {
		return
	}
	// Sequences that never get anywhere would compare nothing.
	for r := FirstConnectTimeout; r <= Done; r++ {
		if reached[r.String()] < *modelRuns/200 {
			t.Errorf("only %d of %d sequences end by %v", reached[r.String()], *modelRuns, r)
		}
	}
	t.Logf("ends of %d sequences: %v", *modelRuns, reached)
}

// finalState runs a sequence through the core alone.
func finalState(cfg Config, events []timedEvent) State {
	s, _, _ := New(cfg, epoch)
	for _, e := range events {
		s, _, _ = Step(s, e.event, epoch.Add(time.Duration(e.clock)*unit))
	}
	s, _, _ = Step(s, Tick(), epoch.Add(100*time.Hour))
	return s
}
