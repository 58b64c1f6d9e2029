package sshd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// Limits of what is looked at before the handshake starts.
const (
	// maxIdentification is the length of a client's first line, with its end
	// (RFC 4253 §4.2).
	maxIdentification = 255
	// maxProposal is the length of a KEXINIT packet. OpenSSH's has 1.5 KiB;
	// packets of 35 000 bytes have to be taken (RFC 4253 §6.1), but one that
	// is longer than this is not worth the wait.
	maxProposal = 32 << 10
	// proposalWait is how long after its first line a client may take to send
	// its KEXINIT until it is served without. Clients send it at once; one
	// that wants the server's first is kept this long.
	proposalWait = 2 * time.Second
	// peekBuffer is the size of a read before the handshake starts.
	peekBuffer = 4 << 10
)

// front is the transport of a connection as the SSH library uses it. It sends
// the server's identification, which every client may wait for, and looks at
// the client's first line and KEXINIT before the library starts. The library
// then reads them once more, and its own identification is swallowed.
type front struct {
	net.Conn
	// start runs something in a goroutine that the connection's end waits for.
	start func(func())

	// sent is an identification that the library is about to send again.
	sent []byte
	// What the library has yet to read: bytes, then an error, or else a read
	// that was under way when the patience ended.
	kept []byte
	err  error
	late chan arrival
}

// arrival is the result of a read.
type arrival struct {
	data []byte
	err  error
}

// errSequence would be a change in how the library starts.
var errSequence = errors.New("the SSH library did not begin with the server's identification")

// greet sends the identification, a line without its end, and returns what the
// client proposes, or nil if that cannot be told: it sent something else, too
// much, or nothing in time. All that arrives is kept for Read. It must be
// called once at most, before Read and Write.
func (f *front) greet(identification string) *proposal {
	f.sent = []byte(identification + "\r\n")
	if _, err := f.Conn.Write(f.sent); err != nil {
		return nil // reading will fail as well
	}
	var patience <-chan time.Time
	for {
		p, state := parseOpening(f.kept)
		switch state {
		case openingRead:
			return p
		case openingOdd:
			return nil
		case openingLine:
			// Who says nothing at all has until the end of the login.
		case openingProposal:
			if patience == nil {
				timer := time.NewTimer(proposalWait)
				defer timer.Stop()
				patience = timer.C
			}
		}
		if f.err != nil {
			return nil
		}
		if f.late == nil {
			f.late = make(chan arrival, 1)
			f.start(func() {
				// Without a deadline: on some transports one that passes
				// breaks the connection.
				buf := make([]byte, peekBuffer)
				n, err := f.Conn.Read(buf)
				f.late <- arrival{buf[:n], err}
			})
		}
		select {
		case a := <-f.late:
			f.take(a)
		case <-patience:
			return nil
		}
	}
}

// take keeps what a read brought.
func (f *front) take(a arrival) {
	f.late = nil
	f.kept = append(f.kept, a.data...)
	f.err = a.err
}

// Read returns what greet has kept, then what comes.
func (f *front) Read(p []byte) (int, error) {
	if len(f.kept) == 0 && f.late != nil {
		f.take(<-f.late)
	}
	switch {
	case len(f.kept) > 0:
		n := copy(p, f.kept)
		if f.kept = f.kept[n:]; len(f.kept) == 0 {
			f.kept = nil
		}
		return n, nil
	case f.err != nil:
		return 0, f.err
	}
	return f.Conn.Read(p)
}

// Write swallows the identification that greet has sent.
func (f *front) Write(p []byte) (int, error) {
	if f.sent != nil {
		if !bytes.Equal(p, f.sent) {
			return 0, errSequence
		}
		f.sent = nil
		return len(p), nil
	}
	return f.Conn.Write(p)
}

// proposal is what a client can do (KEXINIT, RFC 4253 §7.1). The names of the
// fields are those of the RFC.
type proposal struct {
	Cookie                  [16]byte `sshtype:"20"`
	KexAlgorithms           []string
	ServerHostKeyAlgorithms []string
	EncryptionClientServer  []string
	EncryptionServerClient  []string
	MACClientServer         []string
	MACServerClient         []string
	CompressionClientServer []string
	CompressionServerClient []string
	LanguagesClientServer   []string
	LanguagesServerClient   []string
	FirstKexPacketFollows   bool
	Reserved                uint32
}

// opening says how far a client has come.
type opening int

const (
	// openingLine is when the first line is not complete.
	openingLine opening = iota
	// openingProposal is when the line is, and KEXINIT is not.
	openingProposal
	// openingRead is when both are.
	openingRead
	// openingOdd is something else, or too much.
	openingOdd
)

// parseOpening reads the first bytes of a client: its identification (RFC 4253
// §4.2) and the packet with its KEXINIT (§6, §7.1). It is no judge of them: the
// library reads them too.
func parseOpening(data []byte) (*proposal, opening) {
	const prefix = "SSH-"
	if n := min(len(data), len(prefix)); string(data[:n]) != prefix[:n] {
		return nil, openingOdd
	}
	end := bytes.IndexByte(data, '\n') + 1
	switch {
	case end > maxIdentification, end == 0 && len(data) >= maxIdentification:
		return nil, openingOdd
	case end == 0:
		return nil, openingLine
	}
	data = data[end:]
	if len(data) < 4 {
		return nil, openingProposal
	}
	length := binary.BigEndian.Uint32(data)
	data = data[4:]
	switch {
	case length < 2, length > maxProposal:
		return nil, openingOdd
	case uint32(len(data)) < length:
		return nil, openingProposal
	}
	padding := uint32(data[0])
	if padding+1 >= length {
		return nil, openingOdd
	}
	p := new(proposal)
	if err := ssh.Unmarshal(data[1:length-padding], p); err != nil {
		return nil, openingOdd
	}
	return p, openingRead
}
