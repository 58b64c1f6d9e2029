package wsconn

import (
	"errors"
	"net"
	"testing"
)

// gatedConn says when a write has begun, and lets it end when it is told how.
type gatedConn struct {
	net.Conn
	begun chan struct{}
	end   chan error
}

func (c *gatedConn) Write(p []byte) (int, error) {
	c.begun <- struct{}{}
	return len(p), <-c.end
}

// TestFlush: a peer may have taken the last byte and closed, and its close frame
// been answered, before the write of that byte returns here. That is a success;
// a write that failed is not.
func TestFlush(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		near, far := net.Pipe()
		conn := &gatedConn{near, make(chan struct{}), make(chan error)}
		l := newLink(conn, conn)
		if _, err := l.Write([]byte("the last word")); err != nil {
			t.Fatal(err)
		}
		<-conn.begun
		if _, err := l.Write([]byte("the answer to its close frame")); err != nil {
			t.Fatal(err)
		}
		flushed := make(chan error)
		all := l.taken - uint64(len("the answer to its close frame"))
		go func() { flushed <- l.flushTo(all, nil, nil) }()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		conn.end <- want
		if err := <-flushed; !errors.Is(err, want) {
			t.Errorf("got %v, want %v", err, want)
		}
		if want == nil { // the answer
			<-conn.begun
			conn.end <- nil
		}
		<-l.done
		_ = far.Close()
	}
}
