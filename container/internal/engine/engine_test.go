package engine

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// TestClosedKeepsNothing: what is asked after Close, or while it is called, leaves no
// connection open.
func TestClosedKeepsNothing(t *testing.T) {
	ended := make(chan struct{}, 10)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			ended <- struct{}{}
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(Options{Host: "tcp://" + s.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	gone := func(what string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(20 * time.Second): // it would be kept for 30
			t.Fatalf("%s: the connection is kept", what)
		}
	}
	ask := func(ctx context.Context) error {
		_, err := c.Image(ctx, "x")
		return err
	}
	if err := ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.Close()
	gone("an idle one")
	if err := ask(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone("a late question")

	// One that is given up while it dials gets its connection all the same.
	dial := c.dial
	dialling, goOn := make(chan struct{}), make(chan struct{})
	c.dial = func(context.Context) (net.Conn, error) {
		close(dialling)
		<-goOn
		return dial(context.Background())
	}
	ctx, cancel := context.WithCancel(t.Context())
	given := make(chan error)
	go func() { given <- ask(ctx) }()
	<-dialling
	cancel()
	if err := <-given; err == nil {
		t.Fatal("it was answered")
	}
	close(goOn)
	gone("one that was given up")
}
