package forward

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"example.com/converge/container/guest/mux"
	"example.com/converge/container/guest/wire"
)

// The rest is tested with the built program, in module guest; what is here is under
// the race detector.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for an event; it decides no test that is right.
const patience = 2 * time.Minute

// start runs Serve for a front end, and returns its session, and what waits for the
// end of Serve.
func start(t *testing.T, setup wire.Setup, cfg mux.Config) (session *mux.Session, granted wire.Granted, hangUp func(), ended func() error) {
	t.Helper()
	// The kernel's: who hangs up cuts no small packet into two.
	in, toGuest, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromGuest, out := io.Pipe()
	serving := make(chan error, 1)
	go func() {
		serving <- Serve(context.Background(), in, out, nil)
		_ = out.Close()
		_ = in.Close()
	}()
	session, granted, err = mux.Dial(fromGuest, toGuest, setup, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = session.Run() })
	return session, granted, func() { _ = toGuest.Close() }, func() error {
		err := <-serving
		running.Wait()
		return err
	}
}

// TestForwardToDial joins two of them: one listens, one dials, and a hundred connections
// go through both, each direction with its own end.
func TestForwardToDial(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			echoing.Go(func() {
				all, _ := io.ReadAll(conn)
				_, _ = conn.Write(all)
				_ = conn.Close()
			})
		}
	})
	dialer, _, hangUpDialer, dialerEnded := start(t, wire.Setup{ConnectionType: wire.ConnectionPortDial}, mux.Config{})
	target := echo.Addr().(*net.TCPAddr)
	var joining sync.WaitGroup
	listener, granted, _, listenerEnded := start(t, wire.Setup{ConnectionType: wire.ConnectionPortForward, BindHost: "127.0.0.1", Protocol: "tcp"},
		mux.Config{Incoming: func(from *mux.Stream) {
			joining.Go(func() {
				to, err := dialer.Open(wire.New{Protocol: "tcp", ConnectedAddress: target.IP.String(), ConnectedPort: uint64(target.Port)})
				if err == nil {
					err = to.Opened()
				}
				if err != nil {
					_ = from.Reject(err.Error())
					return
				}
				_ = from.Accept()
				var both sync.WaitGroup
				both.Go(func() { _, _ = io.Copy(to, from); _ = to.CloseWrite() })
				both.Go(func() { _, _ = io.Copy(from, to); _ = from.CloseWrite() })
				both.Wait()
				_ = from.Close()
				_ = to.Close()
			})
		}})
	data := bytes.Repeat([]byte("0123456789abcdef"), 10_000)
	var clients sync.WaitGroup
	for range 100 {
		clients.Go(func() {
			conn, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(granted.BindPort)})
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write(data)
			_ = conn.CloseWrite()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
		})
	}
	clients.Wait()
	joining.Wait()
	if err := listener.NoMore(); err != nil {
		t.Error(err)
	}
	if err := listenerEnded(); err != nil { // by itself
		t.Error(err)
	}
	hangUpDialer()
	if err := dialerEnded(); err != nil {
		t.Error(err)
	}
	_ = echo.Close()
	echoing.Wait()
}

// TestDeafTarget: one that reads no more may still have something to say.
func TestDeafTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	target, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	deaf, more := make(chan struct{}), make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := target.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.ReadFull(conn, make([]byte, 1))
		_ = conn.(*net.UnixConn).CloseRead()
		close(deaf)
		<-more
		if _, err := io.WriteString(conn, "late answer"); err != nil {
			t.Error(err)
		}
		_ = conn.Close()
	})
	session, _, hangUp, ended := start(t, wire.Setup{ConnectionType: wire.ConnectionSocketDial}, mux.Config{})
	st, err := session.Open(wire.New{Protocol: "unix", ConnectedAddress: path})
	if err == nil {
		err = st.Opened()
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte{1}); err != nil {
		t.Error(err)
	}
	<-deaf
	// More than pipes and windows hold: it is thrown away, or this would wait.
	if _, err := st.Write(make([]byte, 4*mux.Window)); err != nil {
		t.Error(err)
	}
	close(more)
	if got, err := io.ReadAll(st); err != nil || string(got) != "late answer" {
		t.Errorf("%q, %v", got, err)
	}
	_ = st.Close()
	// The answer to this comes when all before it has been read.
	if last, err := session.Open(wire.New{Protocol: "unix", ConnectedAddress: path + "-none"}); err != nil {
		t.Error(err)
	} else if err := last.Opened(); err == nil {
		t.Error("there is something")
	}
	hangUp()
	if err := ended(); err != nil {
		t.Error(err)
	}
	serving.Wait()
	_ = target.Close()
}

// TestCancel ends what would stay.
func TestCancel(t *testing.T) {
	in, toGuest := io.Pipe()
	fromGuest, out := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	serving := make(chan error, 1)
	go func() {
		serving <- Serve(ctx, in, out, nil)
		_ = out.Close()
	}()
	session, granted, err := mux.Dial(fromGuest, toGuest, wire.Setup{ConnectionType: wire.ConnectionPortForward, BindHost: "127.0.0.1", Protocol: "tcp"}, mux.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = session.Run() })
	address := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(granted.BindPort)}
	conn, err := net.DialTCP("tcp", nil, address)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	cancel()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still there")
	}
	_ = conn.Close()
	if err := <-serving; err != nil {
		t.Error(err)
	}
	if conn, err := net.DialTCP("tcp", nil, address); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
	running.Wait()
}

// TestCancelBeforeSetup ends one that nobody has told yet what to do.
func TestCancelBeforeSetup(t *testing.T) {
	in, toGuest := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	serving := make(chan error, 1)
	go func() { serving <- Serve(ctx, in, io.Discard, nil) }()
	cancel()
	select {
	case err := <-serving:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("it does not end")
	}
	_ = toGuest.Close()
}

func TestTarget(t *testing.T) {
	for _, test := range []struct {
		protocol, host   string
		port             uint64
		network, address string
	}{
		{"tcp", "example.org", 80, "tcp", "example.org:80"},
		{"", "", 0, "tcp", ":0"},
		{"tcp", "*", 1, "tcp", ":1"},
		{"tcp", "::1", 22, "tcp", "[::1]:22"},
		{"tcp", "[fe80::1%eth0]", 65535, "tcp", "[fe80::1%eth0]:65535"},
		{"unix", "/run/a b", 5, "unix", "/run/a b"},
		{"tcp", "a", 65536, "", ""},
		{"unix", "", 0, "", ""},
		{"udp", "a", 1, "", ""},
	} {
		network, address, err := target(test.protocol, test.host, test.port)
		if network != test.network || address != test.address || (err == nil) != (test.network != "") {
			t.Errorf("%+v: %s %s, %v", test, network, address, err)
		}
	}
}
