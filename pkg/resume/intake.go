package resume

// intake takes frames out of the pieces in which a carrier gives the bytes of a
// connection.
type intake struct {
	link *link
	part *[]byte // the beginning of a frame, pooled; nil for none
	have int     // its length
	need int     // that it takes to know more
}

// Write takes p. It keeps nothing of it but a frame that is not complete.
func (in *intake) Write(p []byte) (int, error) {
	rest := p
	for in.part != nil && len(rest) > 0 {
		n := copy((*in.part)[in.have:in.need], rest)
		in.have, rest = in.have+n, rest[n:]
		taken, need, err := in.link.take((*in.part)[:in.have])
		if err != nil {
			return 0, err
		}
		if in.need = need; taken > 0 {
			in.release()
		}
	}
	taken, need, err := in.link.take(rest)
	if err != nil {
		return 0, err
	}
	if rest = rest[taken:]; len(rest) > 0 {
		in.part, in.need = reads.Get().(*[]byte), need
		in.have = copy(*in.part, rest)
	}
	return len(p), nil
}

// release gives the memory back.
func (in *intake) release() {
	if in.part != nil {
		reads.Put(in.part)
		in.part, in.have = nil, 0
	}
}
