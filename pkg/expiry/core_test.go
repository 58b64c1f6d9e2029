package expiry

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// The table: every state × every event, all at 4 minutes, with the defaults.
func TestEveryStateAndEvent(t *testing.T) {
	const at = 4 * time.Minute
	states := []struct {
		name  string
		setup func(*machine)
	}{
		{"waiting", func(m *machine) {}},
		{"active", func(m *machine) {
			m.do(time.Minute, Login(1), Opened(1, Shell))
		}},
		{"in-grace", func(m *machine) {
			m.do(3*time.Minute+50*time.Second, Login(1), Opened(1, Exec), Closed(1, Exec))
			m.do(3*time.Minute+55*time.Second, Logout(1))
		}},
		{"held", func(m *machine) {
			m.do(2*time.Minute, HoldTouched(0))
			m.do(3*time.Minute, Login(1), Opened(1, Shell), Closed(1, Shell), Logout(1))
		}},
		{"away", func(m *machine) { // connected, nothing open, held by .hold
			m.do(2*time.Minute, HoldTouched(0))
			m.do(3*time.Minute, Login(1))
		}},
		{"busy", func(m *machine) {
			m.state, _, m.wake = New(Config{Expiry: 10 * time.Minute, MaxDuration: time.Hour, Busy: true}, epoch)
			m.do(time.Minute, Login(1), Opened(1, Shell))
			m.do(2*time.Minute, Closed(1, Shell), Logout(1))
		}},
		{"ended", func(m *machine) {
			m.do(time.Minute, Resume())
		}},
	}
	events := map[string]Event{
		"tick": Tick(), "login": Login(2), "logout": Logout(1),
		"opened": Opened(1, Exec), "closed": Closed(1, Shell), "activity": Activity(),
		"touched": HoldTouched(time.Hour), "removed": HoldRemoved(),
		"hold": Hold(), "extend": Extend(30 * time.Minute), "resume": Resume(), "signal": Signal(),
		"job-ended": JobEnded(true),
	}
	const (
		waiting = "waiting [] 10m0s first-connect-timeout: "
		active  = "active [1] 10m0s expired: "
		grace   = "lingering [] 4m5s last-logout: "
		held    = "lingering [] 12m0s expired: "
		busy    = "lingering [] never none: "
		over    = "ended [] never resumed: "
	)
	want := map[string]map[string]string{
		"waiting": {
			"tick":      waiting,
			"login":     "active [2] 10m0s expired: waiting->active",
			"logout":    waiting,
			"opened":    waiting,
			"closed":    waiting,
			"activity":  waiting,
			"touched":   "waiting [] 1h14m0s first-connect-timeout: deadline 1h14m0s",
			"removed":   waiting,
			"hold":      "waiting [] 14m0s first-connect-timeout: write 0s, deadline 14m0s",
			"extend":    "waiting [] 40m0s first-connect-timeout: write 26m0s, deadline 40m0s",
			"resume":    "ended [] never resumed: end resumed",
			"signal":    "ended [] never signal: end signal",
			"job-ended": waiting,
		},
		"active": {
			"tick":      active,
			"login":     "active [1 2] 10m0s expired: ",
			"logout":    "lingering [] 4m10s last-logout: active->lingering", // cut off
			"opened":    active,
			"closed":    active, // its connection is still there
			"activity":  "active [1] 14m0s expired: ",
			"touched":   "active [1] 1h14m0s expired: deadline 1h14m0s",
			"removed":   active,
			"hold":      "active [1] 14m0s expired: write 0s, deadline 14m0s",
			"extend":    "active [1] 40m0s expired: write 26m0s, deadline 40m0s",
			"resume":    "ended [1] never resumed: end resumed",
			"signal":    "ended [1] never signal: end signal",
			"job-ended": active,
		},
		"in-grace": {
			"tick":      grace,
			"login":     "active [2] 10m0s expired: lingering->active",
			"logout":    grace,
			"opened":    grace,
			"closed":    grace,
			"activity":  grace, // nobody is there
			"touched":   "lingering [] 1h14m0s expired: deadline 1h14m0s",
			"removed":   grace,
			"hold":      "lingering [] 14m0s expired: write 0s, deadline 14m0s",
			"extend":    "lingering [] 40m0s expired: write 26m0s, deadline 40m0s",
			"resume":    "ended [] never resumed: end resumed",
			"signal":    "ended [] never signal: end signal",
			"job-ended": grace,
		},
		"held": {
			"tick":      held,
			"login":     "active [2] 12m0s expired: lingering->active",
			"logout":    held,
			"opened":    held,
			"closed":    held,
			"activity":  held,
			"touched":   "lingering [] 1h14m0s expired: deadline 1h14m0s",
			"removed":   "ended [] never last-logout: end last-logout",
			"hold":      "lingering [] 14m0s expired: write 0s, deadline 14m0s",
			"extend":    "lingering [] 42m0s expired: write 28m0s, deadline 42m0s",
			"resume":    "ended [] never resumed: end resumed",
			"signal":    "ended [] never signal: end signal",
			"job-ended": held,
		},
		"away": {
			"tick":      held,
			"login":     "active [2] 12m0s expired: lingering->active",
			"logout":    held,
			"opened":    "active [1] 12m0s expired: lingering->active",
			"closed":    held,
			"activity":  "lingering [] 14m0s expired: ", // somebody is connected
			"touched":   "lingering [] 1h14m0s expired: deadline 1h14m0s",
			"removed":   "ended [] never last-logout: end last-logout", // grace long past
			"hold":      "lingering [] 14m0s expired: write 0s, deadline 14m0s",
			"extend":    "lingering [] 42m0s expired: write 28m0s, deadline 42m0s",
			"resume":    "ended [] never resumed: end resumed",
			"signal":    "ended [] never signal: end signal",
			"job-ended": held,
		},
		"ended": {
			"tick": over, "login": over, "logout": over, "opened": over, "closed": over,
			"activity": over, "touched": over, "removed": over, "hold": over,
			"extend": over, "resume": over, "signal": over, "job-ended": over,
		},
		"busy": {
			"tick":      busy,
			"login":     "active [2] never none: lingering->active",
			"logout":    busy,
			"opened":    busy,
			"closed":    busy,
			"activity":  busy,
			"touched":   busy, // no end that it could move
			"removed":   busy,
			"hold":      "lingering [] never none: write 0s",
			"extend":    "lingering [] never none: write 0s",
			"resume":    "ended [] never resumed: end resumed",
			"signal":    "ended [] never signal: end signal",
			"job-ended": "waiting [] 14m0s first-connect-timeout: lingering->waiting, deadline 14m0s",
		},
	}
	if len(events) != int(eventKinds) {
		t.Fatalf("the table has %d kinds of event, the package %d", len(events), eventKinds)
	}
	for _, st := range states {
		for name, event := range events {
			t.Run(st.name+"/"+name, func(t *testing.T) {
				expected, ok := want[st.name][name]
				if !ok {
					t.Fatal("no expectation in the table")
				}
				m := start(t, DefaultConfig())
				st.setup(m)
				m.until(at - 1)
				before := brief(m.state, at)
				old := m.state
				var effects []string
				for _, effect := range m.step(at, event) {
					effects = append(effects, text(effect))
				}
				if got := brief(m.state, at) + ": " + strings.Join(effects, ", "); got != expected {
					t.Errorf("got  %s\nwant %s", got, expected)
				}
				if again := brief(old, at); again != before {
					t.Errorf("Step changed the state it was given from %q to %q", before, again)
				}
				if m.state.Phase() == Ended && !m.wake.IsZero() {
					t.Errorf("an ended session wakes up at %v", m.wake)
				}
			})
		}
	}
}

