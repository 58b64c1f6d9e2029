package frame

import "sync"

// buffers are shared by all connections of the process: idle relays and
// connections that do not write hold none.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, bufferSize)
	return &b
}}

// bufferSize is what one read or write moves at most, in bytes, a header
// included.
const bufferSize = 64 << 10

func getBuffer() *[]byte  { return buffers.Get().(*[]byte) }
func putBuffer(b *[]byte) { buffers.Put(b) }
