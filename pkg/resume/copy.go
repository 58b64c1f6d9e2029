package resume

import "io"

var (
	_ io.ReaderFrom = (*Stream)(nil)
	_ io.WriterTo   = (*Stream)(nil)
)

// idleCopy is the buffer of a ReadFrom or WriteTo through which little goes, in
// bytes; one through which much goes has one of copySize, pooled.
const (
	idleCopy = 8 << 10
	copySize = 128 << 10
)

var copies = newPool(copySize)

// copyBuffer grows with what goes through it.
type copyBuffer struct {
	idle []byte
	big  *[]byte // nil while little goes through
}

func (b *copyBuffer) bytes() []byte {
	switch {
	case b.big != nil:
		return *b.big
	case b.idle == nil:
		b.idle = make([]byte, idleCopy)
	}
	return b.idle
}

// settle chooses the buffer for what comes after n bytes at once.
func (b *copyBuffer) settle(n int) {
	switch {
	case b.big == nil && n >= idleCopy*3/4:
		b.big = copies.Get().(*[]byte)
	case b.big != nil && n < idleCopy/4:
		b.release()
	}
}

func (b *copyBuffer) release() {
	if b.big != nil {
		copies.Put(b.big)
		b.big = nil
	}
}

// ReadFrom writes what r gives until its end, which is no error; io.Copy calls
// it. What one Read of r gives, 128 KiB at most, is written at once. After an
// error, what was read last may not have been written.
func (s *Stream) ReadFrom(r io.Reader) (written int64, err error) {
	var buffer copyBuffer
	defer buffer.release()
	for {
		n, err := r.Read(buffer.bytes())
		if n > 0 {
			// While it is being sent what follows gathers where r has it from:
			// another goroutine would only have more to be woken for.
			m, werr := s.put(buffer.bytes()[:n], copySize)
			written += int64(m)
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

// WriteTo reads until the end of the stream, which is no error, and writes to
// w what has arrived, 128 KiB at once at most; io.Copy calls it.
func (s *Stream) WriteTo(w io.Writer) (written int64, err error) {
	var buffer copyBuffer
	defer buffer.release()
	for {
		n, err := s.Read(buffer.bytes())
		if n > 0 {
			m, werr := w.Write(buffer.bytes()[:n])
			written += int64(m)
			switch {
			case werr != nil:
				return written, werr
			case m < n:
				return written, io.ErrShortWrite
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
