package sftpd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
)

// Packets of the SSH file transfer protocol, version 3
// (draft-ietf-secsh-filexfer-02 §3 to §8), and of OpenSSH's extensions to it
// (PROTOCOL in its source, §4): as many of them as the filter looks into.
const (
	fxpInit          = 1
	fxpVersion       = 2
	fxpOpen          = 3
	fxpClose         = 4
	fxpWrite         = 6
	fxpOpendir       = 11
	fxpRename        = 18
	fxpSymlink       = 20
	fxpStatus        = 101
	fxpHandle        = 102
	fxpExtended      = 200
	fxpExtendedReply = 201

	fxOK               = 0
	fxNoSuchFile       = 2
	fxPermissionDenied = 3
	fxFailure          = 4
	fxBadMessage       = 5
	fxOpUnsupported    = 8

	extLimits  = "limits@openssh.com"
	extFsync   = "fsync@openssh.com"
	extStatVFS = "statvfs@openssh.com"
)

// Limits of packets, in bytes without their length field.
const (
	// maxPacket is that of all: the library takes no longer ones.
	maxPacket = 256 << 10
	// maxData is what one read or write carries, which leaves space for
	// the rest of the packet. OpenSSH has the same.
	maxData = 255 << 10
	// maxRequest is that of requests that carry no file data. Two names
	// of the greatest length that a platform takes find place in it.
	maxRequest = 64 << 10
)

// errMalformed is a client that does not keep to the protocol.
var errMalformed = errors.New("malformed file transfer packet")

// request is what the filter wants to know of a request. The strings are
// copies.
type request struct {
	kind byte
	id   uint32
	// extension is the name of an extended request.
	extension string
	// first and second are path or handle, and a second path, of those kinds
	// of which the filter has to know.
	first, second string
}

// parseRequest reads a request without its length: type, id and the rest. The
// second result is false if there is no id that an answer could go to; then
// the rest is void. An error is a request with an id that is malformed.
func parseRequest(packet []byte) (r request, ok bool, err error) {
	if len(packet) == 0 {
		return r, false, nil
	}
	c := cursor{rest: packet[1:]}
	r.kind = packet[0]
	if r.id = c.number(); c.failed {
		return r, false, nil
	}
	switch r.kind {
	case fxpOpen, fxpOpendir, fxpClose:
		r.first = c.text()
	case fxpRename, fxpSymlink:
		r.first = c.text()
		r.second = c.text()
	case fxpExtended:
		r.extension = c.text()
		switch r.extension {
		case extFsync, extStatVFS:
			r.first = c.text()
		}
	}
	if c.failed {
		return r, true, errMalformed
	}
	return r, true, nil
}

// cursor reads the fields of a packet. After a failure all are empty.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) number() uint32 {
	if c.failed || len(c.rest) < 4 {
		c.failed = true
		return 0
	}
	n := binary.BigEndian.Uint32(c.rest)
	c.rest = c.rest[4:]
	return n
}

func (c *cursor) text() string {
	n := c.number()
	if c.failed || uint64(n) > uint64(len(c.rest)) {
		c.failed = true
		return ""
	}
	text := string(c.rest[:n])
	c.rest = c.rest[n:]
	return text
}

// appendText adds a string to a packet.
func appendText(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(text))), text...)
}

// framed adds the length of what follows the first four bytes.
func framed(packet []byte) []byte {
	binary.BigEndian.PutUint32(packet, uint32(len(packet)-4))
	return packet
}

// statusPacket is the answer to a request that returns nothing.
func statusPacket(id, code uint32, text string) []byte {
	b := append(make([]byte, 4, 64), fxpStatus)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, code)
	b = appendText(b, text)
	return framed(appendText(b, "en"))
}

// errorPacket is the answer to a request that the system judged.
func errorPacket(id uint32, err error) []byte {
	switch {
	case err == nil:
		return statusPacket(id, fxOK, "")
	case errors.Is(err, fs.ErrNotExist):
		return statusPacket(id, fxNoSuchFile, err.Error())
	case errors.Is(err, fs.ErrPermission):
		return statusPacket(id, fxPermissionDenied, err.Error())
	}
	return statusPacket(id, fxFailure, err.Error())
}

// limitsPacket is the answer to limits@openssh.com.
func limitsPacket(id uint32) []byte {
	b := append(make([]byte, 4, 64), fxpExtendedReply)
	b = binary.BigEndian.AppendUint32(b, id)
	for _, limit := range []uint64{maxPacket, maxData, maxData, maxHandles} {
		b = binary.BigEndian.AppendUint64(b, limit)
	}
	return framed(b)
}

// extendVersion adds to a VERSION packet what the filter serves.
func extendVersion(packet []byte) []byte {
	b := append([]byte{}, packet...)
	for _, name := range []string{extLimits, extFsync} {
		b = appendText(appendText(b, name), "1")
	}
	return framed(b)
}

// withPath is an extended request with another path, framed.
func (r request) withPath(path string) []byte {
	b := append(make([]byte, 4, 64+len(path)), r.kind)
	b = binary.BigEndian.AppendUint32(b, r.id)
	return framed(appendText(appendText(b, r.extension), path))
}

// handleOf reads the handle of a HANDLE packet with its length, "" if it is
// none.
func handleOf(packet []byte) string {
	if len(packet) < 9 || packet[4] != fxpHandle {
		return ""
	}
	c := cursor{rest: packet[9:]}
	return c.text()
}

// errTooLong is a packet that exceeds its limit.
func errTooLong(length uint32) error {
	return fmt.Errorf("%w: it has %d bytes", errMalformed, length)
}
