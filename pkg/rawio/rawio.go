package rawio

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Conn returns nc, if it is a TCP connection, with other Read and Write
// methods, and else nc itself. They have the errors of nc's own.
func Conn(nc net.Conn) net.Conn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || !available {
		return nc
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nc
	}
	c := &conn{TCPConn: tcp}
	c.in.init(raw)
	c.out.init(raw)
	return c
}

type conn struct {
	*net.TCPConn
	in, out half
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.in.read(p)
	return n, c.explain("read", err)
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.out.write(p)
	return n, c.explain("write", err)
}

// explain makes an error what net makes of it.
func (c *conn) explain(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var already *net.OpError
	if errors.As(err, &already) {
		// The poller's, of an operation that it calls "raw-read".
		err = already.Err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// ReadWriter is a file, or one with other Read and Write methods.
type ReadWriter interface {
	io.ReadWriteCloser
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

var _ ReadWriter = (*os.File)(nil)

// never is no deadline.
var never time.Time

// File returns f, if it is a pipe or terminal in nonblocking mode that takes
// deadlines, with other Read and Write methods, and else f itself. Nobody may
// put it into blocking mode afterwards, as f.Fd() does.
func File(f *os.File) ReadWriter {
	if !available || f.SetDeadline(never) != nil {
		return f
	}
	raw, err := f.SyscallConn()
	if err != nil || !nonblocking(raw) {
		return f
	}
	r := &file{File: f}
	r.in.init(raw)
	r.out.init(raw)
	return r
}

type file struct {
	*os.File
	in, out half
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.in.read(p)
	return n, f.explain("read", err)
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.out.write(p)
	return n, f.explain("write", err)
}

// explain makes an error what os makes of it.
func (f *file) explain(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	var call *os.SyscallError
	switch {
	case errors.As(err, &call):
		err = call.Err // os names the operation itself
	case !errors.Is(err, os.ErrDeadlineExceeded):
		err = os.ErrClosed // the poller has an error of its own
	}
	return &os.PathError{Op: op, Path: f.Name(), Err: err}
}

// half is one direction of a descriptor.
type half struct {
	raw          syscall.RawConn
	readFn, wrFn func(fd uintptr) bool

	mu  sync.Mutex // held while the rest is in use
	p   []byte
	n   int
	err error
}

func (h *half) init(raw syscall.RawConn) {
	h.raw, h.readFn, h.wrFn = raw, h.tryRead, h.tryWrite
}

func (h *half) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p, h.n, h.err = p, 0, nil
	err := h.raw.Read(h.readFn)
	h.p = nil
	if h.n > 0 || h.err != nil {
		err = h.err
	}
	return h.n, err
}

// tryRead is called until it returns true, each time when there may be
// something.
func (h *half) tryRead(fd uintptr) bool {
	n, err := Read(fd, h.p)
	switch {
	case errors.Is(err, ErrWouldBlock):
		return false
	case err == nil && n == 0:
		err = io.EOF
	}
	h.n, h.err = n, err
	return true
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p, h.n, h.err = p, 0, nil
	err := h.raw.Write(h.wrFn)
	h.p = nil
	if h.err != nil {
		err = h.err
	}
	return h.n, err
}

// tryWrite is called until it returns true, each time when there may be room.
func (h *half) tryWrite(fd uintptr) bool {
	for h.n < len(h.p) {
		n, err := Write(fd, h.p[h.n:])
		switch {
		case errors.Is(err, ErrWouldBlock):
			return false
		case err != nil:
			h.err = err
			return true
		}
		h.n += n
	}
	return true
}
