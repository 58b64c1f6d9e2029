package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
)

// Stream is a connection that the engine has handed over: what is written is
// the program's input, what is read its output. One may read while another
// writes.
type Stream struct {
	conn net.Conn
	r    *bufio.Reader
}

// Read reads output, which is framed unless there is a terminal: see Demux.
func (s *Stream) Read(p []byte) (int, error) { return s.r.Read(p) }

// Write writes input.
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Write(p) }

// CloseWrite ends the input. It is not for terminals: engines then cut the
// output short (moby issue 38457).
func (s *Stream) CloseWrite() error {
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("this connection to the engine cannot be closed by half")
}

// Close ends both directions and whoever waits for them.
func (s *Stream) Close() error { return s.conn.Close() }

// hijack makes a request whose connection becomes the stream. An engine that
// cannot be reached is tried again; the request is made once: who repeats it may
// run a program twice.
func (c *Client) hijack(ctx context.Context, op, path string, query url.Values, body any) (*Stream, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	header := http.Header{
		"Content-Type": {"application/json"},
		"Connection":   {"Upgrade"},
		"Upgrade":      {"tcp"},
	}
	var stream *Stream
	var refused error
	err := c.try(ctx, op, 0, func(ctx context.Context, v string) error {
		req, err := c.request(ctx, http.MethodPost, v+path, query, header, bytes.NewReader(text))
		if err != nil {
			return err
		}
		c.count(c.opts.Request)
		conn, err := c.dial(ctx)
		if err != nil {
			c.count(c.opts.Failure)
			return err
		}
		if stream, refused = c.upgrade(ctx, conn, req); refused != nil {
			c.count(c.opts.Failure)
			refused = fmt.Errorf("%s: %w", op, refused)
		}
		return nil
	})
	return stream, firstOf(err, refused)
}

func (c *Client) upgrade(ctx context.Context, conn net.Conn, req *http.Request) (*Stream, error) {
	// The context bounds the handshake, and nothing after it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	ok := false
	defer func() {
		if !ok {
			stop()
			_ = conn.Close()
		}
	}()
	if err := req.Write(conn); err != nil {
		return nil, firstOf(ctx.Err(), err)
	}
	// Large enough that a busy stream costs few reads.
	r := bufio.NewReaderSize(conn, 32<<10)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, firstOf(ctx.Err(), err)
	}
	c.reached.Store(true)
	// Engines of old answer 200 with a body that never ends.
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		return nil, readError(resp)
	}
	if !stop() {
		return nil, ctx.Err()
	}
	ok = true
	return &Stream{conn: conn, r: r}, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// copyBuffer is the most that Demux gives to a writer at once, an SSH packet.
const copyBuffer = 32 << 10

// buffers holds what Copy and Demux read into, only while they run.
var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

// Copy copies the output of a terminal until its end.
func Copy(w io.Writer, r io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	// Hidden, so that the buffer is used whatever else they can do.
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, *buf)
	return err
}

// Demux copies framed output (docs.docker.com/engine/api, attach: type, three
// zero bytes, the length as 4 bytes big-endian, the data) to stdout and stderr
// until its end. A frame is passed on as it comes in, so that its length, which
// the engine chooses, takes no memory. An end in the middle of a frame is
// io.ErrUnexpectedEOF; the errors of the writers come back as they are.
func Demux(r io.Reader, stdout, stderr io.Writer) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if header[1]|header[2]|header[3] != 0 || header[0] > 3 {
			return fmt.Errorf("the engine's output is not framed: it begins with % x", header)
		}
		left := int64(binary.BigEndian.Uint32(header[4:]))
		w := stdout
		switch header[0] {
		case 2:
			w = stderr
		case 3:
			return systemError(r, left)
		}
		for left > 0 {
			n, err := r.Read((*buf)[:min(left, copyBuffer)])
			left -= int64(n)
			if n > 0 {
				if _, err := w.Write((*buf)[:n]); err != nil {
					return err
				}
			}
			if err != nil && left > 0 {
				if errors.Is(err, io.EOF) {
					return io.ErrUnexpectedEOF
				}
				return err
			}
		}
	}
}

// systemError reads the frame by which the engine says that it has failed.
func systemError(r io.Reader, length int64) error {
	text, _ := io.ReadAll(io.LimitReader(r, min(length, maxMessage)))
	return fmt.Errorf("the engine's stream failed: %s", text)
}
