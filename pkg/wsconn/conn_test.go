package wsconn

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func TestNetConn(t *testing.T) {
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			server := serve(t, Options{}, secure)
			nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
				client, err := Dial(t.Context(), server.url, server.client, nil, Options{})
				if err != nil {
					return nil, nil, nil, err
				}
				c1, c2 = client, <-server.conns
				return c1, c2, func() { closeAll(c1, c2) }, nil
			})
		})
	}
}

func TestAddresses(t *testing.T) {
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		client, server := serve(t, quiet, secure).dial(t, quiet)
		for _, addr := range []net.Addr{client.LocalAddr(), client.RemoteAddr()} {
			if tcp, ok := addr.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() || tcp.Port == 0 {
				t.Errorf("%s: %v is not a TCP address", name, addr)
			}
		}
		if client.LocalAddr().String() != server.RemoteAddr().String() || client.RemoteAddr().String() != server.LocalAddr().String() {
			t.Errorf("%s: client %v %v, server %v %v", name, client.LocalAddr(), client.RemoteAddr(), server.LocalAddr(), server.RemoteAddr())
		}
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	const size = 8 << 20
	for name, secure := range map[string]bool{"tcp": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			client, server := serve(t, Options{}, secure).dial(t, Options{})
			var all sync.WaitGroup
			transfer := func(from, to *Conn, seed byte) {
				data := make([]byte, size)
				rand.NewChaCha8([32]byte{seed}).Read(data)
				all.Go(func() {
					for rest, n := data, 1; len(rest) > 0; n = n*3%200_000 + 1 {
						piece := rest[:min(n, len(rest))]
						if _, err := from.Write(piece); err != nil {
							t.Error(err)
							return
						}
						rest = rest[len(piece):]
					}
				})
				all.Go(func() {
					sum := sha256.New()
					if n, err := io.CopyN(sum, to, size); err != nil {
						t.Errorf("after %d bytes: %v", n, err)
						return
					}
					if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
						t.Error("what arrived is not what was sent")
					}
				})
			}
			transfer(client, server, 1)
			transfer(server, client, 2)
			all.Wait()
		})
	}
}

func TestWritesAreMessages(t *testing.T) {
	peer, conn := serve(t, quiet, false).dialRaw(t)
	var sizes []int
	for _, size := range []int{1, MaxFrame, MaxFrame + 1, 0, 3*MaxFrame - 1} {
		if n, err := conn.Write(make([]byte, size)); n != size || err != nil {
			t.Fatalf("Write of %d: %d, %v", size, n, err)
		}
		for ; size > 0; size -= MaxFrame {
			sizes = append(sizes, min(size, MaxFrame))
		}
	}
	for _, want := range sizes {
		first, payload, err := peer.receive()
		if err != nil || first != fin|binaryFrame || len(payload) != want {
			t.Fatalf("got %#x, %d bytes, %v; want %d", first, len(payload), err, want)
		}
	}
}

func TestConcurrentWritesDoNotMix(t *testing.T) {
	client, server := serve(t, quiet, false).dial(t, quiet)
	const size, writers = 5 * MaxFrame / 2, 4
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			if _, err := client.Write(bytes.Repeat([]byte{byte(i)}, size)); err != nil {
				t.Error(err)
			}
		})
	}
	block := make([]byte, size)
	for range writers {
		if _, err := io.ReadFull(server, block); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(block, bytes.Repeat(block[:1], size)) {
			t.Error("two writes are mixed")
		}
	}
	all.Wait()
}

func TestSubprotocol(t *testing.T) {
	client, server := serve(t, Options{Subprotocols: []string{"b", "c"}}, false).dial(t, Options{Subprotocols: []string{"a", "c"}})
	if client.Subprotocol() != "c" || server.Subprotocol() != "c" {
		t.Errorf("agreed on %q and %q", client.Subprotocol(), server.Subprotocol())
	}
	client, server = serve(t, quiet, false).dial(t, quiet)
	if client.Subprotocol() != "" || server.Subprotocol() != "" {
		t.Errorf("agreed on %q and %q", client.Subprotocol(), server.Subprotocol())
	}
}

