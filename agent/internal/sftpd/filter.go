package sftpd

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"sync"
)

const (
	// maxAsked is the number of requests that the server has and has not
	// answered. It keeps two buffers of 256 KiB for each, without a limit of
	// its own. Further ones wait in the channel's window, so that fewer of
	// them make nothing slower.
	maxAsked = 16
	// maxHandles is the number of open files and folders of a session.
	maxHandles = 1024
	// firstPiece is the size of a channel packet of common clients.
	firstPiece = 32 << 10
)

// filter is what the SFTP server reads its requests from and writes its
// answers to. It does what the library beneath does not: it answers
// limits@openssh.com and fsync@openssh.com and adds them to the VERSION packet,
// makes symbolic links as they were asked for (the library makes a relative
// target absolute), keeps a plain rename from replacing a file, answers what is
// unknown, and bounds what a client can make the server hold. All else passes;
// file data is not copied on the way in.
//
// The server answers in the order of the requests, one answer each, and reads
// and writes from one goroutine each.
type filter struct {
	ch       io.WriteCloser
	dir      string // of relative paths
	readOnly bool

	// Of the goroutine that reads. in keeps the channel from being read in
	// small pieces, each of which would be acknowledged in a packet.
	in      *bufio.Reader
	ready   []byte // of a request that was looked at, for the server
	through uint32 // bytes of a write request that pass
	buf     []byte

	// out orders those that write: the server's answers, and the filter's
	// own between them. It is taken before mu.
	out sync.Mutex
	// boundary is signalled when an answer of the server is complete.
	boundary sync.Cond
	held     []byte // of an answer that is not complete
	rest     int    // bytes of it to come

	mu     sync.Mutex
	change sync.Cond // of what follows
	asked  []request
	files  map[string]openFile // by handle
	broken error               // writing has failed
}

func newFilter(ch io.ReadWriteCloser, dir string, readOnly bool) *filter {
	f := &filter{
		ch: ch, in: bufio.NewReaderSize(ch, firstPiece), dir: dir, readOnly: readOnly,
		files: make(map[string]openFile),
	}
	f.boundary.L = &f.out
	f.change.L = &f.mu
	return f
}

// Read gives the server its requests.
func (f *filter) Read(p []byte) (int, error) {
	for {
		switch {
		case len(p) == 0:
			return 0, nil
		case len(f.ready) > 0:
			n := copy(p, f.ready)
			f.ready = f.ready[n:]
			return n, nil
		case f.through > 0:
			n, err := f.in.Read(p[:min(uint64(len(p)), uint64(f.through))])
			f.through -= uint32(n)
			return n, err
		}
		if err := f.next(); err != nil {
			return 0, err
		}
	}
}

// next reads a request, or the head of one that writes. It returns io.EOF
// between two.
func (f *filter) next() error {
	const head = 5 // length and type
	f.buf = append(f.buf[:0], make([]byte, head)...)
	if _, err := io.ReadFull(f.in, f.buf); err != nil {
		if err == io.EOF {
			// The server does not wait for its last answers to be written.
			f.drain()
		}
		return err
	}
	length := binary.BigEndian.Uint32(f.buf)
	switch kind := f.buf[4]; {
	case length == 0:
		return errMalformed
	case kind == fxpWrite:
		if length > maxPacket {
			return errTooLong(length)
		}
		f.through = length - 1
		return f.pass(f.buf, request{kind: kind})
	case length > maxRequest:
		return errTooLong(length)
	}
	f.buf = append(f.buf, make([]byte, length-1)...)
	if _, err := io.ReadFull(f.in, f.buf[head:]); err != nil {
		return unexpected(err)
	}
	if f.buf[4] == fxpInit {
		return f.pass(f.buf, request{kind: fxpInit})
	}
	request, ok, err := parseRequest(f.buf[4:])
	switch {
	case !ok:
		return errMalformed
	case err != nil:
		return f.answer(statusPacket(request.id, fxBadMessage, "malformed request"))
	}
	return f.serve(request)
}

