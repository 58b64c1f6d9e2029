package wsconn

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// both runs a test against a raw client and against a raw server.
func both(t *testing.T, opts Options, test func(t *testing.T, peer *rawPeer, conn *Conn), first func(masked bool) []byte) {
	if first == nil {
		first = func(bool) []byte { return nil }
	}
	t.Run("accepted", func(t *testing.T) {
		peer, conn := serve(t, opts, false).dialRaw(t, first(true))
		test(t, peer, conn)
	})
	t.Run("dialled", func(t *testing.T) {
		peer, conn := acceptRaw(t, opts, first(false))
		test(t, peer, conn)
	})
}

// wantRead reads exactly that.
func wantRead(t *testing.T, conn *Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q", got[:n], err, want)
	}
}

// wantEnd checks how the stream ends, that it stays ended, and that nothing
// more can be written then.
func wantEnd(t *testing.T, conn *Conn, check func(err error) bool) {
	t.Helper()
	for range 2 {
		n, err := conn.Read(make([]byte, 10))
		if n != 0 || err == nil || !check(err) {
			t.Errorf("the stream ended with %d, %v", n, err)
		}
	}
	if n, err := conn.Write([]byte("x")); n == 1 && err == nil {
		// The kernel takes a first one even where nobody is left.
		if _, err = conn.Write([]byte("x")); err == nil {
			t.Error("writing still succeeds")
		}
	}
}

func isError(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) && (target == io.EOF || !errors.Is(err, io.EOF)) }
}

func hasText(part string) func(error) bool {
	return func(err error) bool { return strings.Contains(err.Error(), part) && !errors.Is(err, io.EOF) }
}

func TestFramesWithTheHandshake(t *testing.T) {
	both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
		wantRead(t, conn, "first second third")
		wantEnd(t, conn, isError(io.EOF))
	}, func(masked bool) []byte {
		return bytes.Join([][]byte{
			makeFrame(masked, fin|binaryFrame, []byte("first ")),
			makeFrame(masked, fin|ping, []byte("ping")),
			makeFrame(masked, binaryFrame, []byte("second ")), makeFrame(masked, fin|continuation, []byte("third")),
			makeFrame(masked, fin|closeFrame, closing(1000, "")),
		}, nil)
	})
	t.Run("much", func(t *testing.T) {
		large := strings.Repeat("0123456789", 3000)
		both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
			peer.send(peer.frame(fin|binaryFrame, []byte("end")))
			wantRead(t, conn, large+"end")
		}, func(masked bool) []byte { return makeFrame(masked, fin|binaryFrame, []byte(large)) })
	})
}

func TestMessagesAreAStream(t *testing.T) {
	both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
		peer.send(peer.frame(fin|binaryFrame, nil), peer.frame(binaryFrame, []byte("a")), peer.frame(continuation, nil),
			peer.frame(fin|ping, []byte("x")), peer.frame(continuation, []byte("b")), peer.frame(fin|continuation, nil),
			peer.frame(fin|binaryFrame, []byte("c")))
		wantRead(t, conn, "abc")
		if first, payload, err := peer.receive(); first != fin|pong || string(payload) != "x" || err != nil {
			t.Errorf("the ping was answered %#x %q, %v", first, payload, err)
		}
		n, err := conn.Read(nil)
		if n != 0 || err != nil {
			t.Errorf("Read of nothing: %d, %v", n, err)
		}
	}, nil)
}

func TestBadFrames(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame func(p *rawPeer) []byte
		want  string
		code  uint16
		text  string // of the close frame; nothing is checked without a code
	}{
		{"text", func(p *rawPeer) []byte { return p.frame(fin|text, []byte("hello")) },
			"the peer sent a text message where only binary ones are understood", 1003, "only binary messages are understood"},
		{"reserved bit 1", func(p *rawPeer) []byte { return p.frame(fin|rsv1|binaryFrame, nil) },
			"the peer violates the websocket protocol", 1002, "received header with unexpected rsv bits set: true:false:false"},
		{"reserved bit 2", func(p *rawPeer) []byte { return p.frame(fin|rsv2|binaryFrame, nil) },
			"the peer violates the websocket protocol", 1002, "received header with unexpected rsv bits set: false:true:false"},
		{"reserved bit 3 on a ping", func(p *rawPeer) []byte { return p.frame(fin|rsv3|ping, nil) },
			"the peer violates the websocket protocol", 1002, "received header with unexpected rsv bits set: false:false:true"},
		{"reserved opcode", func(p *rawPeer) []byte { return p.frame(fin|3, nil) },
			"the peer violates the websocket protocol", 1002, "received unknown opcode opcode(3)"},
		{"continuation of nothing", func(p *rawPeer) []byte { return p.frame(fin|continuation, nil) },
			"the peer violates the websocket protocol", 1002, "received continuation frame without text or binary frame"},
		{"message within a message", func(p *rawPeer) []byte {
			return append(p.frame(binaryFrame, []byte("half")), p.frame(fin|binaryFrame, []byte("other"))...)
		}, "the peer violates the websocket protocol", 1002, "received new data message without finishing the previous message"},
		{"reserved bit within a message", func(p *rawPeer) []byte {
			return append(p.frame(binaryFrame, []byte("half")), p.frame(fin|rsv1|continuation, nil)...)
		}, "the peer violates the websocket protocol", 1002, "received header with unexpected rsv bits set: true:false:false"},
		{"long ping", func(p *rawPeer) []byte { return p.frame(fin|ping, make([]byte, 126)) },
			"the peer violates the websocket protocol", 1002, "received control frame payload with invalid length: 126"},
		{"negative length", func(p *rawPeer) []byte {
			return []byte{fin | binaryFrame, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0}
		}, "the peer violates the websocket protocol", 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
				peer.send(peer.frame(fin|binaryFrame, []byte("before")), test.frame(peer))
				wantRead(t, conn, "before")
				if strings.Contains(test.name, "within a message") {
					wantRead(t, conn, "half")
				}
				if test.code != 0 {
					peer.wantClose(test.code, test.text)
				}
				wantEnd(t, conn, hasText(test.want))
			}, nil)
		})
	}
	t.Run("unmasked from a client", func(t *testing.T) {
		peer, conn := serve(t, quiet, false).dialRaw(t)
		peer.send(makeFrame(false, fin|binaryFrame, []byte("x")))
		wantEnd(t, conn, hasText("received unmasked frame from client"))
	})
}

