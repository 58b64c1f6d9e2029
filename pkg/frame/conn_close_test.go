package frame

import (
	"io"
	"testing"
)

// TestConnCloseWithUnread closes after the peer's end of the conversation, a
// close frame or a violation, with most of what was written still in the
// closing socket and more of the peer's unread there: a plain close would
// answer that with a reset, and the peer's system throw away what is on its
// way.
func TestConnCloseWithUnread(t *testing.T) {
	for _, test := range []struct {
		name string
		end  []byte
		code int
	}{
		{"close frame", fromClient(opClose, closePayload(CloseNormal, "")), CloseNormal},
		{"close frame with a code", fromClient(opClose, closePayload(4000, "")), CloseNormal},
		{"violation", fromClient(opText, []byte("x")), CloseUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			raw, nc := tcpPair(t)
			_, _ = nc.SetWriteBuffer(1<<20), raw.SetReadBuffer(32<<10)
			conn := Server(nc, nil, quiet)
			data := randomBytes(t, 200_000)
			mustWrite(t, conn, data)
			mustWrite(t, raw, append(test.end, make([]byte, 3*readBuffer)...))
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Fatal("Read: no error")
			}
			closed := async(conn.Close)
			var got []byte
			for len(got) < len(data) {
				got = append(got, wantFrame(t, raw, opBinary)...)
			}
			sameBytes(t, "data", got, data)
			wantClose(t, raw, test.code)
			if n, err := raw.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Errorf("after the close frame: %d, %v", n, err)
			}
			_ = raw.Close()
			await(t, "Close", closed)
		})
	}
}
