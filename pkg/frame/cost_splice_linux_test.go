package frame

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
)

// These are for comparison only; see docs/performance.md, Splice.
func init() {
	relays["splice"] = spliceRelay
	relays["zero-key"] = zeroKeyRelay
}

// spliceRelay moves everything in the kernel, frames or not: the floor.
func spliceRelay(source, sink *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(source, sink); _ = source.CloseWrite() })
	_, _ = io.Copy(sink, source)
	_ = sink.CloseWrite()
	back.Wait()
	_, _ = source.Close(), sink.Close()
}

// zeroKeyRelay is the experiment: headers are read and rewritten here, and the
// payload, whose key would have to be zero, is moved in the kernel.
func zeroKeyRelay(source, sink *net.TCPConn) {
	var back sync.WaitGroup
	back.Go(func() { _, _ = io.Copy(source, sink); _ = source.CloseWrite() })
	_ = spliceFrames(sink, source)
	_ = sink.CloseWrite()
	back.Wait()
	_, _ = source.Close(), sink.Close()
}

// spliceFrames takes binary frames of 126 bytes and more, as the load sends
// them, until another one comes.
func spliceFrames(dst, src *net.TCPConn) error {
	in, err := src.File() // Fd makes a descriptor of its own that blocks
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := dst.File()
	if err != nil {
		return err
	}
	defer out.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	from, to, pipeIn, pipeOut := int(in.Fd()), int(out.Fd()), int(w.Fd()), int(r.Fd())
	const setPipeSize, more = 1031, 4 // F_SETPIPE_SZ, SPLICE_F_MORE
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, uintptr(pipeIn), setPipeSize, 256<<10)
	for {
		// The shortest header of such a frame is read first, which is no
		// longer than any.
		var head [maxHeader]byte
		size := 8
		for n := 0; n < size; {
			k, err := syscall.Read(from, head[n:size])
			if err != nil || k == 0 {
				return err
			}
			n += k
			switch {
			case head[0] != 0x82 || n > 1 && head[1] < 0xfe:
				return nil
			case n > 1 && head[1] == 0xff:
				size = maxHeader
			}
		}
		left := int64(binary.BigEndian.Uint16(head[2:]))
		if size == maxHeader {
			left = int64(binary.BigEndian.Uint64(head[2:]))
		}
		head[1] &^= 0x80
		if err := syscall.Sendto(to, head[:size-4], syscall.MSG_MORE, nil); err != nil {
			return err
		}
		for left > 0 {
			n, err := syscall.Splice(from, nil, pipeIn, nil, int(left), 0)
			if err != nil || n == 0 {
				return err
			}
			left -= n
			flags := more
			if left == 0 {
				flags = 0
			}
			for n > 0 {
				k, err := syscall.Splice(pipeOut, nil, to, nil, int(n), flags)
				if err != nil {
					return err
				}
				n -= k
			}
		}
	}
}

// TestZeroKeyRelay: what is measured does move frames.
func TestZeroKeyRelay(t *testing.T) {
	a, source := tcpPair(t)
	b, sink := tcpPair(t)
	done := async(func() error { zeroKeyRelay(source, sink); return nil })
	want := randomBytes(t, loadFrame)
	frame := append(appendHeader(nil, header{fin: true, op: opBinary, masked: true, length: loadFrame}), want...)
	sent := async(func() error {
		for range 10 {
			if _, err := a.Write(frame); err != nil {
				return err
			}
		}
		return a.CloseWrite()
	})
	for range 10 {
		sameBytes(t, "payload", wantFrame(t, b, opBinary), want)
	}
	await(t, "sending", sent)
	_ = b.Close()
	await(t, "the relay", done)
}
