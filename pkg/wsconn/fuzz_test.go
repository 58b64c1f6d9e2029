package wsconn

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// pipeWriter hijacks one end of a net.Pipe.
type pipeWriter struct {
	http.ResponseWriter
	conn net.Conn
}

func (w pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(io.Discard)), nil
}

// FuzzFrames sends what a hostile client may: the stream ends with an error
// after at most as many bytes as were sent, and Close returns.
func FuzzFrames(f *testing.F) {
	f.Add(makeFrame(true, fin|binaryFrame, []byte("hello")))
	f.Add(bytes.Join([][]byte{makeFrame(true, binaryFrame, []byte("a")), makeFrame(true, fin|ping, nil), makeFrame(true, fin|continuation, nil)}, nil))
	f.Add(makeFrame(true, fin|closeFrame, closing(1000, "bye")))
	f.Fuzz(func(t *testing.T, frames []byte) {
		ours, theirs := net.Pipe()
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
			"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
		conn, err := Accept(pipeWriter{httptest.NewRecorder(), ours}, request, Options{MaxMessage: 1000, KeepAlive: -1})
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		all.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
		all.Go(func() {
			_, _ = theirs.Write(frames)
			theirs.Close()
		})
		n, err := io.Copy(io.Discard, conn)
		if n > int64(len(frames)) {
			t.Errorf("%d bytes of %d: %v", n, len(frames), err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}
