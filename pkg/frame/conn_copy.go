package frame

import (
	"io"
	"net"
)

// idleCopy is the buffer of a ReadFrom or WriteTo through which little goes,
// in bytes; one through which much goes has one of pumpSize.
const idleCopy = 16 << 10

var (
	_ io.ReaderFrom = (*Conn)(nil)
	_ io.WriterTo   = (*Conn)(nil)
)

// copyBuffer grows with what goes through it.
type copyBuffer struct {
	idle []byte
	big  *[]byte // pooled; nil while little goes through
}

func (b *copyBuffer) bytes() []byte {
	if b.big != nil {
		return *b.big
	}
	if b.idle == nil {
		b.idle = make([]byte, idleCopy)
	}
	return b.idle
}

// settle chooses the buffer for what comes after n bytes at once.
func (b *copyBuffer) settle(n int) {
	switch {
	case b.big == nil && n >= idleCopy*3/4:
		b.big = getPumpBuffer(false)
	case b.big != nil && n < idleCopy/4:
		b.release()
	}
}

func (b *copyBuffer) release() {
	if b.big != nil {
		putPumpBuffer(b.big)
		b.big = nil
	}
}

// ReadFrom writes what r gives until its end, which is no error; io.Copy calls
// it. Each Read of r is one frame, of 128 KiB at most, masked where it was read
// and written at once: what is to be coalesced is what r gives together. After
// an error, what was read last may not have been sent. The buffer, 16 KiB while
// r gives little, is held while r is read.
func (c *Conn) ReadFrom(r io.Reader) (written int64, err error) {
	var buffer copyBuffer
	defer buffer.release()
	for {
		buf := buffer.bytes()
		n, err := r.Read(buf[maxHeader:])
		if n > 0 {
			taken, werr := c.writeInPlace(buf[:maxHeader+n])
			if taken {
				written += int64(n)
			}
			if werr != nil {
				return written, werr
			}
		}
		switch {
		case err == io.EOF:
			return written, nil
		case err != nil:
			return written, err
		}
		buffer.settle(n)
	}
}

// WriteOver writes buf[start:] as one frame, masked where it is, for which it
// uses up to 14 bytes in front of start, too: so many must be there. Nothing of
// buf is as it was afterwards.
func (c *Conn) WriteOver(buf []byte, start int) (int, error) {
	if len(buf) == start {
		return 0, nil
	}
	taken, err := c.writeInPlace(buf[start-maxHeader:])
	if !taken {
		return 0, err
	}
	return len(buf) - start, err
}

// writeInPlace writes buf[maxHeader:] as one frame, over buf.
func (c *Conn) writeInPlace(buf []byte) (taken bool, err error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.isClosed() {
		return false, net.ErrClosed
	}
	taken, err = c.send.data(buf, maxHeader)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return taken, err
}

// WriteTo reads until the end of the stream and writes to w, once for each
// read from the network: the payload of all frames in it, 128 KiB at most. A
// close frame that Read would call io.EOF is no error; io.Copy calls WriteTo.
// Reads meanwhile get other parts of the stream.
func (c *Conn) WriteTo(w io.Writer) (written int64, err error) {
	var buffer copyBuffer
	defer buffer.release()
	for {
		data, err := c.take(buffer.bytes())
		switch {
		case err == io.EOF:
			return written, nil
		case err != nil:
			return written, err
		}
		n, err := w.Write(data)
		written += int64(n)
		switch {
		case err != nil:
			return written, err
		case n < len(data):
			return written, io.ErrShortWrite
		}
		buffer.settle(n)
	}
}

// take returns the payload of one read from the network, which goes to buf.
// The bytes are the caller's: nothing of c refers to them any more.
func (c *Conn) take(buf []byte) ([]byte, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if len(c.segment) == 0 && len(c.raw) == 0 {
		c.buf = buf
	} // else Read has left something of its own buffer
	defer func() { c.buf, c.raw, c.segment = nil, nil, nil }()
	for len(c.segment) == 0 {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	data := c.segment
	for len(c.raw) > 0 && c.late == nil {
		var payload []byte
		payload, c.late = c.step()
		// In place: the payload lies behind data in the same buffer.
		data = append(data, payload...)
	}
	return data, nil
}
