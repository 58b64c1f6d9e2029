package forward

import (
	"io"
	"net"
	"time"

	"example.com/converge/container/guest/mux"
)

const (
	// discardTime is how long a socket is still read from after the front end has
	// closed its connection: closing it with unread data would make the kernel
	// reset it, and throw away what the other side has yet to read.
	discardTime = 2 * time.Second
	// progressTime is how long a write of what the front end sent before it closed
	// may stand still.
	progressTime = 30 * time.Second
	// endLinger is how long all of that may take once the front end is gone.
	endLinger = 5 * time.Second
)

// halfCloser is a socket that can end one direction.
type halfCloser interface{ CloseWrite() error }

// join passes bytes between a connection of the front end's and a socket, until
// both directions have ended or either end is gone, and closes both.
func (s *server) join(stream *mux.Stream, conn net.Conn) {
	if !s.keep(conn) {
		_ = conn.Close()
	}
	defer s.drop(conn)
	fromSocket := make(chan struct{})
	go func() {
		defer close(fromSocket)
		if _, err := io.Copy(onlyWriter{stream}, conn); err == nil {
			_ = stream.CloseWrite()
			return
		}
		select {
		case <-stream.Done(): // it failed since the front end has closed
			_, _ = io.Copy(io.Discard, conn)
		default:
			_ = stream.Close() // the socket was reset
		}
	}()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		<-stream.Done()
		now := time.Now()
		_ = conn.SetReadDeadline(now.Add(discardTime))
		_ = conn.SetWriteDeadline(now.Add(progressTime))
	}()

	if read, write := toSocket(conn, stream); read != nil {
		_ = stream.Close()
		_ = conn.Close()
	} else if write != nil { // it takes no more, but may have more to say
		_ = stream.CloseRead()
	} else if half, ok := conn.(halfCloser); ok {
		_ = half.CloseWrite()
	}
	<-fromSocket
	_ = conn.Close()
	_ = stream.Close()
	<-watched // the front end has agreed, or is gone
}

// toSocket writes what the front end sends, until either end fails.
func toSocket(conn net.Conn, stream *mux.Stream) (read, write error) {
	buf := make([]byte, 32<<10)
	for {
		n, err := stream.Read(buf)
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
		select {
		case <-stream.Done():
			_ = conn.SetWriteDeadline(time.Now().Add(progressTime))
		default:
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return nil, err
		}
	}
}

// onlyWriter keeps io.Copy from anything but plain writes.
type onlyWriter struct{ io.Writer }

// keep registers a socket for closeAll, and reports whether it may go on.
func (s *server) keep(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *server) drop(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// closeAll ends what lingers.
func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.conns = nil
}
