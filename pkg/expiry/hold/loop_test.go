package hold

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"example.com/converge/pkg/expiry"
)

// With a real loop: a touched .hold keeps the session after the last logout, its
// removal ends it, and the loop's own wish for the file is fulfilled.
func TestWithLoop(t *testing.T) {
	dir := t.TempDir()
	w, err := New(dir, Options{Interval: rarely})
	if err != nil {
		t.Fatal(err)
	}
	effects := make(chan expiry.Effect, 16)
	loop, err := expiry.NewLoop(expiry.Config{Expiry: time.Hour}, func(effect expiry.Effect) {
		if write, ok := effect.(expiry.WriteHold); ok {
			if err := Write(dir, write.Ahead); err != nil {
				t.Error(err)
			}
		}
		effects <- effect
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx, loop.Send)
	}()
	finished := make(chan struct{})
	var reason expiry.Reason
	go func() {
		defer close(finished)
		reason, err = loop.Run(ctx)
	}()
	next := func(want expiry.Effect) {
		t.Helper()
		select {
		case effect := <-effects:
			if got, want := reflect.TypeOf(effect), reflect.TypeOf(want); got != want {
				t.Fatalf("effect %#v, want a %v", effect, want)
			}
		case <-ctx.Done():
			t.Fatalf("no %T within a minute", want)
		}
	}
	if err := Write(dir, 2*time.Hour); err != nil {
		t.Fatal(err)
	}
	next(expiry.DeadlineChanged{})
	if st := loop.Snapshot(); !st.Held || st.Remaining < 2*time.Hour {
		t.Errorf("after Write: %+v", st)
	}
	remove := func() {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, FileName)); err != nil {
			t.Fatal(err)
		}
	}
	remove()
	next(expiry.DeadlineChanged{})
	if st := loop.Snapshot(); st.Held {
		t.Errorf("after the removal: %+v", st)
	}
	loop.Send(expiry.Hold())
	loop.Send(expiry.Login(1))
	loop.Send(expiry.Logout(1))
	next(expiry.WriteHold{})
	next(expiry.DeadlineChanged{})
	next(expiry.PhaseChanged{})
	next(expiry.PhaseChanged{})
	remove() // at once: the watcher may never have seen it
	next(expiry.End{})
	<-finished
	if reason != expiry.LastLogout || err != nil {
		t.Errorf("ended by %v, %v", reason, err)
	}
	cancel()
	<-done
}
