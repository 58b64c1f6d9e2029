//go:build unix

package container_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"example.com/converge/container"
)

func testForwards(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := c.Listen(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(l.Addr().String(), ":0") {
			t.Fatalf("listens on %s", l.Addr())
		}
		through(t, w, c, l, "tcp", l.Addr().String())
		if _, err := c.Listen(t.Context(), "tcp", l.Addr().String()); err == nil {
			t.Error("two listen on one port")
		}
		_ = l.Close()
		if conn, err := c.Dial(t.Context(), "tcp", l.Addr().String()); err == nil {
			_ = conn.Close()
			t.Error("connected where nobody listens")
		} else if !strings.Contains(err.Error(), "refused") {
			t.Errorf("error %v", err)
		}
	}
	l, err := c.Listen(t.Context(), "unix", "/tmp/"+strings.ReplaceAll(t.Name(), "/", "-")+".sock")
	if err != nil {
		// An image may have no /tmp.
		if l, err = c.Listen(t.Context(), "unix", "/converge-test.sock"); err != nil {
			t.Fatal(err)
		}
	}
	through(t, w, c, l, "unix", l.Addr().String())
	_ = l.Close()
}

// testForwardsLive: a connection outlives the listener that has accepted it, one that
// has not been accepted does not, and reading can end before writing.
func testForwardsLive(t *testing.T, w *world) {
	_, c := connect(t, w.config(w.shell))
	l, err := c.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial := func() net.Conn {
		conn, err := c.Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	near := dial()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	host, port, _ := net.SplitHostPort(far.RemoteAddr().String())
	if host != "127.0.0.1" || port == "0" || far.LocalAddr().String() != l.Addr().String() {
		t.Errorf("from %v to %v", far.RemoteAddr(), far.LocalAddr())
	}
	late := dial() // nobody accepts it
	_ = l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if n, err := late.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d of a connection that nobody accepts", n)
	}
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		if _, err := io.WriteString(way[0], "still here"); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, err := io.ReadFull(way[1], buf); err != nil || string(buf) != "still here" {
			t.Fatalf("%q, %v", buf, err)
		}
	}
	if err := near.(interface{ CloseRead() error }).CloseRead(); err != nil {
		t.Error(err)
	}
	if _, err := near.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after CloseRead: %v", err)
	}
	if _, err := io.WriteString(near, "last"); err != nil {
		t.Fatal(err)
	}
	_ = near.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(far); err != nil || string(got) != "last" {
		t.Errorf("%q, %v", got, err)
	}
	_ = far.Close()
}

// through sends bytes through a listener of the container and back.
func through(t *testing.T, w *world, c *container.Connection, l net.Listener, network, address string) {
	t.Helper()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	})
	conn, err := c.Dial(t.Context(), network, address)
	if err != nil {
		_ = l.Close()
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	sent := bytes.Repeat([]byte("0123456789abcdef"), w.bulk/64)
	wg.Go(func() {
		_, _ = conn.Write(sent)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	})
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(sent), err)
	}
}
