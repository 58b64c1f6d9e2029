package forgekeys

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/agent/internal/keys"
)

// answers is the forge of a bubble: a RoundTripper, so that no time passes.
type answers struct {
	mu    sync.Mutex
	text  string
	err   error
	code  int
	asked []time.Duration // since start
	start time.Time
}

func (a *answers) RoundTrip(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, time.Since(a.start))
	if a.err != nil {
		return nil, a.err
	}
	return &http.Response{
		StatusCode: a.code, Header: http.Header{"Content-Type": {"text/plain"}},
		Body: io.NopCloser(strings.NewReader(a.text)), Request: r,
	}, nil
}

func (a *answers) set(code int, text string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.code, a.text, a.err = code, text, err
}

func (a *answers) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

// refreshing starts a Store of one user in a bubble.
func refreshing(t *testing.T, test func(t *testing.T, s *Store, a *answers, log *bytes.Buffer)) {
	synctest.Test(t, func(t *testing.T) {
		a := &answers{start: time.Now()}
		var log bytes.Buffer
		source := must[Source](t)(must[Server](t)(NewServer(GitHub, GitHub.Public(), "")).User("alice"))
		s := &Store{
			cfg: Config{Refresh: DefaultRefresh, MaxAge: DefaultMaxAge},
			log: slog.New(slog.NewTextHandler(&log, nil)), retries: retries,
			feeds: []*feed{{fetcher: &fetcher{source: source, now: time.Now, client: &http.Client{Transport: a}}}},
		}
		test(t, s, a, &log)
	})
}

func has(s *Store, sum keys.Digest) bool {
	_, ok := s.Owner(sum)
	return ok
}

// What the forge says counts from the next refresh on: keys that were added,
// removed, and that there is none any more.
func TestRefresh(t *testing.T) {
	a, sumA := newKey(t)
	b, sumB := newKey(t)
	refreshing(t, func(t *testing.T, s *Store, forge *answers, log *bytes.Buffer) {
		forge.set(200, a, nil)
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go s.Run(ctx)
		check := func(step string, wantA, wantB bool) {
			t.Helper()
			time.Sleep(2 * DefaultRefresh) // at least once, with any jitter
			synctest.Wait()
			if gotA, gotB := has(s, sumA), has(s, sumB); gotA != wantA || gotB != wantB {
				t.Errorf("%s: a %v, b %v; %s", step, gotA, gotB, log)
			}
		}
		check("as before", true, false)
		forge.set(200, a+"\n"+b, nil)
		check("added", true, true)
		forge.set(200, b, nil)
		check("removed", false, true)
		forge.set(200, "", nil)
		check("no key any more", false, false)
		if !strings.Contains(log.String(), "a source has no key any more") {
			t.Errorf("not logged: %s", log)
		}
		forge.set(200, `command="id" `+a+"\n"+b, nil)
		check("with options", false, true)
		cancel()
		synctest.Wait()
		n := forge.count()
		time.Sleep(24 * time.Hour)
		if forge.count() != n {
			t.Error("it is asked after the end")
		}
	})
}

// While the forge cannot be asked the keys stay, but not for ever.
func TestRefreshFails(t *testing.T) {
	line, sum := newKey(t)
	for name, test := range map[string]struct {
		code int
		text string
		err  error
	}{
		"unreachable":  {err: errors.New("no route")},
		"broken":       {code: 500},
		"not found":    {code: 404},
		"unauthorized": {code: 401},
		"nonsense":     {code: 200, text: "<html>"},
	} {
		t.Run(name, func(t *testing.T) {
			refreshing(t, func(t *testing.T, s *Store, forge *answers, log *bytes.Buffer) {
				forge.set(200, line, nil)
				if err := s.Load(t.Context()); err != nil {
					t.Fatal(err)
				}
				loaded := time.Now()
				forge.set(test.code, test.text, test.err)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go s.Run(ctx)
				time.Sleep(DefaultMaxAge - time.Since(loaded) - time.Second)
				synctest.Wait()
				if !has(s, sum) {
					t.Errorf("the keys are gone too soon: %s", log)
				}
				if n := strings.Count(log.String(), "keys stay as they were"); n != 1 {
					t.Errorf("logged %d times: %s", n, log)
				}
				// Sooner than at the ordinary interval, and not all the time.
				if n := forge.count(); n < 40 || n > 80 {
					t.Errorf("asked %d times in an hour", n)
				}
				time.Sleep(2 * time.Second)
				if has(s, sum) {
					t.Error("keys are good for ever")
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n := strings.Count(log.String(), "keys are too old"); n != 1 {
					t.Errorf("the end is logged %d times: %s", n, log)
				}
				forge.set(200, line, nil)
				time.Sleep(2 * DefaultRefresh)
				synctest.Wait()
				if !has(s, sum) || !strings.Contains(log.String(), "keys can be refreshed again") {
					t.Errorf("not good again: %s", log)
				}
				if strings.Contains(log.String(), line) {
					t.Error("the log has keys in it")
				}
			})
		})
	}
}

// Requests are spread.
func TestJitter(t *testing.T) {
	least, most := time.Duration(1<<62), time.Duration(0)
	for range 1000 {
		d := jitter(time.Minute)
		least, most = min(least, d), max(most, d)
	}
	if least < 48*time.Second || most > 72*time.Second || most-least < 12*time.Second {
		t.Errorf("from %s to %s", least, most)
	}
}

func TestTemporary(t *testing.T) {
	get := func(err error) error { return &url.Error{Op: "Get", URL: "https://x", Err: err} }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{get(io.ErrUnexpectedEOF), true},
		{get(context.DeadlineExceeded), true},
		{get(errRedirect), false},
		{&refusedError{503}, true},
		{&refusedError{404}, false},
		{errNotKeys, false},
	} {
		if got := temporary(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}
