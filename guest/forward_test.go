package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// The wire as the original's front end has it, by the encoder that it uses.
type (
	packet struct {
		Type         int
		ConnectionId uint64 //nolint:revive // its name on the wire
		Payload      []byte
	}
	setup struct {
		ConnectionType   uint32
		BindHost         string
		BindPort         uint32
		Protocol         string
		Screen           string
		SingleConnection bool
		AuthProtocol     string
		AuthCookie       string
	}
	connection struct {
		Protocol          string
		ConnectedAddress  string
		ConnectedPort     uint32
		OriginatorAddress string
		OriginatorPort    uint32
	}
)

const (
	tSetup = iota
	tSuccess
	tError
	tData
	tNew
	tClose
	tNoMore
)

const (
	x11 = iota
	portForward
	portDial
	socketForward
	socketDial
)

// frontEnd is the original's, talking to a forward-server.
type frontEnd struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout io.ReadCloser
	dec    *cbor.Decoder
	raw    bytes.Buffer // all that was read
	stderr bytes.Buffer
	left   map[uint64][]byte // data that were read and not asked for yet
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// startForward runs forward-server, or a command that does.
func startForward(t *testing.T, cmd *exec.Cmd) *frontEnd {
	t.Helper()
	f := &frontEnd{t: t, cmd: cmd, left: map[uint64][]byte{}}
	var err error
	if f.stdin, err = cmd.StdinPipe(); err == nil {
		f.stdout, err = cmd.StdoutPipe()
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &f.stderr
	f.dec = cbor.NewDecoder(io.TeeReader(f.stdout, &f.raw))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return f
}

// forward runs forward-server and gives it a setup, which succeeds.
func forward(t *testing.T, s setup) *frontEnd {
	t.Helper()
	f := startForward(t, command(t, "forward-server"))
	f.send(packet{Type: tSetup, Payload: marshal(t, s)})
	if got := f.next(); got.Type != tSuccess || got.ConnectionId != 0 {
		t.Fatalf("the answer to the setup is %+v: %s", got, &f.stderr)
	}
	return f
}

func (f *frontEnd) send(p packet) {
	f.t.Helper()
	if _, err := f.stdin.Write(marshal(f.t, p)); err != nil {
		f.t.Fatalf("%v: %s", err, &f.stderr)
	}
}

// next reads one packet.
func (f *frontEnd) next() packet {
	f.t.Helper()
	var p packet
	if err := f.dec.Decode(&p); err != nil {
		f.t.Fatalf("%v: %s", err, &f.stderr)
	}
	return p
}

// answer reads packets until one that is not data.
func (f *frontEnd) answer() packet {
	f.t.Helper()
	for {
		p := f.next()
		if p.Type != tData {
			return p
		}
		f.left[p.ConnectionId] = append(f.left[p.ConnectionId], p.Payload...)
	}
}

func (f *frontEnd) want(kind int, id uint64) packet {
	f.t.Helper()
	p := f.answer()
	if p.Type != kind || p.ConnectionId != id {
		f.t.Fatalf("the guest sent type %d for connection %d, want %d for %d: %s", p.Type, p.ConnectionId, kind, id, &f.stderr)
	}
	return p
}

// read reads n bytes of a connection.
func (f *frontEnd) read(id uint64, n int) string {
	f.t.Helper()
	for len(f.left[id]) < n {
		p := f.next()
		if p.Type != tData {
			f.t.Fatalf("the guest sent %+v, want data: %s", p, &f.stderr)
		}
		f.left[p.ConnectionId] = append(f.left[p.ConnectionId], p.Payload...)
	}
	got := f.left[id][:n]
	f.left[id] = f.left[id][n:]
	return string(got)
}

// dial opens a connection to a TCP address.
func (f *frontEnd) dial(id uint64, to net.Addr) {
	f.t.Helper()
	tcp := to.(*net.TCPAddr)
	f.send(packet{Type: tNew, ConnectionId: id, Payload: marshal(f.t, connection{"tcp", tcp.IP.String(), uint32(tcp.Port), "192.0.2.1", 1})})
}

// ends waits until the guest has ended by itself.
func (f *frontEnd) ends(code int, said string) {
	f.t.Helper()
	rest, err := io.ReadAll(f.stdout)
	if err != nil || len(rest) > 0 {
		f.t.Errorf("at its end it sent %x, %v", rest, err)
	}
	err = f.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || f.cmd.ProcessState.ExitCode() != code || !strings.Contains(f.stderr.String(), said) || said == "" && f.stderr.Len() > 0 {
		f.t.Errorf("it ended with %v and said %q, want %d and %q", err, &f.stderr, code, said)
	}
}

// eof closes its standard input and waits for the end.
func (f *frontEnd) eof() {
	f.t.Helper()
	_ = f.stdin.Close()
	_, _ = io.Copy(io.Discard, f.stdout)
	if err := f.cmd.Wait(); err != nil {
		f.t.Errorf("it ended with %v: %s", err, &f.stderr)
	}
}

// listen serves connections at an address until the test ends.
func listen(t *testing.T, network, address string, serve func(net.Conn)) net.Addr {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				defer func() { _ = conn.Close() }()
				stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
				defer stop()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		conns.Wait()
	})
	return listener.Addr()
}