// unexpected is what the end of the stream is within a packet.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// serve answers a request, or passes it on.
func (f *filter) serve(r request) error {
	switch r.kind {
	case fxpOpen, fxpOpendir:
		r.first = f.local(r.first)
		// To open a pipe takes until somebody opens its other end; the
		// server would wait for it, even after the client has gone.
		if info, err := os.Stat(r.first); err == nil && info.Mode()&os.ModeNamedPipe != 0 {
			return f.answer(statusPacket(r.id, fxFailure, "a named pipe cannot be opened"))
		}
		if f.full() {
			return f.answer(statusPacket(r.id, fxFailure, "too many open files: close some"))
		}
	case fxpRename:
		// The draft makes an existing target an error (§6.5).
		if err := f.settle(); err != nil {
			return err
		}
		if !f.readOnly && f.taken(r.first, r.second) {
			return f.answer(statusPacket(r.id, fxFailure, "there is a file of the new name"))
		}
	case fxpSymlink:
		if err := f.settle(); err != nil {
			return err
		}
		return f.answer(f.symlink(r))
	case fxpExtended:
		switch r.extension {
		case extLimits:
			return f.answer(limitsPacket(r.id))
		case extFsync:
			if err := f.settle(); err != nil {
				return err
			}
			return f.answer(f.sync(r))
		case extStatVFS:
			// The library takes a relative path as the process does.
			return f.pass(r.withPath(f.local(r.first)), r)
		}
	default:
		if r.kind < fxpOpen || r.kind > fxpSymlink {
			return f.answer(statusPacket(r.id, fxOpUnsupported, "there is no such request"))
		}
	}
	return f.pass(f.buf, r)
}

// pass gives a packet, or its head, to the server, as soon as it has room.
func (f *filter) pass(packet []byte, r request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.asked) >= maxAsked && f.broken == nil {
		f.change.Wait()
	}
	f.asked = append(f.asked, r)
	f.ready = packet
	return f.broken
}

// settle waits until the server has answered all that came before.
func (f *filter) settle() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.asked) > 0 && f.broken == nil {
		f.change.Wait()
	}
	return f.broken
}

// drain waits until the answers to all that came before are written, or cannot
// be.
func (f *filter) drain() {
	if f.settle() != nil {
		return
	}
	f.out.Lock()
	defer f.out.Unlock()
	for f.rest > 0 {
		f.boundary.Wait()
	}
}

// full reports whether no more files may be opened.
func (f *filter) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.files)
	for _, r := range f.asked {
		if r.kind == fxpOpen || r.kind == fxpOpendir {
			n++
		}
	}
	return n >= maxHandles
}

// answer sends an answer of the filter's own, between those of the server.
func (f *filter) answer(packet []byte) error {
	f.out.Lock()
	defer f.out.Unlock()
	for f.rest > 0 {
		f.boundary.Wait()
	}
	return f.send(packet)
}

// Write takes the server's answers. It writes each at once, or first its head
// and then its data, which are joined.
func (f *filter) Write(p []byte) (int, error) {
	f.out.Lock()
	defer f.out.Unlock()
	if f.rest == 0 {
		if len(p) < 9 {
			return 0, io.ErrShortWrite
		}
		f.answered(p)
		if p[4] == fxpVersion {
			return len(p), f.send(extendVersion(p))
		}
		if f.rest = int(binary.BigEndian.Uint32(p)) + 4 - len(p); f.rest > 0 {
			f.held = append(f.held[:0], p...)
			return len(p), nil
		}
		f.rest = 0
		return len(p), f.send(p)
	}
	// The data fills the packet that the head begins.
	n := max(0, min(len(p), firstPiece-len(f.held)))
	f.held = append(f.held, p[:n]...)
	f.rest = 0
	err := f.send(f.held)
	if err == nil && n < len(p) {
		err = f.send(p[n:])
	}
	f.boundary.Broadcast()
	return len(p), err
}

// send writes. The caller holds out.
func (f *filter) send(p []byte) error {
	_, err := f.ch.Write(p)
	if err != nil {
		f.fail(err)
	}
	return err
}

// answered takes note of an answer of the server, of which p is the beginning.
func (f *filter) answered(p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) == 0 {
		return
	}
	r := f.asked[0]
	f.asked = f.asked[1:]
	f.change.Broadcast()
	switch r.kind {
	case fxpOpen, fxpOpendir:
		if handle := handleOf(p); handle != "" {
			info, err := os.Stat(r.first)
			if err != nil {
				info = nil // it has gone again
			}
			f.files[handle] = openFile{r.first, info}
		}
	case fxpClose:
		delete(f.files, r.first)
	}
}

// fail wakes those who wait for an answer that cannot be sent.
func (f *filter) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken == nil {
		f.broken = err
	}
	f.change.Broadcast()
}

// Close is called by the server when a client does not keep to the protocol.
func (f *filter) Close() error {
	f.fail(io.ErrClosedPipe)
	return f.ch.Close()
}