func TestMaxMessage(t *testing.T) {
	limited := quiet
	limited.MaxMessage = 10
	both(t, limited, func(t *testing.T, peer *rawPeer, conn *Conn) {
		peer.send(peer.frame(fin|binaryFrame, []byte("0123456789")), peer.frame(binaryFrame, []byte("01234")),
			peer.frame(fin|continuation, []byte("56789")), peer.frame(fin|binaryFrame, []byte("again")))
		wantRead(t, conn, "01234567890123456789again")
		peer.send(peer.frame(binaryFrame, []byte("abcdefghij")), peer.frame(fin|continuation, []byte("k")))
		wantRead(t, conn, "abcdefghij")
		peer.wantClose(1009, "a message may hold 10 bytes")
		wantEnd(t, conn, hasText("the peer sent a message of more than 10 bytes"))
	}, nil)
	// The length alone, of nearly 2^63 bytes, takes no memory.
	both(t, limited, func(t *testing.T, peer *rawPeer, conn *Conn) {
		head := peer.frame(fin|binaryFrame, make([]byte, 1<<16))[:14]
		copy(head[2:], []byte{0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		peer.send(head, []byte("0123456789 and more"))
		n, err := io.Copy(io.Discard, conn)
		if n != 10 || err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
			t.Error(n, err)
		}
		peer.wantClose(1009, "a message may hold 10 bytes")
	}, nil)
	large := quiet
	large.MaxMessage = 2*MaxFrame + 1
	both(t, large, func(t *testing.T, peer *rawPeer, conn *Conn) {
		fits := strings.Repeat("x", 2*MaxFrame+1)
		peer.send(peer.frame(fin|binaryFrame, []byte(fits)))
		wantRead(t, conn, fits)
		peer.send(peer.frame(fin|binaryFrame, []byte(fits+"y")))
		wantRead(t, conn, fits)
		peer.wantClose(1009, "a message may hold 65537 bytes")
		wantEnd(t, conn, hasText("the peer sent a message of more than 65537 bytes"))
	}, nil)
}

func TestPeerVanishes(t *testing.T) {
	for _, test := range []struct {
		name   string
		frames func(p *rawPeer) []byte
		before string
	}{
		{"at once", func(p *rawPeer) []byte { return nil }, ""},
		{"between messages", func(p *rawPeer) []byte { return p.frame(fin|binaryFrame, []byte("data")) }, "data"},
		{"between fragments", func(p *rawPeer) []byte { return p.frame(binaryFrame, []byte("data")) }, "data"},
		{"in a header", func(p *rawPeer) []byte { return p.frame(fin|binaryFrame, []byte("data"))[:1] }, ""},
		{"in a longer header", func(p *rawPeer) []byte { return p.frame(fin|binaryFrame, make([]byte, 300))[:3] }, ""},
		{"before the payload", func(p *rawPeer) []byte { f := p.frame(fin|binaryFrame, []byte("data")); return f[:len(f)-4] }, ""},
		{"in the payload", func(p *rawPeer) []byte { f := p.frame(fin|binaryFrame, []byte("data")); return f[:len(f)-1] }, ""},
		{"in a close frame", func(p *rawPeer) []byte { f := p.frame(fin|closeFrame, closing(1000, "")); return f[:len(f)-1] }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
				peer.send(test.frames(peer))
				peer.Close()
				wantRead(t, conn, test.before)
				wantEnd(t, conn, isError(io.ErrUnexpectedEOF))
			}, nil)
		})
	}
	t.Run("reset", func(t *testing.T) {
		both(t, quiet, func(t *testing.T, peer *rawPeer, conn *Conn) {
			if err := peer.Conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			peer.Close()
			wantEnd(t, conn, func(err error) bool {
				var op *net.OpError
				return errors.As(err, &op) && !errors.Is(err, io.EOF)
			})
		}, nil)
	})
}
