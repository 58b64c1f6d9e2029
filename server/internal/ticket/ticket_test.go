package ticket

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

const window = 5 * time.Minute

var secret = bytes.Repeat([]byte{7}, MinKey)

// runKey is a run key, the same for the same n.
func runKey(n byte) ed25519.PublicKey {
	seed := bytes.Repeat([]byte{n}, ed25519.SeedSize)
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
}

func TestTicket(t *testing.T) {
	here, there := New(secret, window), New(secret, window)
	ticket := here.Make("team/job", runKey(1), 12345)
	if len(ticket) != Size {
		t.Errorf("it has %d bytes, want %d", len(ticket), Size)
	}
	if got, err := here.Check(ticket, "team/job", runKey(1)); got != (Ticket{Since: 12345, Own: true}) || err != nil {
		t.Errorf("where it was made: %+v, %v", got, err)
	}
	if got, err := there.Check(ticket, "team/job", runKey(1)); got != (Ticket{Since: 12345}) || err != nil {
		t.Errorf("elsewhere: %+v, %v", got, err)
	}
}

// TestForged shows that a ticket is good for one id with one run key under one
// state key, and that no bit of it can be changed.
func TestForged(t *testing.T) {
	o := New(secret, window)
	ticket := o.Make("job", runKey(1), 12345)
	check := func(what string, o *Office, ticket []byte, id string, key ed25519.PublicKey, want error) {
		t.Helper()
		if got, err := o.Check(ticket, id, key); !errors.Is(err, want) || got != (Ticket{}) {
			t.Errorf("%s: %+v, %v, want %v", what, got, err, want)
		}
	}
	check("another id", o, ticket, "job2", runKey(1), ErrForged)
	check("the id's beginning", o, ticket, "jo", runKey(1), ErrForged)
	check("no id", o, ticket, "", runKey(1), ErrForged)
	check("another run key", o, ticket, "job", runKey(2), ErrForged)
	check("no run key", o, ticket, "job", nil, ErrForged)
	check("another state key", New(bytes.Repeat([]byte{8}, MinKey), window), ticket, "job", runKey(1), ErrForged)
	check("nothing", o, nil, "job", runKey(1), ErrFormat)
	check("one byte more", o, append(ticket[:Size:Size], 0), "job", runKey(1), ErrFormat)
	check("very long", o, make([]byte, 1<<20), "job", runKey(1), ErrFormat)
	for n := range Size {
		check("truncated", o, ticket[:n], "job", runKey(1), ErrFormat)
	}
	for bit := range 8 * Size {
		changed := bytes.Clone(ticket)
		changed[bit/8] ^= 1 << (bit % 8)
		got, err := o.Check(changed, "job", runKey(1))
		if !errors.Is(err, ErrForged) && !errors.Is(err, ErrFormat) || got != (Ticket{}) {
			t.Errorf("bit %d changed: %+v, %v", bit, got, err)
		}
	}
	// What moves from the run key to the id does not take the code with it.
	whole := runKey(1)
	check("run key cut short", o, o.Make("job", whole, 1), string(whole[31:])+"job", whole[:31], ErrForged)
}

// TestTimes: a ticket ends, and is to be renewed while it is good for a window
// and more.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, window := range []time.Duration{0, time.Second, time.Minute, window, time.Hour} {
			o := New(secret, window)
			life := 2 * max(window, time.Minute)
			if got := o.Renew(); got < time.Second || life-got < window+window/2 {
				t.Errorf("window %v: renewed after %v of %v", window, got, life)
			}
			ticket := o.Make("job", runKey(1), 12345)
			time.Sleep(life - time.Millisecond)
			if _, err := o.Check(ticket, "job", runKey(1)); err != nil {
				t.Errorf("window %v: before its end: %v", window, err)
			}
			time.Sleep(time.Millisecond)
			if got, err := o.Check(ticket, "job", runKey(1)); !errors.Is(err, ErrExpired) || got != (Ticket{}) {
				t.Errorf("window %v: at its end: %+v, %v", window, got, err)
			}
		}
		// A server whose clock was wrong makes none for ever.
		o := New(secret, window)
		far := o.seal("job", runKey(1), body{since: 1, until: time.Now().Add(farthest + time.Second).UnixMilli()})
		if _, err := o.Check(far, "job", runKey(1)); !errors.Is(err, ErrExpired) {
			t.Errorf("a ticket for longer than any: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := o.Check(far, "job", runKey(1)); err != nil {
			t.Errorf("a ticket for a day: %v", err)
		}
	})
}

// TestFormat is spec.md in one example, so that servers of different releases
// understand each other.
func TestFormat(t *testing.T) {
	o := &Office{key: secret, run: [8]byte([]byte("8 random"))}
	got := base64.StdEncoding.EncodeToString(o.seal("team/job", runKey(1), body{run: o.run, since: 1000, until: 2000}))
	const want = "ATggcmFuZG9tAAAAAAAAA+gAAAAAAAAH0"
	if len(got) < len(want) || got[:len(want)] != want {
		t.Errorf("got %s, want %s…", got, want)
	}
}

// FuzzCheck feeds an office what an agent may send. Nothing that it did not
// make is believed, and a ticket has one spelling.
func FuzzCheck(f *testing.F) {
	o := &Office{key: secret, run: [8]byte([]byte("8 random")), life: 2 * window}
	f.Fuzz(func(t *testing.T, ticket []byte, id string) {
		b, err := decode(ticket)
		if err == nil {
			again := o.seal(id, runKey(1), b)
			if !bytes.Equal(again[:bodySize], ticket[:bodySize]) {
				t.Fatalf("%x is spelt %x", ticket, again)
			}
		}
		if got, err := o.Check(ticket, id, runKey(1)); err == nil {
			t.Fatalf("%x is believed: %+v", ticket, got) // those of the corpus are too old
		}
		own := o.Make(id, runKey(1), 1)
		if _, err := o.Check(own, id, runKey(1)); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(own, ticket) {
			t.Fatal("a ticket was guessed")
		}
	})
}
