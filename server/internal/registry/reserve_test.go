package registry

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

const window = 5 * time.Minute

// wantReserved checks that a claim is refused until the given time.
func wantReserved(t *testing.T, r *Memory[string], key ed25519.PublicKey, until time.Time) {
	t.Helper()
	_, err := r.Register("job", Claim{Key: key}, "stranger")
	var reserved *ReservedError
	if !errors.As(err, &reserved) || !reserved.Until.Equal(until) {
		t.Fatalf("a stranger's registration: %v, want that the id is kept until %v", err, until)
	}
	if got, ok := r.Reserved("job"); !ok || !got.Equal(until) {
		t.Errorf("kept until %v, %v, want %v", got, ok, until)
	}
	if _, held := r.Lookup("job"); held {
		t.Error("an id that is kept is held")
	}
}

func mustRegister(t *testing.T, r *Memory[string], key ed25519.PublicKey, a string) Grant[string] {
	t.Helper()
	grant, err := r.Register("job", Claim{Key: key}, a)
	if err != nil {
		t.Fatal(err)
	}
	return grant
}

// TestReservation keeps a vacated id for its key, and no longer than that.
func TestReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewMemory[string](window)
		mine, other := newKey(t), newKey(t)
		first := mustRegister(t, r, mine, "first")
		if _, kept := r.Reserved("job"); kept {
			t.Error("an id that is held is kept for a return")
		}
		if r.Vacate("job", "another") {
			t.Error("somebody else vacated the id")
		}
		time.Sleep(time.Second)
		if !r.Vacate("job", "first") || r.Vacate("job", "first") || r.Remove("job", "first") {
			t.Error("an id is vacated once")
		}
		until := time.Now().Add(window)
		wantReserved(t, r, other, until)
		time.Sleep(window - 1)
		wantReserved(t, r, other, until) // trying does not prolong it

		// The holder's return ends it, and the id is as old as it was.
		second := mustRegister(t, r, mine, "second")
		if second.Displaced || second.Since != first.Since {
			t.Errorf("the return: %+v, after %+v", second, first)
		}
		if _, kept := r.Reserved("job"); kept {
			t.Error("after the return the id is still kept for it")
		}
		if r.Vacate("job", "first") {
			t.Error("the former connection vacated its successor's id")
		}
		time.Sleep(window)
		if _, err := r.Register("job", Claim{Key: other}, "stranger"); !errors.Is(err, ErrTaken) {
			t.Errorf("a stranger after the return: %v", err)
		}

		// Its end frees the id.
		r.Vacate("job", "second")
		wantReserved(t, r, other, time.Now().Add(window))
		time.Sleep(window)
		if _, kept := r.Reserved("job"); kept {
			t.Error("the id is kept beyond the window")
		}
		if grant := mustRegister(t, r, other, "stranger"); grant.Displaced || grant.Since != time.Now().UnixMilli() {
			t.Errorf("a stranger after the window: %+v", grant)
		}
		// And then its former holder is one.
		if _, err := r.Register("job", Claim{Key: mine}, "third"); !errors.Is(err, ErrTaken) {
			t.Errorf("the former holder, too late: %v", err)
		}
	})
}

// TestRemoveKeepsNothing: a goodbye frees the id at once.
func TestRemoveKeepsNothing(t *testing.T) {
	r := NewMemory[string](window)
	mustRegister(t, r, newKey(t), "first")
	r.Remove("job", "first")
	if _, kept := r.Reserved("job"); kept {
		t.Error("the id is kept after a goodbye")
	}
	mustRegister(t, r, newKey(t), "stranger")
}

// TestNoWindow keeps nothing.
func TestNoWindow(t *testing.T) {
	r := NewMemory[string](0)
	mustRegister(t, r, newKey(t), "first")
	r.Vacate("job", "first")
	mustRegister(t, r, newKey(t), "stranger")
}

