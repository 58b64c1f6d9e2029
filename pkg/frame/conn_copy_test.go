package frame

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
)

// pieces gives a stream in the given sizes, and with the last of it its end.
type pieces struct {
	data  []byte
	sizes func() int
	end   error
}

func (p *pieces) Read(b []byte) (int, error) {
	n := copy(b, p.data[:min(p.sizes(), len(p.data))])
	p.data = p.data[n:]
	if len(p.data) == 0 {
		return n, p.end
	}
	return n, nil
}

// TestConnCopies sends a stream by ReadFrom and takes it by WriteTo, over TCP
// and over TLS, with more in front that is read and written as usual.
func TestConnCopies(t *testing.T) {
	for name, wrap := range map[string]func(client, server net.Conn) (net.Conn, net.Conn){
		"tcp": func(client, server net.Conn) (net.Conn, net.Conn) { return client, server },
		"tls": tlsWrap(),
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				rnd := rand.New(rand.NewPCG(seed, 9))
				a, b := tcpPair(t)
				ncA, ncB := wrap(a, b)
				client, server := Client(ncA, nil, quiet), Server(ncB, nil, quiet)
				data := randomBytes(t, rnd.IntN(3<<20)+10)
				sent := async(func() error {
					if _, err := client.Write(data[:10]); err != nil {
						return err
					}
					n, err := client.ReadFrom(&pieces{data[10:], anySizes(rnd), io.EOF})
					if err != nil || n != int64(len(data)-10) {
						return errors.Join(err, errors.New("ReadFrom's count is wrong"))
					}
					return client.CloseWrite()
				})
				got := bytes.NewBuffer(make([]byte, 3))
				if _, err := io.ReadFull(server, got.Bytes()); err != nil {
					t.Fatal(err)
				}
				n, err := server.WriteTo(got)
				if err != nil || n != int64(len(data)-3) {
					t.Fatalf("WriteTo: %d, %v", n, err)
				}
				await(t, "ReadFrom", sent)
				sameBytes(t, "data", got.Bytes(), data)
				if n, err := server.WriteTo(got); n != 0 || err != nil {
					t.Errorf("WriteTo after the end: %d, %v", n, err)
				}
				closed := async(client.Close)
				_ = server.Close()
				await(t, "Close", closed)
			}
		})
	}
}

// TestConnCopyAnyStreams has WriteTo take whatever the RFC allows.
func TestConnCopyAnyStreams(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 10))
		raw, nc := tcpPair(t)
		conn := Server(nc, nil, quiet)
		p := newRefPeer(raw, true, seed)
		wire := p.encode(anyStream(rnd, 150)...)
		plan := refDecode(wire, true, DefaultMaxFrame)
		said := async(func() error { return p.converse(wire, false, false) })
		var got bytes.Buffer
		_, err := conn.WriteTo(&got)
		var closed *CloseError
		if errors.As(err, &closed) && closed.Code != plan.code || closed == nil && err != nil {
			t.Errorf("seed %d: WriteTo: %v, want code %d", seed, err, plan.code)
		}
		_ = conn.Close()
		await(t, "peer", said)
		sameBytes(t, "data", got.Bytes(), plan.payload)
	}
}

// TestConnWriteToAtOnce has the payload of several frames, with a ping between
// them, come as one write, and nothing wait for more.
func TestConnWriteToAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, nc := net.Pipe()
		conn := Server(nc, nil, quiet)
		out := make(chan string)
		copied := async(func() error { _, err := conn.WriteTo(lines(out)); return err })
		key := fromClient(opBinary, []byte("x")) // a key of the keyboard
		mustWrite(t, raw, key)
		if got := <-out; got != "x" {
			t.Errorf("got %q", got)
		}
		block := append(fromClient(opBinary, []byte("abc")), fromClient(opPong, []byte("pong"))...)
		block = append(append(block, fromClient(opBinary, []byte("def"))...), key[:3]...)
		mustWrite(t, raw, block)
		if got := <-out; got != "abcdef" {
			t.Errorf("got %q", got)
		}
		mustWrite(t, raw, append(key[3:], fromClient(opText, nil)...))
		if got := <-out; got != "x" {
			t.Errorf("got %q", got)
		}
		wantClose(t, raw, CloseUnsupported)
		var violation *ProtocolError
		if err := <-copied; !errors.As(err, &violation) {
			t.Errorf("WriteTo: %v", err)
		}
		_ = raw.Close()
		_ = conn.Close()
	})
}

// TestConnReadFromAtOnce has each thing that is read arrive before the next is
// asked for.
func TestConnReadFromAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw, nc := net.Pipe()
		conn := Client(nc, nil, quiet)
		in, keys := io.Pipe() // its Write returns when all was read
		copied := async(func() error { _, err := conn.ReadFrom(in); return err })
		for _, key := range []string{"l", "s", "\r"} {
			mustWrite(t, keys, []byte(key))
			if got := wantFrame(t, raw, opBinary); string(got) != key {
				t.Errorf("got %q, want %q", got, key)
			}
		}
		_ = keys.Close()
		await(t, "ReadFrom", copied)
		_ = raw.Close()
		_ = conn.Close()
	})
}

type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// TestConnCopyErrors has either side of a copy fail.
func TestConnCopyErrors(t *testing.T) {
	a, b := tcpPair(t)
	client, server := Client(a, nil, quiet), Server(b, nil, quiet)
	broken := errors.New("broken")
	n, err := client.ReadFrom(&pieces{[]byte("data"), func() int { return 2 }, broken})
	if n != 4 || err != broken {
		t.Errorf("ReadFrom: %d, %v", n, err)
	}
	if _, err := server.WriteTo(failing{broken}); err != broken {
		t.Errorf("WriteTo: %v", err)
	}
	closed := async(client.Close)
	_ = server.Close()
	await(t, "Close", closed)
	if _, err := client.ReadFrom(bytes.NewReader([]byte("x"))); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom after Close: %v", err)
	}
	if _, err := client.WriteTo(io.Discard); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteTo after Close: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestWriteOver sends each buffer as one frame, whatever lies in front of it,
// from both ends.
func TestWriteOver(t *testing.T) {
	a, b := tcpPair(t)
	client, server := Client(a, nil, quiet), Server(b, nil, quiet)
	for _, end := range []struct{ from, to *Conn }{{client, server}, {server, client}} {
		for _, start := range []int{maxHeader, 16, 1000} {
			data := randomBytes(t, 100<<10)
			buf := append(randomBytes(t, start), data...)
			sent := async(func() error {
				if n, err := end.from.WriteOver(buf[:start], start); n != 0 || err != nil {
					return errors.Join(err, errors.New("of nothing something was written"))
				}
				n, err := end.from.WriteOver(buf, start)
				if err == nil && n != len(data) {
					err = errors.New("the count is wrong")
				}
				return err
			})
			got := make([]byte, len(data))
			if _, err := io.ReadFull(end.to, got); err != nil {
				t.Fatal(err)
			}
			await(t, "WriteOver", sent)
			sameBytes(t, "data", got, data)
		}
	}
	closed := async(client.Close)
	_ = server.Close()
	await(t, "Close", closed)
	if n, err := client.WriteOver(make([]byte, 100), maxHeader); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %d, %v", n, err)
	}
}
