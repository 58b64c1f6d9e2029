package registry

import (
	"crypto/ed25519"
	"errors"
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

func TestMemory(t *testing.T) {
	var r Registry[string] = NewMemory[string]()
	mine, other := newKey(t), newKey(t)

	if _, ok := r.Lookup("job"); ok {
		t.Error("an empty registry knows an agent")
	}
	if _, displaced, err := r.Register("job", mine, "first"); displaced || err != nil {
		t.Fatalf("first registration: displaced %v, %v", displaced, err)
	}
	if _, _, err := r.Register("job", other, "stranger"); !errors.Is(err, ErrTaken) {
		t.Errorf("a stranger's registration: %v, want ErrTaken", err)
	}
	if a, _ := r.Lookup("job"); a != "first" {
		t.Errorf("after a stranger's attempt the holder is %q", a)
	}
	old, displaced, err := r.Register("job", mine, "second")
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
	if _, _, err := r.Register("job", other, "stranger"); err != nil {
		t.Errorf("a free id is refused: %v", err)
	}
}
