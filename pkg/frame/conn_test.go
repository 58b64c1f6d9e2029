package frame

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// connPair gives the two ends of a websocket over wrap's connections.
func connPair(wrap func(client, server net.Conn) (net.Conn, net.Conn)) nettest.MakePipe {
	return func() (net.Conn, net.Conn, func(), error) {
		a, b, err := dialPair()
		if err != nil {
			return nil, nil, nil, err
		}
		nc1, nc2 := wrap(a, b)
		c1, c2 := Client(nc1, nil, Options{}), Server(nc2, nil, Options{})
		return c1, c2, func() {
			// At the same time: each answers the other's close frame.
			done := async(c1.Close)
			_ = c2.Close()
			<-done
		}, nil
	}
}

func TestConnOverTCP(t *testing.T) {
	nettest.TestConn(t, connPair(func(a, b net.Conn) (net.Conn, net.Conn) { return a, b }))
}

// TestConnOverTLS runs the clauses that Conn meets over TLS, in a second
// process, for nettest gives no choice of them. FutureTimeout and
// ConcurrentMethods want writing to go on after a write that timed out.
func TestConnOverTLS(t *testing.T) {
	const child = "FRAME_TEST_TLS_CLAUSES"
	if os.Getenv(child) == "" {
		cmd := exec.Command(os.Args[0], "-test.v",
			"-test.run=^TestConnOverTLS$/^(BasicIO|PingPong|RacyRead|RacyWrite|ReadTimeout|WriteTimeout|PastTimeout|PresentTimeout|CloseTimeout)$")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Count(out, []byte("--- PASS: TestConnOverTLS/")) != 9 {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	nettest.TestConn(t, connPair(tlsWrap()))
}

// tlsWrap does TLS handshakes with a certificate of httptest's.
func tlsWrap() func(client, server net.Conn) (net.Conn, net.Conn) {
	srv := httptest.NewTLSServer(nil)
	certificates := srv.TLS.Certificates
	srv.Close()
	return func(client, server net.Conn) (net.Conn, net.Conn) {
		c := tls.Client(client, &tls.Config{InsecureSkipVerify: true})
		s := tls.Server(server, &tls.Config{Certificates: certificates})
		done := async(c.Handshake)
		_ = s.Handshake() // what failed is seen by the first Read or Write
		<-done
		return c, s
	}
}

func TestConnHalfClose(t *testing.T) {
	a, b := tcpPair(t)
	client, server := Client(a, nil, quiet), Server(b, nil, quiet)
	defer server.Close()
	defer client.Close()
	request, answer := randomBytes(t, 300_000), randomBytes(t, 3_000_000)
	served := async(func() error {
		got, err := io.ReadAll(server)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, request) {
			return errors.New("the request differs")
		}
		if _, err := server.Write(answer); err != nil {
			return err
		}
		return server.CloseWrite()
	})
	mustWrite(t, client, request)
	if err := client.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); !errors.Is(err, errCloseSent) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	got, err := io.ReadAll(client)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "server", served)
	sameBytes(t, "answer", got, answer)
}

func TestConnEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		last []byte
		want func(error) bool
	}{
		{"normal", fromClient(opClose, closePayload(CloseNormal, "bye")), isEOF},
		{"going away", fromClient(opClose, closePayload(CloseGoingAway, "")), isEOF},
		{"no status", fromClient(opClose, nil), isEOF},
		{"restart", fromClient(opClose, closePayload(CloseServiceRestart, "new version")), func(err error) bool {
			var closed *CloseError
			return errors.As(err, &closed) && closed.Code == CloseServiceRestart && closed.Reason == "new version"
		}},
		{"vanished", nil, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"vanished in a frame", fromClient(opBinary, []byte("abcdef"))[:9], func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"vanished in a header", fromClient(opBinary, []byte("abcdef"))[:3], func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw, nc := tcpPair(t)
			conn := Server(nc, nil, quiet)
			defer conn.Close()
			mustWrite(t, raw, append(fromClient(opBinary, []byte("data")), test.last...))
			_ = raw.Close()
			got, err := io.ReadAll(conn)
			if err == nil {
				err = io.EOF
			}
			if !test.want(err) {
				t.Errorf("got error %v", err)
			}
			if !bytes.HasPrefix(got, []byte("data")) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func isEOF(err error) bool { return err == io.EOF }

// TestConnCloseDelivers loops over Close right after Write, with most of what
// was written still in the closing socket, and something unread there, so that
// a plain close would throw it away.
func TestConnCloseDelivers(t *testing.T) {
	for range 20 {
		a, b := tcpPair(t)
		_, _ = a.SetWriteBuffer(1<<20), b.SetReadBuffer(32<<10)
		client, server := Client(a, nil, quiet), Server(b, nil, quiet)
		mustWrite(t, server, randomBytes(t, 50_000))
		data := randomBytes(t, 200_000)
		mustWrite(t, client, data)
		closed := async(func() error { return client.CloseWith(4000, "done") })
		got, err := io.ReadAll(server)
		var closeErr *CloseError
		if !errors.As(err, &closeErr) || closeErr.Code != 4000 || closeErr.Reason != "done" {
			t.Fatalf("got %v", err)
		}
		sameBytes(t, "data", got, data)
		_ = server.Close()
		await(t, "Close", closed)
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		if _, err := client.Write(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after Close: %v", err)
		}
		if err := client.SetReadDeadline(time.Now()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("SetReadDeadline after Close: %v", err)
		}
	}
}

// TestConnCloseUnblocks closes while a Read and a Write are stuck; the peer
// takes nothing, so the close frame's limit of five seconds is met.
func TestConnCloseUnblocks(t *testing.T) {
	t.Parallel()
	_, nc := tcpPair(t)
	conn := Client(nc, nil, Options{})
	read := async(func() error { _, err := conn.Read(make([]byte, 1)); return err })
	write := async(func() error { _, err := conn.Write(make([]byte, 256<<20)); return err })
	for !conn.send.busy() { // until the Write is under way
		select {
		case err := <-write:
			t.Fatalf("Write ended: %v", err)
		default:
		}
	}
	_ = conn.Close()
	for _, done := range []<-chan error{read, write} {
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v, want net.ErrClosed", err)
		}
	}
}

func TestConnSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, nc := net.Pipe()
		conn := Server(nc, nil, Options{})
		defer conn.Close()
		pings := make(chan int, 1)
		go func() {
			n := 0
			for {
				if _, _, err := readFrame(raw); err != nil {
					pings <- n
					return
				}
				n++
			}
		}()
		start := time.Now()
		for range 2 {
			if _, err := conn.Read(make([]byte, 1)); err != ErrSilent {
				t.Fatalf("Read: %v", err)
			}
		}
		if took := time.Since(start); took != 3*DefaultPing {
			t.Errorf("silence was noticed after %v", took)
		}
		_ = raw.Close()
		if n := <-pings; n < 2 || n > 4 {
			t.Errorf("%d pings in three intervals", n)
		}
	})
}

