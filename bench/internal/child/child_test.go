//go:build linux

package child

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"encoding/json"

	"go.uber.org/goleak"

	"example.com/converge/bench/carrier"
)

func TestMain(m *testing.M) {
	if code, asked := Main(os.Args); asked {
		os.Exit(code)
	}
	// The race detector would let every child linger for a second.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	goleak.VerifyTestMain(m)
}

// patience bounds waits; it decides no test that is right.
const patience = time.Minute

// background runs what serves until the end of the test, and returns the
// address that it is ready at.
func background(t *testing.T, run func(ctx context.Context, ready func(string)) error) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addresses := make(chan string, 1)
	done := make(chan error, 1)
	go func() { done <- run(ctx, func(address string) { addresses <- address }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
	select {
	case address := <-addresses:
		return address
	case err := <-done:
		done <- nil
		t.Fatalf("it ended before it was ready: %v", err)
	case <-time.After(patience):
		t.Fatal("it is not ready")
	}
	return ""
}

// farEnd serves connections by a carrier.
func farEnd(t *testing.T, kind carrier.Kind, address string, handle func(net.Conn)) string {
	return background(t, func(ctx context.Context, ready func(string)) error {
		return carrier.End{Kind: kind, Address: address, ID: ID(0), Ready: ready, Handle: handle}.Serve(ctx)
	})
}

func relayTo(t *testing.T, kind, target string) string {
	return background(t, func(ctx context.Context, ready func(string)) error {
		return Relay(ctx, kind, target, ready)
	})
}

// echo gives back what comes.
func echo(conn net.Conn) { _, _ = io.Copy(plain{conn}, plain{conn}) }

// relays are all of them, set up with a far end.
var relays = []struct {
	name  string
	setup func(t *testing.T, handle func(net.Conn)) (dial func() (net.Conn, error))
}{
	{TCPCopy, func(t *testing.T, handle func(net.Conn)) func() (net.Conn, error) {
		address := relayTo(t, TCPCopy, farEnd(t, carrier.TCP, "127.0.0.1:0", handle))
		return func() (net.Conn, error) { return net.Dial("tcp", address) }
	}},
	{Splice, func(t *testing.T, handle func(net.Conn)) func() (net.Conn, error) {
		address := relayTo(t, Splice, farEnd(t, carrier.TCP, "127.0.0.1:0", handle))
		return func() (net.Conn, error) { return net.Dial("tcp", address) }
	}},
	{"delay", func(t *testing.T, handle func(net.Conn)) func() (net.Conn, error) {
		target := farEnd(t, carrier.TCP, "127.0.0.1:0", handle)
		address := background(t, func(ctx context.Context, ready func(string)) error {
			return Delay(ctx, target, time.Millisecond, ready)
		})
		return func() (net.Conn, error) { return net.Dial("tcp", address) }
	}},
	{Nhooyr, func(t *testing.T, handle func(net.Conn)) func() (net.Conn, error) {
		address := relayTo(t, Nhooyr, "-")
		farEnd(t, carrier.Nhooyr, address, handle)
		return func() (net.Conn, error) { return carrier.DialWS(t.Context(), address, ID(0)) }
	}},
	{Yamux, func(t *testing.T, handle func(net.Conn)) func() (net.Conn, error) {
		address := relayTo(t, Yamux, "-")
		farEnd(t, carrier.Yamux, address, handle)
		return func() (net.Conn, error) { return carrier.DialWS(t.Context(), address, ID(0)) }
	}},
}

// TestRelays: what goes through a relay comes out as it went in, on several
// streams.
func TestRelays(t *testing.T) {
	for _, relay := range relays {
		t.Run(relay.name, func(t *testing.T) {
			dial := relay.setup(t, echo)
			for range 3 {
				conn, err := dial()
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				sent := make([]byte, 300_000)
				_, _ = rand.Read(sent)
				wrote := make(chan error, 1)
				go func() {
					_, err := conn.Write(sent)
					wrote <- err
				}()
				got := make([]byte, len(sent))
				if _, err := io.ReadFull(conn, got); err != nil {
					t.Fatal(err)
				}
				if err := <-wrote; err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, sent) {
					t.Error("what came back is not what was sent")
				}
			}
		})
	}
}

// TestRaw: uploads and downloads of any length, one after the other.
func TestRaw(t *testing.T) {
	for _, relay := range relays {
		t.Run(relay.name, func(t *testing.T) {
			conn, err := relay.setup(t, Raw)()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			for _, n := range []int64{1, carrier.Chunk, 0, 3*carrier.Chunk + 1} {
				if err := Upload(conn, n); err != nil {
					t.Errorf("Upload(%d): %v", n, err)
				}
				if err := Download(conn, n); err != nil {
					t.Errorf("Download(%d): %v", n, err)
				}
			}
		})
	}
}

// TestRawShort: a connection that ends early is an error.
func TestRawShort(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.CopyN(io.Discard, far, 9)
		_, _ = far.Write(make([]byte, 10))
		_ = far.Close()
	}()
	if err := Download(near, 11); err == nil {
		t.Error("10 bytes passed for 11")
	}
	<-done
}

// TestDelay: nothing comes back before both ways have been gone.
func TestDelay(t *testing.T) {
	const each = 20 * time.Millisecond
	target := farEnd(t, carrier.TCP, "127.0.0.1:0", echo)
	address := background(t, func(ctx context.Context, ready func(string)) error {
		return Delay(ctx, target, each, ready)
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		start := time.Now()
		if _, err := conn.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 2*each {
			t.Errorf("it came back after %v, want %v at least", took, 2*each)
		}
	}
}

// TestReap: the time of a descendant that lost its parent counts, and the
// status is the command's own.
func TestReap(t *testing.T) {
	tests := []struct {
		name, script string
		code         int
		least        time.Duration // CPU
	}{
		{"nothing", "exit 0", 0, 0},
		{"status", "exit 7", 7, 0},
		{"signal", "kill -TERM $$", 128 + 15, 0},
		{"work", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done", 0, 10 * time.Millisecond},
		{"orphan", "(i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done) & exit 3", 3, 10 * time.Millisecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer read.Close()
			cmd := exec.CommandContext(t.Context(), os.Args[0], Arg, "reap", "sh", "-c", test.script)
			cmd.ExtraFiles = []*os.File{write}
			err = cmd.Run()
			_ = write.Close()
			if err != nil {
				t.Fatal(err)
			}
			var usage Usage
			if err := json.NewDecoder(read).Decode(&usage); err != nil {
				t.Fatal(err)
			}
			if usage.Code != test.code || usage.Wall <= 0 || usage.CPU < test.least {
				t.Errorf("usage %+v, want status %d and CPU %v at least", usage, test.code, test.least)
			}
		})
	}
}

// TestMainRefuses: a child that does not exist says so.
func TestMainRefuses(t *testing.T) {
	for _, args := range [][]string{{"relay", "none", "x"}, {"relay"}, {"dance"}, {"delay", "x", "long"}, {"far", "none", "x", "0", "1"}, {"far", "tcp", "x", "a", "1"}} {
		out, err := exec.CommandContext(t.Context(), os.Args[0], append([]string{Arg}, args...)...).CombinedOutput()
		if err == nil || len(strings.TrimSpace(string(out))) == 0 {
			t.Errorf("%q: %v, %q", args, err, out)
		}
	}
	if _, asked := Main([]string{"bench", "--rounds", "1"}); asked {
		t.Error("options were taken for a child")
	}
}
