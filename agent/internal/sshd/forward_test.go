//go:build linux

package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// halfCloses tries both orders of ending: dial opens a connection that ends up
// at what listen listens at, on the network.
func (b *bench) halfCloses(dial func(addr net.Addr) net.Conn, listen func(serve func(duplex)) net.Addr) {
	b.t.Helper()
	data := noise(3<<20, 11) // more than a channel's window
	got := make(chan []byte, 1)
	askMirror(b.t, dial(listen(mirror)), data)
	askEarly(b.t, dial(listen(closedEarly(got))), data, got)
}

// Either side may end its direction first; the other goes on.
func TestForwardHalfClose(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	dial := func(addr net.Addr) net.Conn {
		nc, err := client.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	b.halfCloses(dial, func(serve func(duplex)) net.Addr {
		return newTarget(t, "tcp", "127.0.0.1:0", serve).Addr()
	})
	b.halfCloses(dial, func(serve func(duplex)) net.Addr {
		return newTarget(t, "unix", filepath.Join(t.TempDir(), "s"), serve).Addr()
	})
	b.balanced(1, 4)
	b.noActivity()
}

// The same the other way, with any port and with a socket.
func TestRemoteForwardHalfClose(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	dial := func(addr net.Addr) net.Conn {
		nc, err := net.Dial(addr.Network(), addr.String())
		if err != nil {
			t.Fatal(err)
		}
		return nc
	}
	b.halfCloses(dial, func(serve func(duplex)) net.Addr {
		l, err := client.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		serveOn(t, l, serve)
		return l.Addr()
	})
	b.halfCloses(dial, func(serve func(duplex)) net.Addr {
		path := filepath.Join(t.TempDir(), "s")
		l, err := client.ListenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info.Mode(), err)
		}
		serveOn(t, l, serve)
		return &net.UnixAddr{Name: path, Net: "unix"}
	})
	client.Close()
	b.events.wait(t, "logout 1", 1)
	b.balanced(1, 8) // four listeners with a connection each
	b.noActivity()
}

