package expiry

import (
	"testing"
	"time"
)

// Stories: events at their times, and all effects until nothing is due.
func TestStories(t *testing.T) {
	minute, second := time.Minute, time.Second
	type at struct {
		when   time.Duration
		events []Event
	}
	ev := func(when time.Duration, events ...Event) at { return at{when, events} }
	with := func(change func(*Config)) Config {
		cfg := DefaultConfig()
		cfg.Warning = 0
		change(&cfg)
		return cfg
	}
	quiet := with(func(*Config) {})
	capped := with(func(c *Config) { c.MaxDuration = 12 * minute })

	for _, tt := range []struct {
		name   string
		cfg    Config
		events []at
		want   string
	}{
		{"nobody comes; halves of the warning", DefaultConfig(), nil,
			"5m0s warn 5m0s (10m0s), 7m30s warn 2m30s (10m0s), 8m45s warn 1m15s (10m0s), 10m0s end first-connect-timeout"},
		{"goodbye from a shell", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(2*minute, Closed(1, Shell), Logout(1))},
			"1m0s waiting->active, 2m0s end last-logout"},
		{"goodbye with a listener left open", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell), Opened(1, Forward)), ev(2*minute, Closed(1, Shell), Logout(1))},
			"1m0s waiting->active, 2m0s end last-logout"},
		{"goodbye, and then its forward ends", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell), Opened(1, Forward)), ev(2*minute, Closed(1, Shell), Closed(1, Forward), Logout(1))},
			"1m0s waiting->active, 2m0s end last-logout"},
		{"goodbye from one shell, the other is cut off", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell), Opened(1, Shell)), ev(2*minute, Closed(1, Shell), Logout(1))},
			"1m0s waiting->active, 2m0s active->lingering, 2m10s end last-logout"},
		{"goodbye from a shell, a command is cut off", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell), Opened(1, Exec)), ev(2*minute, Closed(1, Shell), Logout(1))},
			"1m0s waiting->active, 2m0s active->lingering, 2m10s end last-logout"},
		{"copy, then a login within the grace", quiet,
			[]at{ev(minute, Login(1), Opened(1, Exec), Closed(1, Exec), Logout(1)),
				ev(minute+9*second, Login(2), Opened(2, Shell)), ev(2*minute, Closed(2, Shell), Logout(2))},
			"1m0s waiting->active, 1m0s active->lingering, 1m9s lingering->active, 2m0s end last-logout"},
		{"copy alone", quiet,
			[]at{ev(minute, Login(1), Opened(1, Exec), Closed(1, Exec), Logout(1))},
			"1m0s waiting->active, 1m0s active->lingering, 1m10s end last-logout"},
		{"no grace", with(func(c *Config) { c.Grace = 0 }),
			[]at{ev(minute, Login(1), Opened(1, Exec), Closed(1, Exec), Logout(1))},
			"1m0s waiting->active, 1m0s end last-logout"},
		{"a shell and then a copy on one connection: the last one counts", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell), Opened(1, Exec), Closed(1, Shell), Closed(1, Exec), Logout(1))},
			"1m0s waiting->active, 1m0s active->lingering, 1m10s end last-logout"},
		{"a connection that breaks under its shell is no goodbye", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(2*minute, Logout(1))},
			"1m0s waiting->active, 2m0s active->lingering, 2m10s end last-logout"},
		{"no session ever: grace", quiet,
			[]at{ev(minute, Login(1)), ev(minute+second, Logout(1))},
			"1m0s waiting->active, 1m1s active->lingering, 1m11s end last-logout"},
		{"the last of two decides", quiet,
			[]at{ev(minute, Login(1), Opened(1, Exec), Login(2), Opened(2, Shell)),
				ev(2*minute, Closed(1, Exec), Logout(1)), ev(3*minute, Closed(2, Shell), Logout(2))},
			"1m0s waiting->active, 3m0s end last-logout"},
		{"ControlPersist after a shell", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(2*minute, Closed(1, Shell))},
			"1m0s waiting->active, 2m30s end last-logout"},
		{"ControlPersist after a command: grace, and its logout changes nothing", quiet,
			[]at{ev(minute, Login(1), Opened(1, Exec)), ev(2*minute, Closed(1, Exec)), ev(2*minute+35*second, Logout(1))},
			"1m0s waiting->active, 2m30s active->lingering, 2m40s end last-logout"},
		{"ControlPersist becomes present again", quiet,
			[]at{ev(minute, Login(1), Opened(1, Exec)), ev(2*minute, Closed(1, Exec)),
				ev(2*minute+35*second, Opened(1, Exec)), ev(3*minute, Closed(1, Exec), Logout(1))},
			"1m0s waiting->active, 2m30s active->lingering, 2m35s lingering->active, 3m0s active->lingering, 3m10s end last-logout"},
		{"a forward is presence, but expires like the rest", quiet,
			[]at{ev(minute, Login(1), Opened(1, Forward))},
			"1m0s waiting->active, 10m0s end expired"},
		{"activity extends, output does not exist", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(9*minute, Activity())},
			"1m0s waiting->active, 19m0s end expired"},
		{"an activity after the deadline is too late", quiet,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(10*minute, Activity())},
			"1m0s waiting->active, 10m0s end expired"},
		{"a .hold in the past holds after logout, not longer", quiet,
			[]at{ev(minute, HoldTouched(-1000*time.Hour)), ev(2*minute, Login(1), Opened(1, Shell), Closed(1, Shell), Logout(1))},
			"2m0s waiting->active, 2m0s active->lingering, 10m0s end expired"},
		{"a .hold removed in time: the expiry is that without it", quiet,
			[]at{ev(minute, HoldTouched(time.Hour)), ev(2*minute, HoldRemoved())},
			"1m0s deadline 1h11m0s, 2m0s deadline 10m0s, 10m0s end first-connect-timeout"},
		{"a .hold removed too late", quiet,
			[]at{ev(minute, HoldTouched(time.Hour)), ev(12*minute, HoldRemoved())},
			"1m0s deadline 1h11m0s, 12m0s end first-connect-timeout"},
		{"a .hold removed within the grace", quiet,
			[]at{ev(minute, HoldTouched(0), Login(1), Opened(1, Exec), Closed(1, Exec), Logout(1)),
				ev(minute+5*second, HoldRemoved())},
			"1m0s deadline 11m0s, 1m0s waiting->active, 1m0s active->lingering, 1m5s deadline 10m0s, 1m10s end last-logout"},
		{"the echo of a written .hold is no news", quiet,
			[]at{ev(minute, Hold()), ev(minute+50*time.Millisecond, HoldTouched(-20*time.Millisecond))},
			"1m0s write 0s, 1m0s deadline 11m0s, 11m0s end first-connect-timeout"},
		{"hold does not take back a later date", quiet,
			[]at{ev(minute, HoldTouched(time.Hour)), ev(2*minute, Hold())},
			"1m0s deadline 1h11m0s, 2m0s write 59m0s, 1h11m0s end first-connect-timeout"},
		{"extend twice", quiet,
			[]at{ev(minute, Extend(minute), Extend(minute), Extend(0), Extend(-time.Hour))},
			"1m0s write 0s, 1m0s deadline 11m0s, 1m0s write 1m0s, 1m0s deadline 12m0s, 12m0s end first-connect-timeout"},
		{"extend stays under the cap", capped,
			[]at{ev(minute, Extend(time.Hour), Extend(time.Hour))},
			"1m0s write 59m0s, 1m0s deadline 12m0s, 1m0s write 1h1m0s, 12m0s end max-duration"},
		{"the cap over activity", capped,
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(9*minute, Activity())},
			"1m0s waiting->active, 12m0s end max-duration"},
		{"keep: neither goodbye nor grace", with(func(c *Config) { c.Keep = true }),
			[]at{ev(minute, Login(1), Opened(1, Shell), Closed(1, Shell), Logout(1))},
			"1m0s waiting->active, 1m0s active->lingering, 10m0s end expired"},
		{"keep, no expiry, no cap: make run", Config{Keep: true},
			[]at{ev(minute, Login(1), Opened(1, Shell), Closed(1, Shell), Logout(1)), ev(500*time.Hour, Extend(minute), Resume())},
			"1m0s waiting->active, 1m0s active->lingering, 500h0m0s write 0s, 500h0m0s end resumed"},
		{"no expiry, but a cap, with its warnings", Config{MaxDuration: time.Hour, Warning: 4 * minute}, nil,
			"56m0s warn 4m0s (1h0m0s), 58m0s warn 2m0s (1h0m0s), 59m0s warn 1m0s (1h0m0s), 1h0m0s end max-duration"},
		{"no expiry, but a limit for the first login", Config{FirstConnect: 5 * minute, Keep: true},
			[]at{ev(minute, Login(1))},
			"1m0s waiting->active, 1m0s deadline never, 1m30s active->lingering"},
		{"a short limit for the first login", with(func(c *Config) { c.FirstConnect = 2 * minute }), nil,
			"2m0s end first-connect-timeout"},
		{"a short limit ends with the login", with(func(c *Config) { c.FirstConnect = 2 * minute }),
			[]at{ev(minute, Login(1), Opened(1, Shell))},
			"1m0s waiting->active, 1m0s deadline 10m0s, 10m0s end expired"},
		{"a short limit, held", with(func(c *Config) { c.FirstConnect = 2 * minute }),
			[]at{ev(minute, HoldTouched(0))},
			"1m0s deadline 11m0s, 11m0s end first-connect-timeout"},
		{"a long limit: the first login is activity", with(func(c *Config) { c.FirstConnect = time.Hour }),
			[]at{ev(55*minute, Login(1), Opened(1, Shell)), ev(56*minute, Login(2))},
			"55m0s waiting->active, 55m0s deadline 1h5m0s, 1h5m0s end expired"},
		{"a long limit stays under the cap", with(func(c *Config) { c.FirstConnect, c.MaxDuration = time.Hour, 30*minute }), nil,
			"30m0s end max-duration"},
		{"warnings again after the deadline moved later", DefaultConfig(),
			[]at{ev(minute, Login(1), Opened(1, Shell)), ev(6*minute, Activity())},
			"1m0s waiting->active, 5m0s warn 5m0s (10m0s), 11m0s warn 5m0s (16m0s), 13m30s warn 2m30s (16m0s), 14m45s warn 1m15s (16m0s), 16m0s end expired"},
		{"moved later by little: only the lower warnings again", DefaultConfig(),
			[]at{ev(9*minute, Extend(2*minute))},
			"5m0s warn 5m0s (10m0s), 7m30s warn 2m30s (10m0s), 8m45s warn 1m15s (10m0s), 9m0s write -7m0s, " +
				"9m0s deadline 12m0s, 9m30s warn 2m30s (12m0s), 10m45s warn 1m15s (12m0s), 12m0s end first-connect-timeout"},
		{"moved nearer past two warnings: one, at once", DefaultConfig(),
			[]at{ev(minute, HoldTouched(time.Hour)), ev(8*minute, HoldRemoved())},
			"1m0s deadline 1h11m0s, 8m0s deadline 10m0s, 8m0s warn 2m0s (10m0s), 8m45s warn 1m15s (10m0s), 10m0s end first-connect-timeout"},
		{"a warning that is not before the start is shortened", Config{Expiry: 3 * minute, Warning: 5 * minute}, nil,
			"1m30s warn 1m30s (3m0s), 3m0s end first-connect-timeout"},
		{"a short expiry is warned of once", Config{Expiry: 20 * second, Warning: 20 * second}, nil,
			"10s warn 10s (20s), 20s end first-connect-timeout"},
		{"signal", quiet, []at{ev(minute, Login(1), Signal(), Resume())},
			"1m0s waiting->active, 1m0s end signal"},
		{"dates beyond all bounds", with(func(c *Config) { c.MaxDuration = 0 }),
			[]at{ev(minute, HoldTouched(never)), ev(2*minute, HoldTouched(-never)), ev(3*minute, Extend(never)), ev(4*minute, Resume())},
			"1m0s deadline never, 2m0s deadline 10m0s, 3m0s write 2562047h34m16.854775807s, 3m0s deadline never, 4m0s end resumed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := start(t, tt.cfg)
			for _, a := range tt.events {
				m.do(a.when, a.events...)
			}
			if got := m.finish(); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}
