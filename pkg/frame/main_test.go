package frame

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet turns pings off, for tests that look at every frame.
var quiet = Options{Ping: -1}

// patience bounds what a test waits for: reached only when it fails.
const patience = 2 * time.Minute

// tcpPair returns the two ends of a loopback TCP connection.
func tcpPair(t *testing.T) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	a, b, err := dialPair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func dialPair() (*net.TCPConn, *net.TCPConn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	b, err := l.Accept()
	if err != nil {
		_ = a.Close()
		return nil, nil, err
	}
	return a.(*net.TCPConn), b.(*net.TCPConn), nil
}

// smallBuffers makes the kernel hold little, so that writers meet a reader's
// pace soon.
func smallBuffers(conns ...net.Conn) {
	for _, conn := range conns {
		_ = conn.(*net.TCPConn).SetReadBuffer(64 << 10)
		_ = conn.(*net.TCPConn).SetWriteBuffer(64 << 10)
	}
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// sameBytes compares by checksum: a difference of megabytes is not printed.
func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if len(got) != len(want) || sha256.Sum256(got) != sha256.Sum256(want) {
		t.Fatalf("%s: got %d bytes, want %d bytes, or they differ", what, len(got), len(want))
	}
}

// rawFrame encodes a frame as a peer might send it.
func rawFrame(fin, masked bool, op byte, payload []byte) []byte {
	h := header{fin: fin, op: op, masked: masked, length: int64(len(payload))}
	payload = bytes.Clone(payload)
	if masked {
		_, _ = rand.Read(h.key[:])
		mask(payload, h.key, 0)
	}
	return append(appendHeader(nil, h), payload...)
}

// fromClient encodes a whole masked frame.
func fromClient(op byte, payload []byte) []byte { return rawFrame(true, true, op, payload) }

func closePayload(code int, reason string) []byte { return appendClose(nil, code, reason) }

// readFrame reads one frame that a server or, unmasked, a client sent.
func readFrame(r io.Reader) (header, []byte, error) {
	var b [maxHeader]byte
	for n := 0; ; n++ {
		h, used, err := parseHeader(b[:n])
		if errors.Is(err, errShort) && n < maxHeader {
			if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
				return header{}, nil, err
			}
			continue
		}
		if err != nil {
			return h, nil, err
		}
		if used != n {
			return h, nil, errors.New("header shorter than read")
		}
		payload := make([]byte, h.length)
		if _, err := io.ReadFull(r, payload); err != nil {
			return h, nil, err
		}
		if h.masked {
			mask(payload, h.key, 0)
		}
		return h, payload, nil
	}
}

// wantFrame reads a frame and checks its opcode.
func wantFrame(t *testing.T, r io.Reader, op byte) []byte {
	t.Helper()
	h, payload, err := readFrame(r)
	if err != nil {
		t.Fatalf("reading a frame: %v", err)
	}
	if h.op != op || !h.fin {
		t.Fatalf("got opcode %X (fin %v) with %q, want opcode %X", h.op, h.fin, payload, op)
	}
	return payload
}

// wantClose reads a close frame and checks its code.
func wantClose(t *testing.T, r io.Reader, want int) (reason string) {
	t.Helper()
	code, reason, err := parseClose(wantFrame(t, r, opClose))
	if err != nil || code != want {
		t.Fatalf("got close code %d %q (%v), want %d", code, reason, err, want)
	}
	return reason
}

func mustWrite(t *testing.T, w io.Writer, b []byte) {
	t.Helper()
	if _, err := w.Write(b); err != nil {
		t.Fatalf("write: %v", err)
	}
}

// async runs f and gives its error, once, to be received.
func async(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

func await(t *testing.T, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(patience):
		t.Fatalf("%s does not end", what)
	}
}
