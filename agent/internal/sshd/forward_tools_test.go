//go:build linux

package sshd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// target is what something is forwarded to: it serves each connection.
type target struct {
	net.Listener
	wg sync.WaitGroup
}

// duplex is a connection that can end in one direction.
type duplex interface {
	net.Conn
	CloseWrite() error
}

// newTarget listens until the end of the test, which waits for all that serve
// has begun.
func newTarget(t testing.TB, network, addr string, serve func(duplex)) *target {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &target{Listener: l}
	s.wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer nc.Close()
				serve(nc.(duplex))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.wg.Wait()
	})
	return s
}

// serveOn serves what a listener of the client accepts, until the end of the
// test.
func serveOn(t testing.TB, l net.Listener, serve func(duplex)) {
	t.Helper()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer nc.Close()
				serve(nc.(duplex))
			})
		}
	})
	t.Cleanup(func() {
		l.Close() // an error means that the connection is gone
		serving.Wait()
	})
}

// blackHole is an address that answers nothing: that of a listener whose queue
// is full.
func blackHole(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 16 {
		nc, err := net.DialTimeout("tcp", addr, 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { nc.Close() })
	}
	t.Fatal("the queue of a listener does not fill")
	return ""
}

// directTo is the data of a direct-tcpip channel.
func directTo(t testing.TB, addr string) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return ssh.Marshal(directMessage{host, uint32(n), "127.0.0.1", 1})
}

// mirror answers only when it has all, so that whoever does not hand on the
// end of one direction waits for ever.
func mirror(nc duplex) {
	data, err := io.ReadAll(nc)
	if err != nil {
		return
	}
	_, _ = fmt.Fprintf(nc, "%d:", len(data))
	_, _ = nc.Write(data)
}

// askMirror sends data, ends, and compares what comes back.
func askMirror(t testing.TB, nc net.Conn, data []byte) {
	t.Helper()
	defer nc.Close()
	if _, err := nc.Write(data); err != nil {
		t.Error(err)
		return
	}
	if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
		return
	}
	got, err := io.ReadAll(nc)
	if err != nil {
		t.Error(err)
	}
	same(t, "mirrored", got, append(fmt.Appendf(nil, "%d:", len(data)), data...))
}

// closedEarly is a target that ends its own direction first: it greets, ends,
// and hands what still comes to got.
func closedEarly(got chan<- []byte) func(duplex) {
	return func(nc duplex) {
		_, _ = io.WriteString(nc, "greeting")
		_ = nc.CloseWrite()
		data, _ := io.ReadAll(nc)
		got <- data
	}
}

// askEarly is the counterpart of closedEarly.
func askEarly(t testing.TB, nc net.Conn, data []byte, got <-chan []byte) {
	t.Helper()
	defer nc.Close()
	text, err := io.ReadAll(nc)
	if err != nil || string(text) != "greeting" {
		t.Errorf("%q %v", text, err)
	}
	// The other direction is still there.
	if _, err := nc.Write(data); err != nil {
		t.Error(err)
		return
	}
	if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Error(err)
		return
	}
	same(t, "sent after the end", <-got, data)
}

// balanced waits until as many forwards were closed as opened.
func (b *bench) balanced(id, times int) {
	b.t.Helper()
	b.events.wait(b.t, fmt.Sprintf("forward closed %d", id), times)
	if n := b.events.count(fmt.Sprintf("forward opened %d", id)); n != times {
		b.t.Errorf("%d forwards opened, want %d: %q", n, times, b.events.all())
	}
}

// noActivity checks that forwarded bytes hold no job.
func (b *bench) noActivity() {
	b.t.Helper()
	for _, line := range b.events.all() {
		if strings.HasPrefix(line, "activity") {
			b.t.Errorf("forwarded traffic is activity: %q", b.events.all())
			return
		}
	}
}
