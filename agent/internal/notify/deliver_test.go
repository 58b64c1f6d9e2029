package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/converge/pkg/watchtest"
)

// trips is a network of one's own, for tests of time.
type trips struct {
	mu    sync.Mutex
	times []time.Time
	texts []string
	// answer is given how many requests came before.
	answer func(ctx context.Context, i int) (*http.Response, error)
}

func (r *trips) RoundTrip(q *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(q.Body)
	r.mu.Lock()
	i := len(r.times)
	r.times, r.texts = append(r.times, time.Now()), append(r.texts, string(body))
	r.mu.Unlock()
	return r.answer(q.Context(), i)
}

func (r *trips) seen() ([]time.Time, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.times, r.texts
}

func answer(code int, header ...string) (*http.Response, error) {
	h := http.Header{"Content-Type": {"text/plain"}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: code, Header: h, Body: io.NopCloser(strings.NewReader("no: XXSECRETXX"))}, nil
}

// throughTrips starts a session of that network.
func throughTrips(t *testing.T, r *trips) (*Session, *watchtest.Output) {
	t.Helper()
	j := &watchtest.Output{}
	n, err := New(Config{Targets: []string{"template+https://chat.example/hooks/XXSECRETXX"}, Template: "{{.Event}} {{.Who}}", Logger: logger(j)})
	if err != nil {
		t.Fatal(err)
	}
	n.clients[0].Transport = r
	return n.Start(), j
}

func TestRetries(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer func(ctx context.Context, i int) (*http.Response, error)
		pauses []time.Duration // the least ones; the most are half as long again
		logs   string
	}{
		{"at once", func(context.Context, int) (*http.Response, error) { return answer(204) }, nil, "msg=told"},
		{"third time", func(_ context.Context, i int) (*http.Response, error) {
			if i < 2 {
				return answer(503)
			}
			return answer(200)
		}, []time.Duration{800 * time.Millisecond, 1600 * time.Millisecond}, "msg=told"},
		{"asked to wait", func(_ context.Context, i int) (*http.Response, error) {
			if i == 0 {
				return answer(429, "Retry-After", "40")
			}
			return answer(200)
		}, []time.Duration{40 * time.Second}, "msg=told"},
		{"GitHub's second limit", func(_ context.Context, i int) (*http.Response, error) {
			if i == 0 {
				return answer(403, "Retry-After", "7")
			}
			return answer(201)
		}, []time.Duration{7 * time.Second}, "msg=told"},
		{"asked to wait for too long", func(context.Context, int) (*http.Response, error) { return answer(429, "Retry-After", "3600") }, nil,
			"asked for a pause of 1h0m0s"},
		{"unreachable for ever", func(context.Context, int) (*http.Response, error) {
			return nil, &net.OpError{Op: "dial", Err: errors.New("no")}
		},
			[]time.Duration{800 * time.Millisecond, 1600 * time.Millisecond, 3200 * time.Millisecond, 6400 * time.Millisecond, 12800 * time.Millisecond},
			"could not be delivered"},
		{"hangs", func(ctx context.Context, _ int) (*http.Response, error) { <-ctx.Done(); return nil, ctx.Err() },
			[]time.Duration{10 * time.Second, 10 * time.Second, 13 * time.Second, 16 * time.Second, 22 * time.Second}, "did not answer in time"},
		{"refused", func(context.Context, int) (*http.Response, error) { return answer(400) }, nil, "it answered 400 Bad Request: no: …"},
		{"sent elsewhere", func(context.Context, int) (*http.Response, error) {
			return answer(307, "Location", "https://other.example/")
		}, nil,
			"it answered 307"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &trips{answer: test.answer}
				s, j := throughTrips(t, r)
				s.Send(Notice{Event: Waiting})
				time.Sleep(10 * time.Minute)
				s.Close(t.Context())
				times, _ := r.seen()
				if len(times) != len(test.pauses)+1 {
					t.Fatalf("%d attempts, want %d\n%s", len(times), len(test.pauses)+1, j)
				}
				for i, least := range test.pauses {
					if got := times[i+1].Sub(times[i]); got < least || got > least+least/2+5*time.Second {
						t.Errorf("pause %d is %v, want about %v", i, got, least)
					}
				}
				if !strings.Contains(j.String(), test.logs) || strings.Contains(j.String(), "SECRET") {
					t.Errorf("the log is\n%s", j)
				}
			})
		})
	}
}