func echo(conn net.Conn) { _, _ = io.Copy(conn, conn) }

// connect dials what the guest listens on.
func connect(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// TestWireBytes compares what the guest sends to the byte.
func TestWireBytes(t *testing.T) {
	f := forward(t, setup{ConnectionType: portDial})
	f.dial(1, listen(t, "tcp", "127.0.0.1:0", echo))
	f.want(tSuccess, 1)
	f.send(packet{Type: tData, ConnectionId: 1, Payload: []byte("hi")})
	if got := f.read(1, 2); got != "hi" {
		t.Errorf("the echo is %q", got)
	}
	f.send(packet{Type: tClose, ConnectionId: 1})
	f.want(tSuccess, 1)
	head := func(kind, id string) string {
		return "a3 64 54797065 " + kind + " 6c 436f6e6e656374696f6e4964 " + id + " 67 5061796c6f6164 "
	}
	want, err := hex.DecodeString(strings.ReplaceAll(head("01", "00")+"f6"+head("01", "01")+"f6"+head("03", "01")+"42 6869"+head("01", "01")+"f6", " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(f.raw.Bytes(), want) {
		t.Errorf("the guest sent\n%x, want\n%x", f.raw.Bytes(), want)
	}
	f.eof()
}

// TestDial goes to IPv4, IPv6, a name and a unix socket, and is told what cannot be.
func TestDial(t *testing.T) {
	f := forward(t, setup{ConnectionType: portDial, Protocol: "tcp"})
	v4, v6 := listen(t, "tcp", "127.0.0.1:0", echo), listen(t, "tcp", "[::1]:0", echo)
	path := filepath.Join(t.TempDir(), "socket")
	listen(t, "unix", path, echo)
	port := uint32(v4.(*net.TCPAddr).Port)
	id := uint64(0)
	for _, to := range []connection{
		{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: port},
		{Protocol: "tcp", ConnectedAddress: "localhost", ConnectedPort: port},
		{Protocol: "tcp", ConnectedAddress: "::1", ConnectedPort: uint32(v6.(*net.TCPAddr).Port)},
		{Protocol: "tcp", ConnectedAddress: "[::1]", ConnectedPort: uint32(v6.(*net.TCPAddr).Port)},
		{Protocol: "unix", ConnectedAddress: path},
	} {
		id++
		f.send(packet{Type: tNew, ConnectionId: id, Payload: marshal(t, to)})
		f.want(tSuccess, id)
		f.send(packet{Type: tData, ConnectionId: id, Payload: []byte("hello")})
		if got := f.read(id, 5); got != "hello" {
			t.Errorf("%+v echoes %q", to, got)
		}
	}
	for _, to := range []connection{
		{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: 1},
		{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: 65536 + port},
		{Protocol: "unix", ConnectedAddress: path + ".none"},
		{Protocol: "unix"},
		{Protocol: "udp", ConnectedAddress: "127.0.0.1", ConnectedPort: port},
	} {
		id++
		f.send(packet{Type: tNew, ConnectionId: id, Payload: marshal(t, to)})
		f.want(tError, id)
	}
	f.eof()
}

// TestUnknownClose is answered, and holds up nobody.
func TestUnknownClose(t *testing.T) {
	f := forward(t, setup{ConnectionType: portDial})
	f.send(packet{Type: tClose, ConnectionId: 4711})
	f.want(tError, 4711)
	f.dial(1, listen(t, "tcp", "127.0.0.1:0", echo))
	f.want(tSuccess, 1)
	f.send(packet{Type: tClose, ConnectionId: 1})
	f.want(tSuccess, 1)
	f.send(packet{Type: tClose, ConnectionId: 1}) // it is not there any more
	f.want(tError, 1)
	f.eof()
}

// TestUnreadConnection has a hundred connections, one of which is sent a lot and
// never read, while the others go on.
func TestUnreadConnection(t *testing.T) {
	release := make(chan struct{})
	stuck := listen(t, "tcp", "127.0.0.1:0", func(net.Conn) { <-release })
	defer close(release)
	f := forward(t, setup{ConnectionType: portDial})
	f.dial(1, stuck)
	f.want(tSuccess, 1)
	to := listen(t, "tcp", "127.0.0.1:0", echo)
	for id := uint64(2); id <= 100; id++ {
		f.dial(id, to)
	}
	answered := map[uint64]bool{}
	for len(answered) < 99 {
		p := f.next()
		if p.Type != tSuccess || answered[p.ConnectionId] {
			t.Fatalf("the guest sent %+v", p)
		}
		answered[p.ConnectionId] = true
	}
	lot := make([]byte, 128<<10)
	for round := range 10 {
		for range 16 { // 20 MiB in all
			f.send(packet{Type: tData, ConnectionId: 1, Payload: lot})
		}
		word := strings.Repeat(string(rune('a'+round)), 2000)
		for id := uint64(2); id <= 100; id++ {
			f.send(packet{Type: tData, ConnectionId: id, Payload: []byte(word)})
		}
		for id := uint64(2); id <= 100; id++ {
			if got := f.read(id, len(word)); got != word {
				t.Fatalf("connection %d echoes %q", id, got)
			}
		}
	}
	for id := uint64(1); id <= 100; id++ {
		f.send(packet{Type: tClose, ConnectionId: id})
		f.want(tSuccess, id)
	}
	f.send(packet{Type: tNew, ConnectionId: 101, Payload: marshal(t, connection{Protocol: "tcp", ConnectedAddress: "127.0.0.1", ConnectedPort: 1})})
	f.want(tError, 101)
	f.eof()
}

// TestEndOfInput ends the guest, whatever is open, and brings what was sent before
// to its place.
func TestEndOfInput(t *testing.T) {
	startForward(t, command(t, "forward-server")).eof() // before the setup

	received := make(chan string, 1)
	to := listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		all, _ := io.ReadAll(conn)
		received <- string(all)
	})
	f := forward(t, setup{ConnectionType: portDial})
	f.dial(1, to)
	f.want(tSuccess, 1)
	words := strings.Repeat("last words ", 100_000)
	for part := range strings.SplitSeq(words, "w") {
		f.send(packet{Type: tData, ConnectionId: 1, Payload: []byte(part)})
	}
	f.eof()
	if got := <-received; got != strings.ReplaceAll(words, "w", "") {
		t.Errorf("%d bytes arrived", len(got))
	}
	// And while it listens.
	f = forward(t, setup{ConnectionType: portForward, BindHost: "127.0.0.1", Protocol: "tcp"})
	f.eof()
}

