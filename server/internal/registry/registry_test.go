package registry

import (
	"crypto/ed25519"
	"errors"
	"sync"
	"testing"
)

func newKey(t *testing.T) ed25519.PublicKey {
	t.Helper()
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// register registers without more grounds than a key.
func register[A comparable](r Registry[A], id string, key ed25519.PublicKey, a A) (former A, displaced bool, err error) {
	grant, err := r.Register(id, Claim{Key: key}, a)
	return grant.Former, grant.Displaced, err
}

func TestMemory(t *testing.T) {
	var r Registry[string] = NewMemory[string](0)
	mine, other := newKey(t), newKey(t)

	if _, ok := r.Lookup("job"); ok {
		t.Error("an empty registry knows an agent")
	}
	if _, displaced, err := register(r, "job", mine, "first"); displaced || err != nil {
		t.Fatalf("first registration: displaced %v, %v", displaced, err)
	}
	if _, _, err := register(r, "job", other, "stranger"); !errors.Is(err, ErrTaken) {
		t.Errorf("a stranger's registration: %v, want ErrTaken", err)
	}
	if a, _ := r.Lookup("job"); a != "first" {
		t.Errorf("after a stranger's attempt the holder is %q", a)
	}
	old, displaced, err := register(r, "job", mine, "second")
	if old != "first" || !displaced || err != nil {
		t.Errorf("own return: displaced %q %v, %v", old, displaced, err)
	}
	if r.Remove("job", "first") {
		t.Error("a displaced agent freed the id of its successor")
	}
	if a, _ := r.Lookup("job"); a != "second" {
		t.Errorf("the holder is %q, want second", a)
	}
	if !r.Remove("job", "second") {
		t.Error("the holder could not free its id")
	}
	if _, _, err := register(r, "job", other, "stranger"); err != nil {
		t.Errorf("a free id is refused: %v", err)
	}
}

// TestIDsAreApart: nothing is folded, and one holder may have several ids.
func TestIDsAreApart(t *testing.T) {
	r := NewMemory[int](0)
	ids := []string{"job", "Job", "job/", "job/a", "a/job", "job.", "jo", ""}
	for i, id := range ids {
		if _, displaced, err := register(r, id, newKey(t), i); displaced || err != nil {
			t.Errorf("%q: displaced %v, %v", id, displaced, err)
		}
	}
	for i, id := range ids {
		if got, ok := r.Lookup(id); got != i || !ok {
			t.Errorf("%q is held by %d, %v", id, got, ok)
		}
	}
	if !r.Remove("job", 0) {
		t.Error("the holder could not free its id")
	}
	for i, id := range ids[1:] {
		if got, ok := r.Lookup(id); got != i+1 || !ok {
			t.Errorf("after another id was freed, %q is held by %d, %v", id, got, ok)
		}
	}

	key := newKey(t)
	for _, id := range []string{"one", "two"} {
		if _, displaced, err := register(r, id, key, 100); displaced || err != nil {
			t.Errorf("%q under the same key: displaced %v, %v", id, displaced, err)
		}
	}
	if r.Remove("one", 100); !holds(r, "two", 100) {
		t.Error("freeing one id freed the other")
	}
}

func holds(r *Memory[int], id string, a int) bool {
	got, ok := r.Lookup(id)
	return ok && got == a
}

// TestRemove frees only what is held, and only once.
func TestRemove(t *testing.T) {
	r := NewMemory[int](0)
	if r.Remove("job", 0) {
		t.Error("an id that nobody holds was freed")
	}
	if _, _, err := register(r, "job", newKey(t), 1); err != nil {
		t.Fatal(err)
	}
	if r.Remove("job", 0) || r.Remove("other", 1) {
		t.Error("somebody else's id was freed")
	}
	if !r.Remove("job", 1) || r.Remove("job", 1) {
		t.Error("an id is freed once")
	}
	if got, ok := r.Lookup("job"); got != 0 || ok {
		t.Errorf("a free id is held by %d, %v", got, ok)
	}
}

// TestReturnKeepsTheKey: who comes back takes nothing from the key's owner,
// and an attempt that failed leaves none behind.
func TestReturnKeepsTheKey(t *testing.T) {
	r := NewMemory[int](0)
	mine, other := newKey(t), newKey(t)
	for a := range 3 {
		if _, _, err := register(r, "job", mine, a); err != nil {
			t.Fatal(err)
		}
		if _, displaced, err := register(r, "job", other, 100); displaced || !errors.Is(err, ErrTaken) {
			t.Errorf("a stranger after return %d: displaced %v, %v", a, displaced, err)
		}
		if r.Remove("job", 100) {
			t.Error("a stranger freed the id")
		}
	}
	if !holds(r, "job", 2) {
		t.Error("the last to come back does not hold the id")
	}
	if _, displaced, err := register(r, "job", mine, 2); !displaced || err != nil {
		t.Errorf("the holder once more: displaced %v, %v", displaced, err)
	}
}

// TestConcurrentStrangers: of many with keys of their own one gets the id.
func TestConcurrentStrangers(t *testing.T) {
	const strangers = 32
	r := NewMemory[int](0)
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		won  []int
		keys = make([]ed25519.PublicKey, strangers)
	)
	for a := range keys {
		keys[a] = newKey(t)
	}
	for a := range strangers {
		all.Go(func() {
			switch _, displaced, err := register(r, "job", keys[a], a); {
			case displaced || err != nil && !errors.Is(err, ErrTaken):
				t.Errorf("displaced %v, %v", displaced, err)
			case err == nil:
				mu.Lock()
				defer mu.Unlock()
				won = append(won, a)
			}
		})
	}
	all.Wait()
	if len(won) != 1 || !holds(r, "job", won[0]) {
		t.Errorf("%v got the id", won)
	}
}

// TestConcurrentReturns: of those who register under one key and leave again,
// each is displaced or leaves by itself, exactly one of the two, and none stays.
func TestConcurrentReturns(t *testing.T) {
	const returns = 200
	r := NewMemory[int](0)
	key := newKey(t)
	var (
		all  sync.WaitGroup
		mu   sync.Mutex
		ends = make(map[int]int)
	)
	end := func(a int) {
		mu.Lock()
		defer mu.Unlock()
		ends[a]++
	}
	for a := range returns {
		all.Go(func() {
			old, displaced, err := register(r, "job", key, a)
			if err != nil {
				t.Error(err)
			}
			if displaced {
				end(old)
			}
			if _, ok := r.Lookup("other"); ok {
				t.Error("an id that nobody registered is held")
			}
			if r.Remove("job", a) {
				end(a)
			}
		})
	}
	all.Wait()
	for a := range returns {
		if ends[a] != 1 {
			t.Errorf("agent %d ended %d times", a, ends[a])
		}
	}
	if _, ok := r.Lookup("job"); ok {
		t.Error("somebody is left")
	}
}