// What a client has sent before it closed the channel arrives, and a target
// that says nothing is told of the end.
func TestForwardClosedByClient(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	got := make(chan []byte, 1)
	to := newTarget(t, "tcp", "127.0.0.1:0", func(nc duplex) {
		data, _ := io.ReadAll(nc)
		got <- data
	})
	nc, err := client.Dial("tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	data := noise(1<<20, 12)
	if _, err := nc.Write(data); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	same(t, "sent before the end", <-got, data)
	b.balanced(1, 1)
}

// A target that was reset ends the channel although the client sends nothing.
func TestForwardReset(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	open := make(chan struct{})
	to := newTarget(t, "tcp", "127.0.0.1:0", func(nc duplex) {
		<-open
		_ = nc.(*net.TCPConn).SetLinger(0)
		nc.Close()
	})
	ch, requests, err := client.OpenChannel("direct-tcpip", directTo(t, to.Addr().String()))
	close(open)
	if err != nil {
		t.Fatal(err)
	}
	ssh.DiscardRequests(requests) // until the channel is closed
	ch.Close()
	b.balanced(1, 1)
}

// A target that takes no more does not keep the client from sending, nor what
// it has to say from arriving.
func TestForwardNotTaken(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	ready := make(chan struct{})
	to := newTarget(t, "unix", filepath.Join(b.dir, "s"), func(nc duplex) {
		_ = nc.(*net.UnixConn).CloseRead()
		<-ready
		_, _ = io.WriteString(nc, "still here")
	})
	nc, err := client.Dial("unix", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = nc.Write(noise(5<<20, 13)) // more than all buffers
	close(ready)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(nc); err != nil || string(text) != "still here" {
		t.Errorf("%q %v", text, err)
	}
	nc.Close()
	b.balanced(1, 1)
}

// A connection that ends takes its forwards with it, those that are stuck too,
// and frees ports and sockets.
func TestForwardsEndWithConnection(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	release := make(chan struct{})
	stuck := newTarget(t, "tcp", "127.0.0.1:0", func(duplex) { <-release })
	defer close(release)
	idle, err := client.Dial("tcp", stuck.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	full, err := client.Dial("tcp", stuck.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() { // it is stopped by the window
		for {
			if _, err := full.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	})
	port, err := client.Listen("tcp", "localhost:0")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(b.dir, "s")
	if _, err := client.ListenUnix(path); err != nil {
		t.Fatal(err)
	}
	waiting, err := net.Dial("tcp", port.Addr().String()) // the client never accepts it
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	client.Close()
	b.events.wait(t, "logout 1", 1)
	again, err := net.Listen("tcp", port.Addr().String())
	if err != nil {
		t.Errorf("the port is not free: %v", err)
	} else {
		again.Close()
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	lines := b.events.all()
	if lines[len(lines)-1] != "logout 1" || b.events.count("forward opened 1") != b.events.count("forward closed 1") {
		t.Errorf("%q", lines)
	}
}

func TestForwardFailures(t *testing.T) {
	b := newBench(t, nil)
	b.server.dialTimeout = 50 * time.Millisecond
	client := b.dial()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for addr, want := range map[string]string{
		closed.Addr().String():    "connection refused",
		blackHole(t):              "i/o timeout",
		"no-such-host.invalid:80": "no-such-host.invalid",
	} {
		_, _, err := client.OpenChannel("direct-tcpip", directTo(t, addr))
		var open *ssh.OpenChannelError
		if !errors.As(err, &open) || open.Reason != ssh.ConnectionFailed || !strings.Contains(open.Message, want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(b.dir, "none"): "no such file",
		strings.Repeat("x", 200):     "invalid",
	} {
		if _, err := client.Dial("unix", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if lines := b.events.all(); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}

// A dial ends with the connection that asked for it.
func TestForwardDialCancelled(t *testing.T) {
	b := newBench(t, nil)
	b.server.dialTimeout = time.Hour
	client := b.dial()
	var opener sync.WaitGroup
	opener.Go(func() {
		if _, _, err := client.OpenChannel("direct-tcpip", directTo(t, blackHole(t))); err == nil {
			t.Error("a black hole answers")
		}
	})
	watchtest.Eventually(t, "a dial", func() bool { return b.forwardsOpen(1) == 1 })
	client.Close()
	opener.Wait()
	b.events.wait(t, "logout 1", 1)
}

// forwardsOpen returns the number of a connection's forwards.
func (b *bench) forwardsOpen(id uint64) int {
	for _, c := range b.server.loggedIn() {
		if c.info.ID == id {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.forwards.open
		}
	}
	return 0
}

func TestForwardBounds(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	release := make(chan struct{})
	to := newTarget(t, "unix", filepath.Join(b.dir, "s"), func(duplex) { <-release })
	defer close(release)
	var first net.Conn
	for i := range maxForwards {
		nc, err := client.Dial("unix", to.Addr().String())
		if err != nil {
			t.Fatal(i, err)
		}
		if first == nil {
			first = nc
		}
	}
	if _, err := client.Dial("unix", to.Addr().String()); err == nil || !strings.Contains(err.Error(), "too many forwarded") {
		t.Errorf("one too many: %v", err)
	}
	// What is accepted here counts as well.
	path := filepath.Join(b.dir, "remote")
	l, err := client.ListenUnix(path)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := nc.Read(make([]byte, 1)); err == nil {
		t.Errorf("one too many was accepted, and said %d bytes", n)
	}
	nc.Close()
	l.Close()
	// A session is no forward.
	if err := b.session(client).Run("true"); err != nil {
		t.Error(err)
	}
	first.Close()
	watchtest.Eventually(t, "a free place", func() bool {
		nc, err := client.Dial("unix", to.Addr().String())
		if err != nil {
			return false
		}
		nc.Close()
		return true
	})
}