// TestCloseDelivers: what came before a close is written, as is what a socket sent
// before its end.
func TestCloseDelivers(t *testing.T) {
	received := make(chan int, 1)
	to := listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		n, _ := io.Copy(io.Discard, conn)
		received <- int(n)
	})
	f := forward(t, setup{ConnectionType: portDial})
	f.dial(1, to)
	f.want(tSuccess, 1)
	for range 64 {
		f.send(packet{Type: tData, ConnectionId: 1, Payload: make([]byte, 32<<10)})
	}
	f.send(packet{Type: tClose, ConnectionId: 1})
	f.want(tSuccess, 1)
	if n := <-received; n != 2<<20 {
		t.Errorf("%d bytes arrived, not 2 MiB", n)
	}
	// The other direction.
	to = listen(t, "tcp", "127.0.0.1:0", func(conn net.Conn) {
		_, _ = conn.Write(make([]byte, 2<<20))
	})
	f.dial(2, to)
	f.want(tSuccess, 2)
	f.read(2, 2<<20)
	f.want(tClose, 2)
	f.send(packet{Type: tSuccess, ConnectionId: 2})
	f.eof()
}

// TestGarbage ends it.
func TestGarbage(t *testing.T) {
	f := startForward(t, command(t, "forward-server"))
	_, _ = io.WriteString(f.stdin, "SSH-2.0-nonsense\r\n")
	f.ends(1, "malformed packet")
	f = forward(t, setup{ConnectionType: portDial})
	_, _ = f.stdin.Write([]byte{0xff})
	f.ends(1, "malformed packet")
	f = startForward(t, command(t, "forward-server"))
	f.send(packet{Type: tData})
	f.want(tError, 0)
	f.ends(1, "not a setup")
	f = startForward(t, command(t, "forward-server"))
	f.send(packet{Type: tSetup, Payload: marshal(t, setup{ConnectionType: 5})})
	f.want(tError, 0)
	f.ends(1, "connection type 5")
	// The end comes in the middle of a packet.
	f = forward(t, setup{ConnectionType: portDial})
	_, _ = f.stdin.Write([]byte{0xa3, 0x64})
	_ = f.stdin.Close()
	f.ends(1, "unexpected EOF")
}

// mode is who may use a file.
func mode(t *testing.T, file string) os.FileMode {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}
