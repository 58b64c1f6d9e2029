package fault

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo is a target that sends back what it gets, and ends when that does.
func echo(t *testing.T) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, struct{ io.Reader }{conn})
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return listener.Addr().String()
}

func open(t *testing.T, target string) *Gate {
	t.Helper()
	g, err := Open("127.0.0.1:0", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// enter connects, and has had a byte back.
func enter(t *testing.T, g *Gate) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", g.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	exchange(t, conn, "!")
	return conn
}

func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

// TestFair: without a fault it is a relay, half-closing included.
func TestFair(t *testing.T) {
	g := open(t, echo(t))
	conn := enter(t, g)
	text := strings.Repeat("0123456789", 100_000)
	go func() {
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, want := g.Counts.Bytes.Load(), int64(2*len(text)+2); got != want {
		t.Errorf("%d bytes counted, want %d", got, want)
	}
}

// TestPosition: a fault hits the byte that it was set for, in its direction.
func TestPosition(t *testing.T) {
	for _, test := range []struct {
		name string
		f    Fault
		want string
	}{
		{"cut down", Fault{Kind: Cut, After: 5}, "01234"},
		{"cut up", Fault{Kind: Cut, Up: true, After: 3}, "012"},
		{"reset", Fault{Kind: Reset, After: 0}, ""},
		{"swallow", Fault{Kind: Swallow, Up: true, After: 7, For: time.Millisecond}, "0123456"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := open(t, echo(t))
			conn := enter(t, g)
			if !g.Set(0, test.f) {
				t.Fatal("no connection")
			}
			// In pieces: what is behind the fault must not overtake it.
			_, _ = io.WriteString(conn, "0123456789")
			got, _ := io.ReadAll(conn)
			// A reset, or an end with something unread, may take bytes with it.
			if !strings.HasPrefix(test.want, string(got)) || test.f.Kind == Cut && !test.f.Up && string(got) != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if g.Counts.Fired[test.f.Kind].Load() != 1 {
				t.Error("the fault is not counted")
			}
		})
	}
	t.Run("stall", func(t *testing.T) {
		g := open(t, echo(t))
		conn := enter(t, g)
		begin := time.Now()
		g.Set(0, Fault{Kind: Stall, After: 5, For: 50 * time.Millisecond})
		exchange(t, conn, "0123456789")
		if took := time.Since(begin); took < 50*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
	t.Run("slow", func(t *testing.T) {
		g := open(t, echo(t))
		conn := enter(t, g)
		g.Slow(20 * time.Millisecond)
		begin := time.Now()
		exchange(t, conn, "x")
		if took := time.Since(begin); took < 40*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

// TestShut: nobody gets in, until it is raised, and then to the new target.
func TestShut(t *testing.T) {
	g := open(t, "127.0.0.1:1") // nobody is there
	if conn, err := net.Dial("tcp", g.Address()); err == nil {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a byte came from nowhere")
		}
		_ = conn.Close()
	}
	g.Shut()
	if conn, err := net.Dial("tcp", g.Address()); err == nil {
		_ = conn.Close()
		t.Error("the gate is shut and open")
	}
	g.Lead(echo(t))
	if err := g.Raise(); err != nil {
		t.Fatal(err)
	}
	conn := enter(t, g)
	if g.Live() != 1 {
		t.Errorf("%d connections", g.Live())
	}
	g.CutAll(true)
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
}

// stream is what a server sends that hands on an agent's message, in frames
// of so many bytes.
func stream(kind byte, body, size int) []byte {
	msg := append([]byte("CvR\x00"), kind)
	msg = append(binary.BigEndian.AppendUint16(msg, uint16(body)), make([]byte, body)...)
	b := []byte("HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n\x89\x02hi")
	for len(msg) > 0 {
		n := min(size, len(msg))
		switch {
		case n < 126:
			b = append(b, 0x82, byte(n))
		default:
			b = binary.BigEndian.AppendUint16(append(b, 0x82, 126), uint16(n))
		}
		b, msg = append(b, msg[:n]...), msg[n:]
	}
	return b
}

// TestPreface: the agent's first message is found however it is cut, once.
func TestPreface(t *testing.T) {
	for _, kind := range []message{welcome, resumed, refused} {
		for _, size := range []int{1, 5, 100, 1000} {
			b := stream(byte(kind), 300, size)
			for _, step := range []int{1, 7, len(b)} {
				var p preface
				for i := 0; i < len(b); i += step {
					piece := b[i:min(i+step, len(b))]
					got, want := p.see(piece), none
					if i+step >= len(b) {
						want = kind
					}
					if got != want {
						t.Fatalf("%d, frames of %d, after %d bytes of %d: %d", kind, size, i+step, len(b), got)
					}
				}
				if got := p.see(b); got != none {
					t.Errorf("it came twice: %d", got)
				}
			}
		}
	}
	var p preface
	if p.see([]byte("HTTP/1.1 101 x\r\n\r\n\x82\x0cSSH-2.0-Go\r\n")) != none || !p.over {
		t.Error("ssh was taken for a resumable stream")
	}
}

// TestTamper: only what a resumable stream carries is changed, and only a bit.
func TestTamper(t *testing.T) {
	g := open(t, echo(t))
	conn := enter(t, g)
	if g.Set(0, Fault{Kind: Tamper}) {
		t.Fatal("a plain connection was to be tampered with")
	}
	exchange(t, conn, string(stream(byte(welcome), 20, 100)))
	exchange(t, conn, "the client's frames")
	if g.Counts.Opened.Load() != 1 {
		t.Errorf("%d streams were opened", g.Counts.Opened.Load())
	}
	if !g.Set(0, Fault{Kind: Tamper, Up: true, After: 2, Bit: 3}) {
		t.Fatal("the stream was not recognised")
	}
	if _, err := io.WriteString(conn, "abcdef"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 6)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "abkdef" {
		t.Errorf("got %q, %v", got, err)
	}
}