func TestReadDeadlineLosesNothing(t *testing.T) {
	peer, conn := serve(t, quiet, false).dialRaw(t)
	frame := peer.frame(fin|binaryFrame, []byte("hello"))
	peer.send(frame[:3]) // the deadline passes in the middle of a frame
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n, err := conn.Read(make([]byte, 9))
		var timeout net.Error
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	peer.send(frame[3:])
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestWriteDeadlineCountsWhatIsSent(t *testing.T) {
	client, server := serve(t, quiet, false).dial(t, quiet)
	if err := client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	// More than all buffers on the way hold, in small and large pieces.
	sent, data := 0, make([]byte, 64<<20)
	for i := range data {
		data[i] = byte(i % 251)
	}
	var err error
	for size := 1000; err == nil; size *= 10 {
		var n int
		n, err = client.Write(data[sent:min(sent+size, len(data))])
		sent += n
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || sent == len(data) {
		t.Fatalf("wrote %d: %v", sent, err)
	}
	if err := client.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		got := make([]byte, sent+3)
		if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got[:sent], data[:sent]) || string(got[sent:]) != "end" {
			t.Errorf("the stream is damaged: %v", err)
		}
	})
	if _, err := client.Write([]byte("end")); err != nil {
		t.Error(err)
	}
	all.Wait()
}

// A pending call notices a deadline that is set later, earlier or taken away.
func TestDeadline(t *testing.T) {
	var d deadline
	first := d.expired()
	d.set(time.Now().Add(time.Hour))
	if isDone(first) {
		t.Error("passed at once")
	}
	d.set(time.Time{})
	d.set(time.Now().Add(time.Millisecond))
	<-first
	d.set(time.Now().Add(time.Hour))
	second := d.expired()
	if isDone(second) {
		t.Error("a new deadline has passed already")
	}
	d.set(time.Unix(1, 0))
	d.set(time.Unix(1, 0))
	if !isDone(second) || !isDone(d.expired()) {
		t.Error("a deadline in the past has not passed")
	}
	d.set(time.Time{})
	if isDone(d.expired()) {
		t.Error("no deadline has passed")
	}
}

// A peer that sends pings while it reads nothing must not end a connection
// whose Write it makes wait: its pings cannot be answered at once.
func TestPingWhileWriteIsBlocked(t *testing.T) {
	peer, conn := serve(t, quiet, false).dialRaw(t)
	var all sync.WaitGroup
	all.Go(func() {
		if _, err := conn.Write(make([]byte, 64<<20)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write: %v", err)
		}
	})
	for i := range 20 {
		want := fmt.Sprint("message ", i)
		peer.send(peer.frame(fin|ping, []byte("are you there?")), peer.frame(fin|binaryFrame, []byte(want)))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	conn.Close()
	all.Wait()
}

func TestLinkBuffer(t *testing.T) {
	ours, theirs := net.Pipe() // which has no buffer of its own
	l := newLink(ours, ours)
	for range hardLimit / MaxFrame {
		if n, err := l.Write(make([]byte, MaxFrame)); n != MaxFrame || err != nil {
			t.Fatal(n, err)
		}
	}
	passed := make(chan struct{})
	close(passed)
	if err := l.wait(hardLimit-1, passed, nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing was read, but waiting gave %v", err)
	}
	if err := l.wait(hardLimit, passed, nil); err != nil {
		t.Error(err)
	}
	var all sync.WaitGroup
	all.Go(func() { // one that has to wait
		if n, err := l.Write(make([]byte, 10)); n != 10 || err != nil {
			t.Error(n, err)
		}
	})
	if _, err := io.CopyN(io.Discard, theirs, hardLimit+10); err != nil {
		t.Error(err)
	}
	all.Wait()
	if err := l.wait(0, nil, nil); err != nil {
		t.Error(err)
	}
	// Once sending has failed nobody waits, and only wait tells.
	theirs.Close()
	for range 2 * hardLimit / MaxFrame {
		if n, err := l.Write(make([]byte, MaxFrame)); n != MaxFrame || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := l.wait(0, nil, nil); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("sending failed, but waiting gave %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	<-l.done
	if _, err := l.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}
