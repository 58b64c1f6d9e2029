package frame

import (
	"sync"
	"sync/atomic"
)

// bufferSize is that of a small Write and of a connection's last reads, in
// bytes, a header included.
const bufferSize = 64 << 10

// Buffers of a relay, in bytes, with room for a header in front and those of
// the frames that our own ends make.
const (
	// pumpSize is what one read takes, and one Write of a Conn.
	pumpSize = 129 << 10
	// swiftSize is what it takes where both ends keep up: what is to be woken
	// for each call costs more then than the call itself. Measured from 64 KiB
	// to 1 MiB; below 384 KiB it made no difference.
	swiftSize = 512<<10 + 17*maxHeader
	// maxSwift is how many of those there are at a time, for a writer may
	// come to a halt with one: 32 MiB.
	maxSwift = 64
)

// Buffers are shared by all connections of the process: idle relays and
// connections that do not write hold none. What is not used is the garbage
// collector's after two of its cycles.
var (
	buffers      = newPool(bufferSize)
	pumpBuffers  = newPool(pumpSize)
	swiftBuffers = newPool(swiftSize)
	swiftTaken   atomic.Int32
)

func newPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

func getBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func putBuffer(b *[]byte) { buffers.Put(b) }

// getPumpBuffer returns a buffer of a relay: of swiftSize, if asked for and to
// be had, or of pumpSize.
func getPumpBuffer(swift bool) *[]byte {
	if swift {
		if swiftTaken.Add(1) <= maxSwift {
			return swiftBuffers.Get().(*[]byte)
		}
		swiftTaken.Add(-1)
	}
	return pumpBuffers.Get().(*[]byte)
}

func putPumpBuffer(b *[]byte) {
	if len(*b) == swiftSize {
		swiftBuffers.Put(b)
		swiftTaken.Add(-1)
		return
	}
	pumpBuffers.Put(b)
}
