package wsconn

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"nhooyr.io/websocket"
)

//lint:file-ignore SA1019 this package exists to confine nhooyr.io/websocket

// Accept answers a websocket handshake and takes the connection over; the
// handler may return then. It works on an HTTP/1.1 request and through
// middleware that has an Unwrap method, as http.ResponseController wants it.
// On an error the request has been answered.
//
// It does not look at the Origin header: a caller that browsers can reach with
// somebody's cookies must check it first (RFC 6455 §10.2). Compression is not
// agreed to. Headers that were set on w are sent along.
func Accept(w http.ResponseWriter, r *http.Request, opts Options) (*Conn, error) {
	hijacker := findHijacker(w)
	if hijacker == nil {
		err := errors.New("this HTTP connection cannot be taken over")
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return nil, fmt.Errorf("accepting a websocket: %w", err)
	}
	up := &takeover{ResponseWriter: w, hijacker: hijacker}
	ws, err := websocket.Accept(up, r, &websocket.AcceptOptions{
		Subprotocols:       opts.Subprotocols,
		InsecureSkipVerify: true, // of the Origin only
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, fmt.Errorf("accepting a websocket: %w", err)
	}
	return newConn(ws, up.link, opts), nil
}

// findHijacker looks for it beneath middleware, before anything is answered:
// nhooyr would ask w alone, and a ResponseController tells too late.
func findHijacker(w http.ResponseWriter) http.Hijacker {
	for {
		switch v := w.(type) {
		case http.Hijacker:
			return v
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return nil
		}
	}
}

// takeover is a response that puts a link between nhooyr and the connection.
type takeover struct {
	http.ResponseWriter
	hijacker http.Hijacker
	link     *link
}

// Hijack hands the connection over with everything that was already read from
// it, and without the server's deadlines.
func (t *takeover) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := t.hijacker.Hijack()
	if err != nil {
		return nil, nil, err
	}
	if err := errors.Join(conn.SetDeadline(time.Time{}), rw.Flush()); err != nil {
		conn.Close()
		return nil, nil, err
	}
	t.link = newLink(conn, conn)
	linked := linkedConn{conn, t.link}
	rw.Writer.Reset(linked)
	return linked, rw, nil
}

// linkedConn is a link where a net.Conn is asked for.
type linkedConn struct {
	net.Conn
	link *link
}

func (c linkedConn) Read(p []byte) (int, error)  { return c.link.Read(p) }
func (c linkedConn) Write(p []byte) (int, error) { return c.link.Write(p) }
func (c linkedConn) Close() error                { return c.link.Close() }
