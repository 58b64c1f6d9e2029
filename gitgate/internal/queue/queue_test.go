package queue_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/gitgate/internal/queue"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder keeps what was run, and when.
type recorder struct {
	mu    sync.Mutex
	start time.Time
	ran   []string
	most  int
	now   int
}

func (r *recorder) run(what string, takes time.Duration) {
	r.mu.Lock()
	r.ran = append(r.ran, fmt.Sprintf("%s at %s", what, time.Since(r.start).Round(time.Second)))
	r.now++
	r.most = max(r.most, r.now)
	r.mu.Unlock()
	time.Sleep(takes)
	r.mu.Lock()
	r.now--
	r.mu.Unlock()
}

func (r *recorder) counts() (most, all int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.most, len(r.ran)
}

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.ran, want) {
		t.Errorf("ran %q, want %q", r.ran, want)
	}
}

// TestNewestWins: of what arrives while one runs, the newest waits alone.
func TestNewestWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		q := queue.New(queue.Options[int]{Threads: 5, Tries: 1, Run: func(_ context.Context, key string, job int, _ bool) bool {
			r.run(fmt.Sprint(key, job), 10*time.Second)
			return false
		}})
		q.Add("a", 0)
		synctest.Wait()
		for i := range 1000 {
			q.Add("a", i+1)
		}
		q.Add("b", 1) // another key does not wait
		time.Sleep(time.Minute)
		r.want(t, "a0 at 0s", "b1 at 0s", "a1000 at 10s")
		if q.Busy() != 0 {
			t.Errorf("%d are busy", q.Busy())
		}
		q.Close(t.Context())
		if q.Add("a", 1) {
			t.Error("a closed queue takes a job")
		}
	})
}

// TestStorm: however fast the work is, a storm of jobs becomes two.
func TestStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		q := queue.New(queue.Options[int]{
			Threads: 5, Tries: 1, Pace: 2 * time.Second, Merge: func(a, b int) (int, bool) { return a + b, true },
			Run: func(_ context.Context, _ string, job int, _ bool) bool {
				r.run(fmt.Sprint(job), time.Millisecond)
				return false
			},
		})
		for range 1000 {
			q.Add("a", 1)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		r.want(t, "1 at 0s", "999 at 2s")
		q.Add("a", 1) // and after it nothing waits
		time.Sleep(time.Second)
		r.want(t, "1 at 0s", "999 at 2s", "1 at 1m1s")
		q.Close(t.Context())
	})
}

// TestFailingStorm: jobs of a key that fails do not each bring another try at once.
func TestFailingStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		q := queue.New(queue.Options[int]{
			Threads: 5, Tries: 3, Delay: 10 * time.Second, Pace: 2 * time.Second,
			Run: func(context.Context, string, int, bool) bool {
				r.run("it", time.Millisecond)
				return true
			},
		})
		for range 1000 {
			q.Add("a", 1)
			time.Sleep(time.Millisecond)
		}
		time.Sleep(5 * time.Second)
		r.want(t, "it at 0s", "it at 2s")
		q.Close(t.Context())
	})
}

func TestThreads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		q := queue.New(queue.Options[int]{Threads: 2, Tries: 1, Run: func(_ context.Context, key string, _ int, _ bool) bool {
			r.run(key, 10*time.Second)
			return false
		}})
		for i := range 6 {
			q.Add(fmt.Sprint(i), 0)
		}
		time.Sleep(5 * time.Second)
		if most, _ := r.counts(); most != 2 {
			t.Errorf("%d ran at a time", most)
		}
		q.Configure(4, 1, 0)
		time.Sleep(time.Minute)
		if most, all := r.counts(); most != 4 || all != 6 {
			t.Errorf("%d ran at a time, of %d", most, all)
		}
		q.Close(t.Context())
	})
}

