package carrier

import (
	"context"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestServeTCP: clients reach Handle, and the end of ctx ends those that are
// being handled and is no error.
func TestServeTCP(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan string, 1)
	ended := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- End{
			Kind: TCP, Address: "127.0.0.1:0", Ready: func(address string) { ready <- address },
			Handle: func(conn net.Conn) {
				_, _ = conn.Write([]byte{1})
				_, _ = conn.Read(make([]byte, 1)) // until it is closed
				close(ended)
			},
		}.Serve(ctx)
	}()
	conn, err := net.Dial("tcp", <-ready)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	if err := <-done; err != nil {
		t.Errorf("the end of its context gave %v", err)
	}
}

// TestServeFails: a carrier that cannot begin says so.
func TestServeFails(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []Kind{Converge, Nhooyr, Yamux, "pigeon"} {
		err := End{Kind: kind, Address: nobody, ID: "x", Ready: func(string) { t.Error("it is ready") }}.Serve(t.Context())
		if err == nil {
			t.Errorf("%s: no error", kind)
		} else if kind == "pigeon" && !strings.Contains(err.Error(), "pigeon") {
			t.Errorf("%v does not name the carrier", err)
		}
	}
	if _, err := DialWS(t.Context(), nobody, "x"); err == nil {
		t.Error("a websocket to nobody was opened")
	}
}
