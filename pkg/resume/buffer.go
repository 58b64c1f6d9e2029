package resume

import (
	"math/bits"
	"sync"
)

// Sizes of buffers in bytes. All are shared by the process's streams: an idle
// stream holds none, or gives it back at the next ping.
const (
	// minBlock is the smallest ring and the first send window.
	minBlock = 64 << 10
	// maxBlock bounds Config.Buffer.
	maxBlock = 64 << 20
	// smallRead is what an idle connection is read with.
	smallRead = 2 << 10
	// bigRead is what a busy one is read with: at least one frame.
	bigRead = maxFrame + 4<<10
	// directMax is how much may be in flight, and be written, for a Write to
	// go straight to the network.
	directMax = 8 << 10
	// directSize and batchSize hold what one write to the network takes.
	directSize = headroom + directMax + 4*overhead
	batchSize  = headroom + 128<<10 + 8*overhead
)

func newPool(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, size)
		return &b
	}}
}

var (
	reads   = newPool(bigRead)
	directs = newPool(directSize)
	batches = newPool(batchSize)

	// blocks are the rings' memory, a pool for each power of two.
	blocks = func() (pools [11]*sync.Pool) {
		for i := range pools {
			pools[i] = newPool(minBlock << i)
		}
		return pools
	}()
)

// blockClass is the index in blocks of the smallest block of at least n bytes.
func blockClass(n int) int {
	if n <= minBlock {
		return 0
	}
	return bits.Len(uint((n - 1) / minBlock))
}