// A late caller finds everything in its order: the grace ended before the login.
func TestLateStep(t *testing.T) {
	m := start(t, DefaultConfig())
	m.do(time.Minute, Login(1), Opened(1, Exec), Closed(1, Exec))
	m.step(9*time.Minute, Login(2)) // idle at 1m30s, grace to 1m40s
	if got, want := brief(m.state, 9*time.Minute), "ended [] never last-logout"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}

	m = start(t, DefaultConfig())
	m.do(time.Minute, Login(1), Opened(1, Shell))
	m.step(9*time.Minute+30*time.Second, Tick())
	if got, want := strings.Join(m.trace, ", "), "1m0s waiting->active, 9m30s warn 30s (10m0s)"; got != want {
		t.Errorf("one warning for all that were missed:\ngot  %s\nwant %s", got, want)
	}
}

// A now that goes backwards is the latest one seen.
func TestNowGoesBackwards(t *testing.T) {
	m := start(t, DefaultConfig())
	m.step(5*time.Minute, Login(1))
	m.step(2*time.Minute, Activity())
	m.step(-time.Hour, Opened(1, Shell))
	if got, want := brief(m.state, 5*time.Minute), "active [1] 15m0s expired"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// States share no memory that changes: two futures of one state are independent.
func TestStatesAreValues(t *testing.T) {
	m := start(t, DefaultConfig())
	m.do(time.Minute, Login(1), Opened(1, Shell), Login(2), Opened(2, Exec), Login(3))
	common := m.state
	now := epoch.Add(time.Minute + time.Second)
	futures := []Event{Login(4), Login(5), Logout(1), Logout(2), Closed(1, Shell), Closed(2, Exec), Opened(3, Shell)}
	var states []State
	var were []string
	for _, e := range append(futures, futures...) {
		s, _, _ := Step(common, e, now)
		states, were = append(states, s), append(were, fmt.Sprint(s))
	}
	for i, s := range states {
		e := futures[i%len(futures)]
		if is := fmt.Sprint(s); is != were[i] || is != were[i%len(futures)] {
			t.Errorf("after %v:\nfirst  %s\nthen   %s\nat last %s", e, were[i%len(futures)], were[i], is)
		}
	}
}

// wallJump is t with its wall clock reading moved and its monotonic one kept, as
// time.Now gives it after the clock was set.
func wallJump(t *testing.T, at time.Time, seconds int64) time.Time {
	t.Helper()
	type layout struct { // that of time.Time, with the monotonic flag set
		wall uint64 // flag, 33 bits of seconds, 30 bits of nanoseconds
		ext  int64
		loc  *time.Location
	}
	jumped := at
	(*layout)(unsafe.Pointer(&jumped)).wall += uint64(seconds) << 30
	if jumped.Sub(at) != 0 || jumped.Unix()-at.Unix() != seconds {
		t.Fatal("time.Time is laid out in another way now: adapt this helper")
	}
	return jumped
}

func TestWallClockJumps(t *testing.T) {
	begin := time.Now()
	for _, jump := range []int64{-7200, 7200} {
		s, _, _ := New(DefaultConfig(), begin)
		s, _, _ = Step(s, Login(1), begin)
		s, _, _ = Step(s, Opened(1, Shell), begin)

		now := wallJump(t, begin.Add(4*time.Minute), jump)
		s, effects, wake := Step(s, Tick(), now)
		if len(effects) != 0 || s.Phase() != Active {
			t.Fatalf("jump by %d s: %v, %v", jump, s.Phase(), effects)
		}
		if left := wake.Sub(now); left != time.Minute { // the first warning
			t.Errorf("jump by %d s: woken after %v, want 1m", jump, left)
		}
		st := s.Status(now)
		if st.Remaining != 6*time.Minute || st.Deadline.Unix() != now.Unix()+360 {
			t.Errorf("jump by %d s: remaining %v at %v, deadline shown %v", jump, st.Remaining, now, st.Deadline)
		}
		// Touched after the jump: dated by the new clock, observed by it.
		s, _, _ = Step(s, HoldTouched(0), now)
		if got := s.Status(now).Remaining; got != 10*time.Minute {
			t.Errorf("jump by %d s: %v left after a touch, want 10m", jump, got)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, cfg := range []Config{{}, DefaultConfig(), {Expiry: never, MaxDuration: 1}} {
		if err := cfg.Validate(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
	for name, cfg := range map[string]Config{
		"expiry": {Expiry: -1}, "first-connect": {FirstConnect: -1}, "warning": {Warning: -1},
		"grace": {Grace: -1}, "maximum": {MaxDuration: -1},
	} {
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("negative %s: %v", name, err)
		}
		if _, err := NewLoop(cfg, nil); err == nil {
			t.Errorf("NewLoop took a negative %s", name)
		}
	}
}

// Names and sentences are distinct and complete: a new constant needs its own.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	check := func(s string) {
		t.Helper()
		if s == "" || seen[s] || strings.Contains(s, "(") || strings.Contains(s, "unknown") {
			t.Errorf("name %q is empty, used twice or a default", s)
		}
		seen[s] = true
	}
	for r := None; r <= Done; r++ {
		check(r.String())
		check(r.Sentence())
	}
	for p := Waiting; p <= Ended; p++ {
		check(p.String())
	}
	for u := Shell; u < uses; u++ {
		check(u.String())
	}
	for k := range eventKinds {
		check("event: " + Event{kind: k}.String())
	}
	for _, s := range []fmt.Stringer{Done + 1, Ended + 1, uses, Event{kind: eventKinds}} {
		if !strings.Contains(s.String(), "(") {
			t.Errorf("%T: %q for an unknown value", s, s)
		}
	}
	if got := Reason(99).Sentence(); got == "" || seen[got] {
		t.Errorf("sentence of an unknown reason: %q", got)
	}
	for r, want := range map[Reason]bool{None: false, FirstConnectTimeout: true, Expired: true,
		MaxDuration: true, LastLogout: false, Resumed: false, Signalled: false, Done: false} {
		if r.Timeout() != want {
			t.Errorf("%v: Timeout is %v", r, !want)
		}
	}
}

// The core neither asks for the time nor does anything but compute.
func TestCoreIsPure(t *testing.T) {
	allowed := []string{`"fmt"`, `"math"`, `"slices"`, `"time"`}
	forbidden := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick",
		"Print", "Println", "Printf"}
	for _, file := range []string{"config.go", "event.go", "effect.go", "core.go", "status.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range parsed.Imports {
			if !slices.Contains(allowed, spec.Path.Value) {
				t.Errorf("%s imports %s", file, spec.Path.Value)
			}
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && (pkg.Name == "time" || pkg.Name == "fmt") && slices.Contains(forbidden, sel.Sel.Name) {
				t.Errorf("%s uses %s.%s", file, pkg.Name, sel.Sel.Name)
			}
			return true
		})
	}
}