// TestRefusedForGood: nothing more goes to a place that is gone.
func TestRefusedForGood(t *testing.T) {
	for _, code := range []int{401, 403, 404, 410} {
		synctest.Test(t, func(t *testing.T) {
			r := &trips{answer: func(context.Context, int) (*http.Response, error) { return answer(code) }}
			s, j := throughTrips(t, r)
			for _, n := range story() {
				s.Send(n)
			}
			s.Close(t.Context())
			if times, _ := r.seen(); len(times) != 1 || strings.Count(j.String(), "no more notices go there") != 1 {
				t.Errorf("%d: %d attempts\n%s", code, len(times), j)
			}
		})
	}
}

// TestQueue is bounded: the newest are kept, and Send does not wait.
func TestQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := &trips{answer: func(context.Context, int) (*http.Response, error) { <-release; return answer(200) }}
		s, j := throughTrips(t, r)
		s.Send(Notice{Event: Waiting})
		synctest.Wait() // it is on its way
		began := time.Now()
		for i := range 1000 {
			s.Send(Notice{Event: Connected, Who: fmt.Sprint(i)})
		}
		s.Send(Notice{Event: Ended})
		if time.Since(began) != 0 {
			t.Error("Send waited")
		}
		close(release)
		s.Close(t.Context())
		_, texts := r.seen()
		if len(texts) != 1+maxQueue || texts[maxQueue] != "ended" || texts[maxQueue-1] != "connected 999" {
			t.Errorf("%d: %q", len(texts), texts)
		}
		if !strings.Contains(j.String(), "count=985") {
			t.Errorf("%s", j)
		}
	})
}

// TestClose is over in time, whatever the receiver does, and what waits for
// another attempt is given up for the end.
func TestClose(t *testing.T) {
	hang := func(ctx context.Context, _ int) (*http.Response, error) { <-ctx.Done(); return nil, ctx.Err() }
	for name, test := range map[string]struct {
		answer func(ctx context.Context, i int) (*http.Response, error)
		most   time.Duration
		last   string
	}{
		"answers": {func(context.Context, int) (*http.Response, error) { return answer(200) }, 0, "ended"},
		"hangs":   {hang, CloseMost, "waiting"},
		"down":    {func(context.Context, int) (*http.Response, error) { return answer(500) }, CloseMost, "ended"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &trips{answer: test.answer}
				s, _ := throughTrips(t, r)
				s.Send(Notice{Event: Waiting})
				synctest.Wait()
				s.Send(Notice{Event: Ended})
				began := time.Now()
				s.Close(t.Context())
				if took := time.Since(began); took > test.most {
					t.Errorf("it took %v", took)
				}
				_, texts := r.seen()
				if got := texts[len(texts)-1]; got != test.last {
					t.Errorf("the last one is %q", got)
				}
				s.Send(Notice{Event: Waiting}) // in vain
				s.Close(t.Context())
			})
		})
	}
	t.Run("a context that ends", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _ := throughTrips(t, &trips{answer: hang})
			s.Send(Notice{Event: Waiting})
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			began := time.Now()
			s.Close(ctx)
			if took := time.Since(began); took != time.Second {
				t.Errorf("it took %v", took)
			}
		})
	})
}

// TestWorthTelling: nothing before the job waits, everybody once, warnings now and
// then.
func TestWorthTelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &trips{answer: func(context.Context, int) (*http.Response, error) { return answer(200) }}
		s, _ := throughTrips(t, r)
		for _, n := range story()[1:] {
			s.Send(n)
		}
		send := func(e Event, who string) { s.Send(Notice{Event: e, Who: who}); synctest.Wait() }
		send(Waiting, "")
		send(Connected, "a")
		send(Connected, "b")
		send(Connected, "a")
		send(Warning, "")
		time.Sleep(warnEvery - 1)
		send(Warning, "")
		time.Sleep(time.Nanosecond)
		send(Warning, "")
		send(Ended, "")
		s.Close(t.Context())
		_, texts := r.seen()
		want := "waiting, connected a, connected b, warning, warning, ended"
		if got := strings.Join(texts, ", "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestNoAnswer: what goes wrong below HTTP is said without the address.
func TestNoAnswer(t *testing.T) {
	plainServer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := plainServer.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			_ = conn.Close()
		}
	})
	defer serving.Wait()
	defer plainServer.Close()
	untrusted := newReceiver(t, nil)
	for address, want := range map[string]string{
		"https://" + plainServer.Addr().String(): "does not speak TLS",
		untrusted.URL:                            "not signed by a trusted authority",
	} {
		var j watchtest.Output
		n, err := New(Config{Targets: []string{"json+" + address + secretPath}, Logger: logger(&j)})
		if err != nil {
			t.Fatal(err)
		}
		s := n.Start()
		_, wait, err := s.workers[0].post(t.Context(), &message{}, nil, "text/plain")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") || wait >= 0 && want != "does not speak TLS" {
			t.Errorf("%v, %v, want %q", err, wait, want)
		}
		s.Close(t.Context())
	}
}