// TestOlderPrevails: who had the id first gets it, held or kept, where that is
// proven; of one age the holder keeps it.
func TestOlderPrevails(t *testing.T) {
	for name, test := range map[string]struct {
		holder, newcomer int64 // since, 0 for no proof
		prevails         bool
	}{
		"older than the unproven":          {0, 1000, true},
		"both proven, the older comes":     {2000, 1999, true},
		"both proven, of one age":          {2000, 2000, false},
		"both proven, the younger comes":   {2000, 2001, false},
		"no proof against proof":           {2000, 0, false},
		"no proof on either side":          {0, 0, false},
		"proof from a clock that is ahead": {0, time.Now().Add(time.Hour).UnixMilli(), false},
	} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, away %v", name, away), func(t *testing.T) {
				r := NewMemory[string](window)
				mine, other := newKey(t), newKey(t)
				if _, err := r.Register("job", Claim{Key: other, Since: test.holder}, "holder"); err != nil {
					t.Fatal(err)
				}
				if away {
					r.Vacate("job", "holder")
				}
				grant, err := r.Register("job", Claim{Key: mine, Since: test.newcomer}, "newcomer")
				var reserved *ReservedError
				switch {
				case !test.prevails && away:
					if !errors.As(err, &reserved) {
						t.Errorf("%+v, %v, want that it is kept", grant, err)
					}
				case !test.prevails:
					if !errors.Is(err, ErrTaken) {
						t.Errorf("%+v, %v, want that it is taken", grant, err)
					}
				case err != nil || grant.Since != test.newcomer || grant.Displaced == away || grant.Stranger == away:
					t.Errorf("%+v, %v", grant, err)
				case !away && grant.Former != "holder":
					t.Errorf("%q was displaced", grant.Former)
				default:
					// The loser has nothing left, and is a newcomer itself.
					if r.Vacate("job", "holder") {
						t.Error("the displaced one vacated the id")
					}
					if _, err := r.Register("job", Claim{Key: other, Since: test.holder}, "holder"); !errors.Is(err, ErrTaken) {
						t.Errorf("the displaced one is back: %v", err)
					}
				}
			})
		}
	}
}

// TestAgeIsKept: the oldest proof counts, whoever's it was.
func TestAgeIsKept(t *testing.T) {
	r := NewMemory[string](window)
	key := newKey(t)
	for i, step := range []struct{ proof, want int64 }{{5000, 5000}, {0, 5000}, {7000, 5000}, {3000, 3000}, {0, 3000}} {
		grant, err := r.Register("job", Claim{Key: key, Since: step.proof}, fmt.Sprint(i))
		if err != nil || grant.Since != step.want || grant.Stranger || grant.Displaced != (i > 0) {
			t.Errorf("step %d: %+v, %v", i, grant, err)
		}
	}
	claim, ok := r.Claim("job", "4")
	if !ok || claim.Since != 3000 || !claim.Key.Equal(key) {
		t.Errorf("the holder's claim: %+v, %v", claim, ok)
	}
	for _, who := range []string{"0", ""} {
		if claim, ok := r.Claim("job", who); ok {
			t.Errorf("%q has a claim: %+v", who, claim)
		}
	}
}

// TestReservationsAreBounded: beyond the limit the oldest goes, and those that
// ended or were used leave nothing behind.
func TestReservationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 10
		r := NewMemory[string](window)
		r.most = most
		key := newKey(t)
		come := func(id string) {
			t.Helper()
			if _, err := r.Register(id, Claim{Key: key}, id); err != nil {
				t.Fatal(err)
			}
		}
		sizes := func(want int) {
			t.Helper()
			if len(r.away) != want || r.vacated.Len() != want {
				t.Errorf("%d and %d are kept, want %d", len(r.away), r.vacated.Len(), want)
			}
		}
		for i := range 3 * most {
			id := fmt.Sprint(i)
			come(id)
			r.Vacate(id, id)
			sizes(min(i+1, most))
		}
		for i := range 3 * most {
			if _, kept := r.Reserved(fmt.Sprint(i)); kept != (i >= 2*most) {
				t.Errorf("%d: kept %v", i, kept)
			}
		}
		for range 3 * most { // one that comes and goes takes no more than one
			come("20")
			r.Vacate("20", "20")
		}
		sizes(most)
		come("21")
		sizes(most - 1)
		time.Sleep(window)
		r.Reserved("")
		sizes(0)
	})
}
