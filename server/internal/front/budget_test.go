package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/certtest"
)

func TestBudget(t *testing.T) {
	var unlimited Budget
	unlimited.Opened()
	if unlimited.spent() {
		t.Error("no limit is spent")
	}
	for _, files := range []uint64{1, 2, 16, 64, 1024, 1 << 20, 1 << 63} {
		b := NewBudget(files)
		if b.soft < 0 || b.hard < b.soft || b.most < b.hard || uint64(b.most) >= files+1 {
			t.Errorf("%d files: soft %d, hard %d, most %d", files, b.soft, b.hard, b.most)
		}
	}
	if !NewBudget(64).fits(28) {
		t.Error("of 64 files fewer than 28 may be connections")
	}
}

// fits reports whether n connections spend less than all.
func (b *Budget) fits(n int64) bool { return n <= b.soft }

// TestBudgetSpent: newcomers are refused with words, dial-backs and pages are
// not, and later there is room again.
func TestBudgetSpent(t *testing.T) {
	budget := &Budget{soft: 2, hard: 6}
	_, addr := open(t, Config{Budget: budget})
	budget.Opened()
	budget.Opened()
	for _, target := range []string{"/agent/job", "/client/job"} {
		resp, body := get(t, addr, "GET", target)
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !resp.Close || !strings.Contains(body, "no room") {
			t.Errorf("%s: %s %q %q", target, resp.Status, resp.Header, body)
		}
	}
	for _, target := range []string{"/data", "/", "/healthz"} {
		if resp, body := get(t, addr, "GET", target); resp.StatusCode != 200 {
			t.Errorf("%s: %s %q", target, resp.Status, body)
		}
	}
	budget.Closed()
	budget.Closed()
	for budget.open.Load() > 0 { // until the server has seen the ends of those above
		if resp, _ := get(t, addr, "GET", "/healthz"); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
		if budget.open.Load() <= 2 {
			break
		}
	}
	if resp, body := get(t, addr, "GET", "/client/job"); resp.StatusCode != 200 {
		t.Errorf("with room again: %s %q", resp.Status, body)
	}
}

// counted is a Front whose count of connections can be waited for.
type counted struct {
	*Front
	addr    string
	changes *sync.Cond
}

func openCounted(t *testing.T, cfg Config) *counted {
	t.Helper()
	c := &counted{changes: sync.NewCond(new(sync.Mutex))}
	c.Front, c.addr = open(t, cfg, func(http.ConnState) {
		c.changes.L.Lock()
		defer c.changes.L.Unlock()
		c.changes.Broadcast()
	})
	return c
}

// until waits for a count.
func (c *counted) until(n int64) {
	c.changes.L.Lock()
	defer c.changes.L.Unlock()
	for c.cfg.Budget.open.Load() != n {
		c.changes.Wait()
	}
}

// crowd opens silent connections.
func (c *counted) crowd(t *testing.T, n int) {
	t.Helper()
	for range n {
		connect(t, c.addr)
	}
}

// TestBudgetFull: beyond the hard limit each newcomer is heard and told, with
// and without TLS; who was there before is served, and when some leave there is
// room again.
func TestBudgetFull(t *testing.T) {
	pair, err := certtest.New(1)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for name, server := range map[string]*tls.Config{"plain": nil, "TLS": {Certificates: []tls.Certificate{cert}}} {
		t.Run(name, func(t *testing.T) {
			dial := connect
			if server != nil {
				dial = func(t *testing.T, addr string) *peer {
					t.Helper()
					return connectTLS(t, addr, &tls.Config{RootCAs: pair.Pool(), ServerName: "localhost"})
				}
			}
			c := openCounted(t, Config{Budget: &Budget{soft: 3, hard: 4}, TLS: server, HeaderWait: patience, TurnWait: patience})
			first := dial(t, c.addr)
			c.crowd(t, 3)
			c.until(4)
			for _, target := range []string{"/", "/client/job", "/agent/job", "/data", "/readyz", "/healthz"} {
				p := dial(t, c.addr)
				p.send("GET " + target + " HTTP/1.1\r\nHost: h\r\n\r\n")
				resp, body := p.answer()
				if target == "/healthz" { // full is not dead
					if resp.StatusCode != 200 {
						t.Errorf("%s: %s %q", target, resp.Status, body)
					}
				} else if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "no room") {
					t.Errorf("%s: %s %q %q", target, resp.Status, resp.Header, body)
				}
				p.ended()
				c.until(4)
			}
			first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp, body := first.answer(); resp.StatusCode != 200 {
				t.Errorf("one that was there before: %s %q", resp.Status, body)
			}
			_ = first.Close()
			c.until(3)
			last := dial(t, c.addr)
			last.send("GET /client/job HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp, body := last.answer(); resp.StatusCode != 503 { // beyond the soft limit
				t.Errorf("a session in the last place: %s %q", resp.Status, body)
			}
			last.ended()
			c.until(3)
			last = dial(t, c.addr)
			last.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
			if resp, body := last.answer(); resp.StatusCode != 200 {
				t.Errorf("a page in the last place: %s %q", resp.Status, body)
			}
		})
	}
}

// TestSilentNewcomers fill the room for turning away too, and are thrown out
// before they have had as long as others; until then newcomers wait.
func TestSilentNewcomers(t *testing.T) {
	c := openCounted(t, Config{
		Budget:     &Budget{soft: 1, hard: 1, most: 4, freed: make(chan struct{}, 1)},
		HeaderWait: patience, TurnWait: 50 * time.Millisecond,
	})
	first := connect(t, c.addr)
	c.until(1)
	c.crowd(t, 3)
	c.until(4)
	last := connect(t, c.addr)
	last.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	last.ended()
	c.until(1) // the first, which has a minute
	first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if resp, body := first.answer(); resp.StatusCode != 200 {
		t.Errorf("who came first: %s %q", resp.Status, body)
	}
}

// TestSlowCrowd takes every place with half a request each. Their time is over
// soon, and then all is as before.
func TestSlowCrowd(t *testing.T) {
	c := openCounted(t, Config{Budget: NewBudget(64), HeaderWait: 100 * time.Millisecond, TurnWait: 50 * time.Millisecond})
	var group errgroup.Group
	for range 200 {
		group.Go(func() error {
			conn, err := net.Dial("tcp", c.addr)
			if err != nil {
				return err
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(conn, "GET /client/job HTTP/1.1\r\nX-A: a")
			_, err = io.Copy(io.Discard, conn) // to its end
			if opErr := new(net.OpError); errors.As(err, &opErr) && !opErr.Timeout() {
				err = nil // a reset is an end as well
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	c.until(0)
	if resp, body := get(t, c.addr, "GET", "/client/job"); resp.StatusCode != 200 {
		t.Errorf("after the crowd: %s %q", resp.Status, body)
	}
}

// TestShutdownWhileFull does not wait for room.
func TestShutdownWhileFull(t *testing.T) {
	budget := NewBudget(64)
	for range budget.most {
		budget.Opened()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := New(Config{Endpoints: endpoints{}, Pages: http.HandlerFunc(pages), Budget: budget})
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(l) }()
	waiting := connect(t, l.Addr().String()) // the kernel takes it
	for range 2 {
		budget.freed <- struct{}{} // the second only when Accept has taken the first
	}
	if err := f.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v", err)
	}
	waiting.ended()
}
