package wsconn

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is the time after which a test gives up on something that must
// happen.
const patience = 30 * time.Second

// quiet has no pings in it, for tests that look at frames.
var quiet = Options{KeepAlive: -1}

// accepting is a server that hands over the connections that it accepts.
type accepting struct {
	url    string
	client *http.Transport
	conns  chan *Conn
}

// serve starts a server that accepts websockets, also with TLS.
func serve(t *testing.T, opts Options, secure bool) *accepting {
	t.Helper()
	a := &accepting{conns: make(chan *Conn, 16)}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := Accept(w, r, opts)
		if err != nil {
			t.Errorf("Accept: %v", err)
			return
		}
		a.conns <- conn
	})
	server := httptest.NewUnstartedServer(handler)
	a.client = &http.Transport{}
	if secure {
		server.StartTLS()
		a.client.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		a.client.TLSClientConfig.NextProtos = nil
		a.client.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	a.url = strings.Replace(server.URL, "http", "ws", 1)
	return a
}

// dial connects both ends over a loopback server.
func (a *accepting) dial(t *testing.T, opts Options) (client, server *Conn) {
	t.Helper()
	client, err := Dial(t.Context(), a.url, a.client, nil, opts)
	if err != nil {
		t.Fatal(err)
	}
	server = <-a.conns
	t.Cleanup(func() { closeAll(client, server) })
	return client, server
}

// closeAll closes at the same time, so that none waits for another.
func closeAll(conns ...net.Conn) {
	var all sync.WaitGroup
	for _, c := range conns {
		all.Go(func() { c.Close() })
	}
	all.Wait()
}

// rawPeer is a peer that speaks in single frames.
type rawPeer struct {
	t *testing.T
	net.Conn
	in     *bufio.Reader
	client bool // it masks
}

// Opcodes and bits of RFC 6455 §5.2.
const (
	continuation = 0x0
	text         = 0x1
	binaryFrame  = 0x2
	closeFrame   = 0x8
	ping         = 0x9
	pong         = 0xA
	fin          = 0x80
	rsv1         = 0x40
	rsv2         = 0x20
	rsv3         = 0x10
)

const handshake = "GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: other, mine\r\n\r\n"

// dialRaw makes a raw client of a server; first is sent together with the
// handshake.
func (a *accepting) dialRaw(t *testing.T, first ...[]byte) (*rawPeer, *Conn) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.url, "ws://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	peer := &rawPeer{t: t, Conn: conn, in: bufio.NewReader(conn), client: true}
	peer.send(append([]byte(handshake), bytes.Join(first, nil)...))
	resp, err := http.ReadResponse(peer.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Fatalf("the handshake was answered %v", resp)
	}
	server := <-a.conns
	t.Cleanup(func() { closeAll(conn, server) })
	return peer, server
}

// acceptRaw makes a raw server of a client that Dial made; first is sent
// together with the answer to the handshake.
func acceptRaw(t *testing.T, opts Options, first ...[]byte) (*rawPeer, *Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	peers := make(chan *rawPeer, 1)
	go func() {
		defer close(peers)
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		peer := &rawPeer{t: t, Conn: conn, in: bufio.NewReader(conn)}
		req, err := http.ReadRequest(peer.in)
		if err != nil {
			t.Error(err)
			return
		}
		if offer := req.Header.Get("Sec-WebSocket-Extensions"); offer != "" {
			t.Errorf("Dial offers %q", offer)
		}
		sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		answer := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
		peer.send(append([]byte(answer), bytes.Join(first, nil)...))
		peers <- peer
	}()
	client, err := Dial(t.Context(), "ws://"+listener.Addr().String(), &http.Transport{}, nil, opts)
	peer := <-peers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeAll(peer, client) })
	return peer, client
}

// frame makes one; a client's mask is fixed.
func (p *rawPeer) frame(first byte, payload []byte) []byte {
	return makeFrame(p.client, first, payload)
}

func makeFrame(masked bool, first byte, payload []byte) []byte {
	f := []byte{first}
	switch n := len(payload); {
	case n < 126:
		f = append(f, byte(n))
	case n < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(n))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(n))
	}
	if !masked {
		return append(f, payload...)
	}
	f[1] |= 0x80
	mask := []byte{1, 2, 3, 4}
	f = append(f, mask...)
	for i, b := range payload {
		f = append(f, b^mask[i%4])
	}
	return f
}

// send writes bytes as they are.
func (p *rawPeer) send(frames ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(frames, nil)); err != nil {
		p.t.Error(err)
	}
}

// receive reads one frame.
func (p *rawPeer) receive() (first byte, payload []byte, err error) {
	if err := p.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, nil, err
	}
	var head [2]byte
	if _, err := io.ReadFull(p.in, head[:]); err != nil {
		return 0, nil, err
	}
	if (head[1]&0x80 != 0) == p.client {
		return 0, nil, errors.New("masked by the wrong side")
	}
	length := uint64(head[1] & 0x7f)
	extended := make([]byte, map[uint64]int{126: 2, 127: 8}[length])
	if _, err := io.ReadFull(p.in, extended); err != nil {
		return 0, nil, err
	}
	if len(extended) > 0 {
		length = 0
		for _, b := range extended {
			length = length<<8 | uint64(b)
		}
	}
	var mask [4]byte
	if !p.client {
		if _, err := io.ReadFull(p.in, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(p.in, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, nil
}

// wantClose reads up to the close frame and answers it.
func (p *rawPeer) wantClose(code uint16, reason string) {
	p.t.Helper()
	for {
		first, payload, err := p.receive()
		if err != nil {
			p.t.Errorf("instead of a close frame: %v", err)
			return
		}
		if first != fin|closeFrame {
			continue
		}
		if got := binary.BigEndian.Uint16(payload); got != code || string(payload[2:]) != reason {
			p.t.Errorf("closed with %d %q, want %d %q", got, payload[2:], code, reason)
		}
		_, _ = p.Write(p.frame(fin|closeFrame, payload)) // perhaps nobody waits for it
		return
	}
}

// closing makes the payload of a close frame.
func closing(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}
