package main

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"example.com/converge/container/guest/mux"
	"example.com/converge/container/guest/wire"
)

// TestListen has the guest listen on ports that are free, of IPv4 and IPv6, and tells
// which.
func TestListen(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1", "[::1]"} {
		f := startForward(t, command(t, "forward-server"))
		f.send(packet{Type: tSetup, Payload: marshal(t, setup{ConnectionType: portForward, BindHost: host, Protocol: "tcp"})})
		answer := f.want(tSuccess, 0)
		var granted struct{ BindPort uint32 }
		if err := cbor.Unmarshal(answer.Payload, &granted); err != nil || granted.BindPort == 0 {
			t.Fatalf("the answer is %x, %v", answer.Payload, err)
		}
		address := net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(granted.BindPort)))
		for id := uint64(1); id <= 3; id++ {
			conn := connect(t, "tcp", address)
			var what connection
			if err := cbor.Unmarshal(f.want(tNew, id).Payload, &what); err != nil {
				t.Fatal(err)
			}
			local := conn.LocalAddr().(*net.TCPAddr)
			if want := (connection{"tcp", host, granted.BindPort, local.IP.String(), uint32(local.Port)}); what != want {
				t.Errorf("it tells %+v, want %+v", what, want)
			}
			// What is written before the answer waits for it.
			_, _ = io.WriteString(conn, "hello")
			f.send(packet{Type: tSuccess, ConnectionId: id})
			if got := f.read(id, 5); got != "hello" {
				t.Errorf("it sent %q", got)
			}
			f.send(packet{Type: tData, ConnectionId: id, Payload: []byte("answer")})
			f.send(packet{Type: tClose, ConnectionId: id})
			f.want(tSuccess, id)
			if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
				t.Errorf("the socket got %q, %v", got, err)
			}
			_ = conn.Close()
		}
		// One that the front end refuses.
		conn := connect(t, "tcp", address)
		f.want(tNew, 4)
		f.send(packet{Type: tError, ConnectionId: 4})
		if got, err := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("a refused socket got %q, %v", got, err)
		}
		// The front end opens none here.
		f.dial(5, conn.RemoteAddr())
		f.want(tError, 5)
		f.eof()
	}
}

// TestBindFails is an error, not a success and a dead process.
func TestBindFails(t *testing.T) {
	taken := listen(t, "tcp", "127.0.0.1:0", echo).(*net.TCPAddr)
	for said, s := range map[string]setup{
		"address already in use": {ConnectionType: portForward, BindHost: "127.0.0.1", BindPort: uint32(taken.Port), Protocol: "tcp"},
		"cannot listen on":       {ConnectionType: socketForward, BindHost: "/nowhere/socket", Protocol: "unix"},
		"needs a path":           {ConnectionType: socketForward},
		"beyond 65535":           {ConnectionType: portForward, BindPort: 65536, Protocol: "tcp"},
		"use tcp or unix":        {ConnectionType: portForward, BindPort: 1, Protocol: "sctp"},
	} {
		f := startForward(t, command(t, "forward-server"))
		f.send(packet{Type: tSetup, Payload: marshal(t, s)})
		if p := f.want(tError, 0); p.Payload != nil {
			t.Errorf("the original's front end is sent a payload %q", p.Payload)
		}
		f.ends(1, said)
		// A front end of ours is told why.
		f = startForward(t, command(t, "forward-server"))
		_, _, err := mux.Dial(f.stdout, f.stdin, wire.Setup{
			ConnectionType: wire.ConnectionType(s.ConnectionType), BindHost: s.BindHost, BindPort: uint64(s.BindPort), Protocol: s.Protocol,
		}, mux.Config{})
		if err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("our front end is told %v, want %q", err, said)
		}
		f.ends(1, said)
	}
}

// TestNoMore closes the listener and keeps what is open; when that is over, too, the
// guest ends.
func TestNoMore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	for _, kind := range []uint32{portForward, socketForward} { // the original uses the first for both
		f := forward(t, setup{ConnectionType: kind, BindHost: path, Protocol: "unix"})
		if m := mode(t, path); m != 0o600 {
			t.Errorf("the socket is %v", m)
		}
		conn := connect(t, "unix", path)
		var what connection
		if err := cbor.Unmarshal(f.want(tNew, 1).Payload, &what); err != nil || what != (connection{Protocol: "unix", ConnectedAddress: path}) {
			t.Errorf("it tells %+v, %v", what, err)
		}
		f.send(packet{Type: tSuccess, ConnectionId: 1})
		f.send(packet{Type: tNoMore})
		// Data behind it are read after it.
		f.send(packet{Type: tData, ConnectionId: 1, Payload: []byte("still here")})
		buf := make([]byte, 10)
		if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != "still here" {
			t.Errorf("the socket got %q, %v", buf, err)
		}
		if other, err := net.Dial("unix", path); err == nil {
			_ = other.Close()
			t.Error("it still listens")
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket is still there")
		}
		_, _ = io.WriteString(conn, "bye")
		_ = conn.Close()
		if got := f.read(1, 3); got != "bye" {
			t.Errorf("it sent %q", got)
		}
		f.want(tClose, 1)
		f.send(packet{Type: tSuccess, ConnectionId: 1})
		f.ends(0, "")
	}
	f := forward(t, setup{ConnectionType: portDial})
	f.dial(1, listen(t, "tcp", "127.0.0.1:0", echo))
	f.want(tSuccess, 1)
	f.send(packet{Type: tNoMore})
	f.send(packet{Type: tNew, ConnectionId: 2, Payload: marshal(t, connection{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: 1})})
	f.want(tError, 2)
	f.send(packet{Type: tData, ConnectionId: 1, Payload: []byte("x")})
	f.read(1, 1)
	f.send(packet{Type: tClose, ConnectionId: 1})
	f.want(tSuccess, 1)
	f.ends(0, "")
}

func TestSingleConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	f := forward(t, setup{ConnectionType: socketForward, BindHost: path, Protocol: "unix", SingleConnection: true})
	conn := connect(t, "unix", path)
	f.want(tNew, 1)
	f.send(packet{Type: tSuccess, ConnectionId: 1})
	_ = conn.Close()
	f.want(tClose, 1)
	f.send(packet{Type: tSuccess, ConnectionId: 1})
	f.ends(0, "")
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
}

// ours is a front end with the extensions.
func ours(t *testing.T, s wire.Setup) (*frontEnd, *mux.Session, wire.Granted) {
	t.Helper()
	f := startForward(t, command(t, "forward-server"))
	session, granted, err := mux.Dial(f.stdout, f.stdin, s, mux.Config{})
	if err != nil {
		t.Fatalf("%v: %s", err, &f.stderr)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = session.Run() })
	t.Cleanup(func() {
		_ = f.stdin.Close()
		running.Wait()
		if err := f.cmd.Wait(); err != nil {
			t.Errorf("it ended with %v: %s", err, &f.stderr)
		}
	})
	return f, session, granted
}

// TestHalfClose ends one direction of a connection and goes on with the other, each
// way, where both ends know how.
func TestHalfClose(t *testing.T) {
	to := listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		all, _ := io.ReadAll(conn) // up to the end of what the client sends
		_, _ = io.WriteString(conn, strings.ToUpper(string(all)))
	})
	_, session, _ := ours(t, wire.Setup{ConnectionType: wire.ConnectionPortDial})
	stream, err := session.Open(wire.New{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: uint64(to.(*net.TCPAddr).Port)})
	if err != nil {
		t.Fatal(err)
	}
	question := strings.Repeat("question ", 500_000)
	if _, err := io.WriteString(stream, question); err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseWrite()
	if got, err := io.ReadAll(stream); err != nil || string(got) != strings.ToUpper(question) {
		t.Errorf("the answer has %d bytes, %v, want %d", len(got), err, len(question))
	}
	<-stream.Done()

	// What the guest accepts ends its direction first.
	path := filepath.Join(t.TempDir(), "socket")
	accepted := make(chan *mux.Stream, 1)
	f := startForward(t, command(t, "forward-server"))
	session, _, err = mux.Dial(f.stdout, f.stdin, wire.Setup{ConnectionType: wire.ConnectionSocketForward, BindHost: path, Protocol: "unix"},
		mux.Config{Incoming: func(st *mux.Stream) { accepted <- st }})
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = session.Run() })
	conn := connect(t, "unix", path)
	_, _ = io.WriteString(conn, "question")
	_ = conn.(*net.UnixConn).CloseWrite()
	stream = <-accepted
	if err := stream.Accept(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(stream); err != nil || string(got) != "question" {
		t.Errorf("the question is %q, %v", got, err)
	}
	_, _ = io.WriteString(stream, "answer")
	_ = stream.CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "answer" {
		t.Errorf("the answer is %q, %v", got, err)
	}
	<-stream.Done()
	if err := session.NoMore(); err != nil {
		t.Fatal(err)
	}
	running.Wait() // it ends by itself
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, &f.stderr)
	}
}

// TestUnreadEitherWay: with the extensions the hundredth connection, which neither end
// reads, stands still and takes no memory, and the others go on, in either direction.
func TestUnreadEitherWay(t *testing.T) {
	release := make(chan struct{})
	stuck := listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		_, _ = conn.Write(make([]byte, 64<<20)) // nobody reads that, and it reads nothing
		<-release
	})
	defer close(release)
	to := listen(t, "tcp", "127.0.0.1:0", echo)
	_, session, _ := ours(t, wire.Setup{ConnectionType: wire.ConnectionPortDial})
	open := func(to net.Addr) *mux.Stream {
		t.Helper()
		st, err := session.Open(wire.New{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: uint64(to.(*net.TCPAddr).Port)})
		if err == nil {
			err = st.Opened()
		}
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	unread := open(stuck)
	var writing sync.WaitGroup
	writing.Go(func() { _, _ = unread.Write(make([]byte, 64<<20)) })
	word := strings.Repeat("0123456789", 100_000)
	var others sync.WaitGroup
	for range 99 {
		st := open(to)
		others.Go(func() { _, _ = io.WriteString(st, word); _ = st.CloseWrite() })
		others.Go(func() {
			if got, err := io.ReadAll(st); err != nil || string(got) != word {
				t.Errorf("the echo has %d bytes, %v", len(got), err)
			}
			<-st.Done()
		})
	}
	others.Wait()
	_ = unread.Close()
	writing.Wait()
	<-unread.Done()
}