// TestConnStaleWriteDeadline is about a deadline that passed long ago, on a
// connection on which only pings and pongs still go.
func TestConnStaleWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		client, server := Client(a, nil, Options{}), Server(b, nil, Options{Ping: -1})
		read := async(func() error { _, err := io.Copy(io.Discard, server); return err })
		silent := async(func() error { _, err := io.Copy(io.Discard, client); return err })
		_ = server.SetWriteDeadline(time.Now().Add(time.Second))
		_ = client.SetWriteDeadline(time.Now().Add(time.Second))
		mustWrite(t, client, []byte("x"))
		mustWrite(t, server, []byte("x"))
		time.Sleep(time.Hour) // fake time
		select {
		case err := <-silent:
			t.Fatalf("the idle connection ended: %v", err)
		default:
		}
		if _, err := client.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write after its deadline: %v", err)
		}
		_ = client.SetWriteDeadline(time.Time{})
		mustWrite(t, client, []byte("x"))
		_, _ = client.Close(), server.Close()
		_, _ = <-read, <-silent
	})
}

// TestConnPingsOfWriterOnly has a peer that sends pings and data and reads
// only when it has written everything, over a pipe without any buffer.
func TestConnPingsOfWriterOnly(t *testing.T) {
	raw, nc := net.Pipe()
	conn := Server(nc, nil, quiet)
	defer conn.Close()
	defer raw.Close()
	stuck := async(func() error { _, err := conn.Write([]byte("answer")); return err })
	sent := async(func() error {
		for i := range 300 {
			if _, err := raw.Write(fromClient(opPing, []byte{byte(i), byte(i >> 8)})); err != nil {
				return err
			}
		}
		_, err := raw.Write(fromClient(opBinary, []byte("data")))
		return err
	})
	got := make([]byte, 4)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "data" {
		t.Fatalf("got %q, %v", got, err)
	}
	await(t, "the peer's writes", sent)
	answered := false
	for pong := []byte(nil); !answered || !bytes.Equal(pong, []byte{299 & 0xff, 299 >> 8}); {
		h, payload, err := readFrame(raw)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case h.op == opPong:
			pong = payload
		case h.op == opBinary && string(payload) == "answer":
			answered = true
		default:
			t.Fatalf("got opcode %X with %q", h.op, payload)
		}
	}
	await(t, "Write", stuck)
}

// TestConnWriteDeadlineKeepsFraming cuts a write inside a frame and goes on.
func TestConnWriteDeadlineKeepsFraming(t *testing.T) {
	a, b := tcpPair(t)
	smallBuffers(a, b)
	client, server := Client(a, nil, quiet), Server(b, nil, quiet)
	defer server.Close()
	defer client.Close()
	data := randomBytes(t, 16<<20)
	_ = client.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := client.Write(data)
	if !errors.Is(err, os.ErrDeadlineExceeded) || n == len(data) {
		t.Fatalf("Write: %d, %v", n, err)
	}
	if len(client.send.tail) == 0 {
		t.Log("the deadline met a frame's border")
	}
	if m, err := client.Write(data[n:]); m != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("Write after the deadline: %d, %v", m, err)
	}
	if err := client.CloseWrite(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("CloseWrite after the deadline: %v", err)
	}
	_ = client.SetWriteDeadline(time.Time{})
	wrote := async(func() error {
		if _, err := client.Write(data[n:]); err != nil {
			return err
		}
		return client.CloseWrite()
	})
	got, err := io.ReadAll(server)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "Write", wrote)
	sameBytes(t, "data", got, data)
}

// TestConnWritesDoNotMix writes long blocks from several goroutines.
func TestConnWritesDoNotMix(t *testing.T) {
	const size, writers = 200*writeChunk + 7, 4
	a, b := net.Pipe()
	client, server := Client(a, nil, quiet), Server(b, nil, quiet)
	defer server.Close()
	defer client.Close()
	for i := range writers {
		go func() { _, _ = client.Write(bytes.Repeat([]byte{byte(i)}, size)) }()
	}
	got := make([]byte, size)
	for range writers {
		if _, err := io.ReadFull(server, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.Repeat(got[:1], size)) {
			t.Fatal("two writes were mixed")
		}
	}
}
