package resume

// ring holds the bytes of a stream from offset start up to offset end. The
// length of its block is a power of two. An empty ring begins anew at the
// block's start, where the CPU's cache still has it. The zero value is an empty
// ring at offset 0.
type ring struct {
	block      *[]byte
	head       int // start's place in the block
	start, end uint64
}

func (r *ring) len() int { return int(r.end - r.start) }

// memory is how many bytes of memory the ring holds.
func (r *ring) memory() int {
	if r.block == nil {
		return 0
	}
	return len(*r.block)
}

// from is the block from an offset's place up to the block's end.
func (r *ring) from(offset uint64) []byte {
	b := *r.block
	return b[(r.head+int(offset-r.start))&(len(b)-1):]
}

// append puts p behind the end. Bounding the length is the caller's.
func (r *ring) append(p []byte) {
	if len(p) == 0 {
		return
	}
	r.reserve(r.len() + len(p))
	for len(p) > 0 {
		n := copy(r.from(r.end), p)
		r.end += uint64(n)
		p = p[n:]
	}
}

// read copies the bytes at offset, which with the len(p) that follow lie within
// the ring, to p.
func (r *ring) read(p []byte, offset uint64) {
	for len(p) > 0 {
		n := copy(p, r.from(offset))
		offset += uint64(n)
		p = p[n:]
	}
}

// discard drops everything before offset, which lies in start to end.
// An empty ring keeps its memory only where it has grown, as it will again.
func (r *ring) discard(offset uint64) {
	r.head += int(offset - r.start)
	r.start = offset
	if r.len() == 0 {
		r.head = 0
		if r.memory() == minBlock {
			r.free()
		}
	} else {
		r.head &= r.memory() - 1
	}
}

// trim gives an empty ring's memory back.
func (r *ring) trim() {
	if r.len() == 0 {
		r.free()
	}
}

// skip moves an empty ring on by n.
func (r *ring) skip(n int) {
	r.end += uint64(n)
	r.start = r.end
}

// reserve makes the block at least n bytes long.
func (r *ring) reserve(n int) {
	if n <= r.memory() {
		return
	}
	old := *r
	r.block, r.head = blocks[blockClass(n)].Get().(*[]byte), 0
	for at := old.start; at < old.end; {
		part := old.from(at)
		part = part[:min(uint64(len(part)), old.end-at)]
		for len(part) > 0 {
			n := copy(r.from(at), part)
			at += uint64(n)
			part = part[n:]
		}
	}
	old.free()
}

func (r *ring) free() {
	if r.block != nil {
		blocks[blockClass(len(*r.block))].Put(r.block)
		r.block = nil
	}
}