// TestRetries: pauses grow, a new job does not wait for their end, and the thread
// is free meanwhile.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := map[string][]time.Duration{}
		var lasts int
		var mu sync.Mutex
		tries := func(key string) []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(tried[key])
		}
		start := time.Now()
		q := queue.New(queue.Options[int]{Threads: 1, Tries: 4, Delay: 10 * time.Second, Run: func(_ context.Context, key string, _ int, last bool) bool {
			mu.Lock()
			defer mu.Unlock()
			tried[key] = append(tried[key], time.Since(start))
			if last {
				lasts++
			}
			return key == "bad"
		}})
		q.Add("bad", 0)
		synctest.Wait()
		q.Add("good", 0)
		synctest.Wait()
		if len(tries("good")) != 1 {
			t.Error("a pause keeps a thread")
		}
		time.Sleep(time.Hour)
		bad := tries("bad")
		if len(bad) != 4 || lasts != 1 {
			t.Fatalf("tried at %v, %d times the last", bad, lasts)
		}
		for i, least := range []time.Duration{8 * time.Second, 16 * time.Second, 24 * time.Second} {
			if pause := bad[i+1] - bad[i]; pause < least || pause > least*2 {
				t.Errorf("pause %d is %s", i, pause)
			}
		}
		q.Add("bad", 0)
		synctest.Wait()
		q.Add("bad", 1) // at once
		synctest.Wait()
		if got := len(tries("bad")); got != 6 {
			t.Errorf("tried %d times", got)
		}
		q.Close(t.Context())
	})
}

// TestMerged: what comes while a job that fails runs, or waits for another try,
// is merged with it; Merge says whether the tries begin anew.
func TestMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{start: time.Now()}
		var tried []string
		q := queue.New(queue.Options[string]{
			Threads: 1, Tries: 3, Delay: 10 * time.Second,
			Merge: func(older, newer string) (string, bool) { return older + newer, newer != "-" },
			Run: func(_ context.Context, key, job string, last bool) bool {
				if last {
					job += " for the last time"
				}
				tried = append(tried, job)
				r.run("", 10*time.Second)
				return key == "bad"
			},
		})
		at := func(second int, key, job string) {
			time.Sleep(time.Duration(second)*time.Second - time.Since(r.start))
			q.Add(key, job)
		}
		at(0, "bad", "a")
		at(5, "bad", "b")  // while it runs: that is tried at 10 s
		at(15, "bad", "-") // while it runs
		at(25, "bad", "-") // in its pause: the second try is at 30 s
		at(50, "bad", "c") // in its pause, which is over: there are three more
		time.Sleep(time.Hour)
		q.Add("good", "a")
		synctest.Wait()
		q.Add("good", "b")
		time.Sleep(time.Minute)
		q.Close(t.Context())
		if want := []string{"a", "ab", "ab--", "ab--c", "ab--c", "ab--c for the last time", "a", "b"}; !slices.Equal(tried, want) {
			t.Errorf("tried %q, want %q", tried, want)
		}
	})
}

// TestClose: what runs is finished, what waits is dropped.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var finished []string
		q := queue.New(queue.Options[int]{Threads: 1, Tries: 9, Delay: time.Hour, Run: func(ctx context.Context, key string, _ int, _ bool) bool {
			select {
			case <-time.After(10 * time.Second):
				finished = append(finished, key)
			case <-ctx.Done():
			}
			return true
		}})
		q.Add("first", 0)
		synctest.Wait()
		q.Add("second", 0)
		q.Add("first", 1)
		q.Close(context.Background())
		if !slices.Equal(finished, []string{"first"}) {
			t.Errorf("finished %q", finished)
		}
		// And with an end of patience.
		q = queue.New(queue.Options[int]{Threads: 1, Tries: 1, Run: func(ctx context.Context, _ string, _ int, _ bool) bool {
			<-ctx.Done()
			return true
		}})
		q.Add("stuck", 0)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		q.Close(ctx)
	})
}
