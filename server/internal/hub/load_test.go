package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/frame"
	"example.com/converge/server/internal/fakeagent"
)

// TestThousandWrongIDs: each gets its sentence, and the fixture's end checks
// that no connection and no goroutine is left.
func TestThousandWrongIDs(t *testing.T) {
	f := serve(t, nil)
	f.serveAgent("job", fakeagent.NewKey(), say("hello"))
	var group errgroup.Group
	group.SetLimit(64)
	for i := range 1000 {
		group.Go(func() error {
			_, err := frame.Dial(t.Context(), f.rv.ClientURL(fmt.Sprintf("job%d", i)), fakeagent.Transport(), nil, frame.Options{})
			wantRefused(t, err, http.StatusNotFound, "no agent is registered")
			return nil
		})
	}
	_ = group.Wait()
	if got := f.hear("job"); got != "hello" {
		t.Errorf("after the crowd heard %q", got)
	}
	f.noVisits()
}

// TestManySessions has 200 at once, each with bytes of its own both ways.
func TestManySessions(t *testing.T) {
	const sessions, size = 200, 100 << 10
	f := serve(t, nil)
	f.serveAgent("job", fakeagent.NewKey(), echo)

	var all sync.WaitGroup // all are connected before one begins
	all.Add(sessions)
	var group errgroup.Group
	for i := range sessions {
		group.Go(func() error {
			conn, err := frame.Dial(t.Context(), f.rv.ClientURL("job"), fakeagent.Transport(), nil, frame.Options{})
			all.Done()
			if err != nil {
				return fmt.Errorf("session %d: %w", i, err)
			}
			defer conn.Close()
			all.Wait()
			return roundTrip(conn, size)
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	f.noVisits()
}

// roundTrip sends random bytes to an echo and compares what comes back.
func roundTrip(conn net.Conn, size int) error {
	sent := make([]byte, size)
	if _, err := rand.Read(sent); err != nil {
		return err
	}
	var writing errgroup.Group
	writing.Go(func() error {
		_, err := conn.Write(sent)
		return err
	})
	sum := sha256.New()
	_, err := io.CopyN(sum, conn, int64(size))
	if werr := writing.Wait(); werr != nil {
		return werr
	}
	if want := sha256.Sum256(sent); err == nil && !bytes.Equal(sum.Sum(nil), want[:]) {
		return fmt.Errorf("%d bytes came back changed", size)
	}
	return err
}

// valve is a connection whose reading can be stopped.
type valve struct {
	net.Conn
	shut <-chan struct{} // closed: no more is read
	end  chan struct{}   // closed by Close
	once sync.Once
}

func (v *valve) Read(p []byte) (int, error) {
	select {
	case <-v.shut:
		<-v.end
		return 0, net.ErrClosed
	default:
		return v.Conn.Read(p)
	}
}

func (v *valve) Close() error {
	v.once.Do(func() { close(v.end) })
	return v.Conn.Close()
}

// pipes is a listener of connections in memory, which hold nothing: a peer
// that does not read is felt at once.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// TestAgentThatTakesNothing: clients of an agent that stays alive and reads
// nothing must not wait for it one after the other.
func TestAgentThatTakesNothing(t *testing.T) {
	f := serve(t, func(h *Hub) { h.sendWait = 2 * time.Second })
	memory := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	server := &http.Server{Handler: f.http.Config.Handler}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(memory) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })

	shut := make(chan struct{})
	tr := fakeagent.Transport()
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		memory.conns <- far
		return &valve{Conn: near, shut: shut, end: make(chan struct{})}, nil
	}
	a, err := fakeagent.Register(t.Context(), f.rv, "job", fakeagent.NewKey(), tr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Vanish)
	close(shut)

	// With two seconds for each the last would come too late for the test.
	var results []<-chan dialled
	for range 50 {
		results = append(results, f.dialLater("job"))
	}
	for _, ch := range results {
		got := wait(t, "a client's end", ch)
		wantRefusedOneOf(t, got.err, http.StatusBadGateway, http.StatusNotFound, http.StatusGatewayTimeout)
	}
	wait(t, "the end of the control connection", f.closed)
	_, err = f.dial("job")
	wantRefused(t, err, http.StatusNotFound, "")
}
