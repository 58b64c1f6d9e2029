package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a Box until the test ends, or stop is called.
func start(t *testing.T, b *Box) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func open(t *testing.T, dir string, do func(context.Context, string, []byte) Result) *Box {
	t.Helper()
	b, err := Open(Options{Dir: dir, Most: 100, Workers: 2, Keep: time.Hour, Do: do, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAgain: what fails is tried until it is done, and then its file is gone.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	done := make(chan string, 1)
	tries := 0
	b := open(t, dir, func(_ context.Context, key string, body []byte) Result {
		if tries++; tries < 2 {
			return Result{}
		}
		done <- key + string(body)
		return Result{Done: true}
	})
	stop := start(t, b)
	if err := b.Add("a", 7); err != nil {
		t.Fatal(err)
	}
	if got := <-done; got != "a7" {
		t.Error(got)
	}
	stop()
	if left, _ := os.ReadDir(dir); len(left) > 0 || b.Len() > 0 {
		t.Errorf("%d files are left, %d items", len(left), b.Len())
	}
}

// TestRestart: a new Box does what an old one could not, in its newest form, and
// what was being written when it was killed does no harm.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir, func(context.Context, string, []byte) Result { return Result{} })
	for i := range 3 {
		if err := b.Add("a", i); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add("b", "x"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"new-1": "{", "broken.json": "{", "stray.json": `{"key":"z","body":1}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan string, 10)
	b = open(t, dir, func(_ context.Context, key string, body []byte) Result {
		got <- key + string(body)
		return Result{Done: true}
	})
	if b.Len() != 2 {
		t.Errorf("%d items", b.Len())
	}
	start(t, b)
	all := map[string]bool{<-got: true, <-got: true}
	if !all["a2"] || !all[`b"x"`] {
		t.Error(all)
	}
	if _, err := os.Stat(filepath.Join(dir, "new-1")); !errors.Is(err, os.ErrNotExist) {
		t.Error("the unfinished file is left")
	}
}

// TestNewer: a value that comes while an older one is tried is tried after it.
func TestNewer(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	got := make(chan int, 2)
	b := open(t, t.TempDir(), func(_ context.Context, _ string, body []byte) Result {
		var n int
		_ = json.Unmarshal(body, &n)
		if n == 1 {
			close(entered)
			<-leave
		}
		got <- n
		return Result{Done: true}
	})
	start(t, b)
	for n := 1; n < 3; n++ {
		if err := b.Add("a", n); err != nil {
			t.Fatal(err)
		}
		if n == 1 {
			<-entered
		}
	}
	close(leave)
	if a, b := <-got, <-got; a != 1 || b != 2 {
		t.Error(a, b)
	}
}

// TestRetry: what waits is tried when somebody is there again, and what was being
// tried in vain at that moment is soon.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leave := make(chan struct{})
		var tries atomic.Int32
		b := open(t, t.TempDir(), func(context.Context, string, []byte) Result {
			tries.Add(1)
			<-leave
			return Result{}
		})
		stop := start(t, b)
		if err := b.Add("a", 1); err != nil {
			t.Fatal(err)
		}
		for range 12 { // by then it waits for minutes
			leave <- struct{}{}
			synctest.Wait()
		}
		b.Retry()
		synctest.Wait()
		if n := tries.Load(); n != 13 {
			t.Fatalf("%d tries at once", n)
		}
		b.Retry()
		leave <- struct{}{}
		synctest.Wait()
		time.Sleep(2 * firstWait) // of the test's own clock
		if n := tries.Load(); n != 14 {
			t.Errorf("%d tries soon", n)
		}
		close(leave)
		stop()
	})
}

func TestFull(t *testing.T) {
	b := open(t, t.TempDir(), func(context.Context, string, []byte) Result { return Result{} })
	for i := range 100 {
		if err := b.Add(fmt.Sprint(i), i); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add("100", 1); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if err := b.Add("7", 1); err != nil {
		t.Error("one that is there cannot be replaced:", err)
	}
}

// TestFullBytes: what is kept is bounded in bytes, also after a restart; what is
// done makes room.
func TestFullBytes(t *testing.T) {
	dir := t.TempDir()
	options := Options{Dir: dir, Most: 100, MostBytes: 100, Workers: 1, Keep: time.Hour, Log: slog.New(slog.DiscardHandler)}
	done := make(chan string, 10)
	options.Do = func(_ context.Context, key string, _ []byte) Result {
		done <- key
		return Result{Done: true}
	}
	b, err := Open(options)
	if err != nil {
		t.Fatal(err)
	}
	text := func(n int) string { return fmt.Sprintf("%0*d", n-2, 0) } // with its quotes
	for _, step := range []struct {
		key  string
		size int
		err  error
	}{{"a", 60, nil}, {"b", 41, ErrFull}, {"b", 40, nil}, {"a", 61, ErrFull}, {"a", 50, nil}, {"c", 10, nil}, {"c", 11, ErrFull}} {
		if err := b.Add(step.key, text(step.size)); !errors.Is(err, step.err) {
			t.Errorf("%s of %d: %v", step.key, step.size, err)
		}
	}
	if b, err = Open(options); err != nil {
		t.Fatal(err)
	}
	if err := b.Add("d", text(2)); !errors.Is(err, ErrFull) || b.Len() != 3 {
		t.Errorf("%d items, %v", b.Len(), err)
	}
	stop := start(t, b)
	for range 3 {
		<-done
	}
	stop()
	if err := b.Add("d", text(100)); err != nil || b.Len() != 1 {
		t.Errorf("%d items, %v", b.Len(), err)
	}
}
