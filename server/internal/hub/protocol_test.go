package hub

import (
	"sync"
	"testing"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

// TestProtocol has client and agent agree on a subprotocol, dialled back and
// parked.
func TestProtocol(t *testing.T) {
	f := serve(t, slowly)
	a, err := fakeagent.Connect(t.Context(), f.rv, "job", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Vanish)
	key := fakeagent.NewKey()
	hello := fakeagent.Hello(key)
	hello.Hello.Protocols = []string{"best.v2", "good.v1"}
	challenge, err := a.Ask(hello)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Ask(rendezvous.Message{Proof: rendezvous.Prove(key, challenge.Challenge.Nonce, "job")}); err != nil {
		t.Fatal(err)
	}
	for want, offered := range map[string][]string{
		"":        {"other.v1"},
		"good.v1": {"other.v1", "good.v1"},
		"best.v2": {"good.v1", "best.v2"},
	} {
		for _, parked := range []bool{false, true} {
			var data *frame.Conn
			if parked {
				data = f.park(a)
			}
			result := make(chan dialled, 1)
			go func() {
				conn, err := frame.Dial(t.Context(), f.rv.ClientURL("job"), fakeagent.Transport(), nil, frame.Options{}, offered...)
				result <- dialled{conn, err}
			}()
			var d *rendezvous.Dial
			if parked {
				d = accept(t, data)
			} else {
				if d, err = a.Dialled(); err != nil {
					t.Fatal(err)
				}
				if data, err = a.DialBack(t.Context(), d); err != nil {
					t.Fatal(err)
				}
			}
			if d.Protocol != want {
				t.Errorf("offered %q, parked %v: the agent is told %q, want %q", offered, parked, d.Protocol, want)
			}
			got := <-result
			if got.err != nil {
				t.Fatal(got.err)
			}
			if p := got.conn.Protocol(); p != want {
				t.Errorf("offered %q, parked %v: the client is told %q, want %q", offered, parked, p, want)
			}
			// Each end's Close waits for the other's.
			var ends sync.WaitGroup
			for _, conn := range []*frame.Conn{data, got.conn} {
				ends.Go(func() { _ = conn.Close() })
			}
			ends.Wait()
		}
	}
}
