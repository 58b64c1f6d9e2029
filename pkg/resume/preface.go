package resume

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// version is the only version of the protocol.
const version = 1

// magic begins every message of a handshake. No SSH identification does.
const magic = "CvR\x00"

const (
	prefaceHeader = len(magic) + 1 + 2
	// maxMessage bounds a message's body: two RSA-16384 numbers fit.
	maxMessage = 8 << 10
)

// messageType says what a message of a handshake is.
type messageType byte

const (
	msgHello   messageType = iota + 1 // client: a new session
	msgWelcome                        // agent: the answer
	msgResume                         // client: goes on with a session
	msgResumed                        // agent: the answer
	msgRefused                        // agent: no
	msgLimit
)

// errPreface is wrapped by what was read and is no message of a handshake.
var errPreface = errors.New("the far end does not speak the resumable stream's protocol")

// encode puts a body into a message.
func encode(kind messageType, body []byte) []byte {
	m := append([]byte(magic), byte(kind))
	m = binary.BigEndian.AppendUint16(m, uint16(len(body)))
	return append(m, body...)
}

// readMessage reads one message and nothing behind it.
func readMessage(r io.Reader) (messageType, []byte, error) {
	var head [prefaceHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	kind := messageType(head[len(magic)])
	length := int(binary.BigEndian.Uint16(head[len(magic)+1:]))
	switch {
	case string(head[:len(magic)]) != magic:
		return 0, nil, errPreface
	case kind == 0 || kind >= msgLimit:
		return 0, nil, fmt.Errorf("%w: message %d", errPreface, kind)
	case length > maxMessage:
		return 0, nil, fmt.Errorf("%w: a message of %d bytes", errPreface, length)
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, err
	}
	return kind, body, nil
}

// hello asks for a new session.
type hello struct {
	min, max byte   // the versions that the client speaks
	fastAES  bool   // it prefers AES
	buffer   uint32 // bytes that it holds for its user at most
	random   [randomSize]byte
	key      [keySize]byte // ephemeral, X25519
}

func (m *hello) encode() []byte {
	b := []byte{m.min, m.max, 0}
	if m.fastAES {
		b[2] = 1
	}
	b = binary.BigEndian.AppendUint32(b, m.buffer)
	b = append(b, m.random[:]...)
	return append(b, m.key[:]...)
}

// parseHello ignores what a newer version may have added at the end.
func parseHello(b []byte) (m hello, err error) {
	d := decoder{b: b}
	m.min, m.max = d.byte(), d.byte()
	m.fastAES = d.byte()&1 != 0
	m.buffer = d.uint32()
	d.copy(m.random[:])
	d.copy(m.key[:])
	if d.short || m.min == 0 || m.min > m.max {
		return hello{}, fmt.Errorf("%w: bad hello", errPreface)
	}
	return m, nil
}

// welcome opens a session. The signature is over everything before it and the
// hello.
type welcome struct {
	version   byte
	suite     suite
	window    uint32 // seconds that a detached session is kept
	buffer    uint32
	random    [randomSize]byte
	key       [keySize]byte
	token     [tokenSize]byte
	hostKey   []byte // SSH wire format, RFC 4253, section 6.6
	signature []byte // likewise
}

// signed encodes what the signature covers.
func (m *welcome) signed() []byte {
	b := []byte{m.version, byte(m.suite)}
	b = binary.BigEndian.AppendUint32(b, m.window)
	b = binary.BigEndian.AppendUint32(b, m.buffer)
	b = append(b, m.random[:]...)
	b = append(b, m.key[:]...)
	b = append(b, m.token[:]...)
	return appendBytes(b, m.hostKey)
}

func (m *welcome) encode() []byte { return appendBytes(m.signed(), m.signature) }

func parseWelcome(b []byte) (m welcome, err error) {
	d := decoder{b: b}
	m.version, m.suite = d.byte(), suite(d.byte())
	m.window, m.buffer = d.uint32(), d.uint32()
	d.copy(m.random[:])
	d.copy(m.key[:])
	d.copy(m.token[:])
	m.hostKey, m.signature = d.bytes(), d.bytes()
	if d.short || len(d.b) > 0 || m.suite == 0 || m.suite >= suiteLimit {
		return welcome{}, fmt.Errorf("%w: bad welcome", errPreface)
	}
	return m, nil
}

// resumption asks for going on with a session.
type resumption struct {
	version  byte
	token    [tokenSize]byte
	attempt  uint64 // higher than in all before
	received uint64 // the client has received the agent's stream up to here
	random   [randomSize]byte
	mac      [macSize]byte // over the rest
}

func (m *resumption) signed() []byte {
	b := append([]byte{m.version}, m.token[:]...)
	b = binary.BigEndian.AppendUint64(b, m.attempt)
	b = binary.BigEndian.AppendUint64(b, m.received)
	return append(b, m.random[:]...)
}

func (m *resumption) encode() []byte { return append(m.signed(), m.mac[:]...) }

func parseResumption(b []byte) (m resumption, err error) {
	d := decoder{b: b}
	m.version = d.byte()
	d.copy(m.token[:])
	m.attempt, m.received = d.uint64(), d.uint64()
	d.copy(m.random[:])
	d.copy(m.mac[:])
	if d.short || len(d.b) > 0 {
		return resumption{}, fmt.Errorf("%w: bad resume", errPreface)
	}
	return m, nil
}

// resumed goes on with a session.
type resumed struct {
	received uint64 // the agent has received the client's stream up to here
	random   [randomSize]byte
	mac      [macSize]byte // over the client's message and the rest
}

func (m *resumed) signed() []byte {
	return append(binary.BigEndian.AppendUint64(nil, m.received), m.random[:]...)
}

func (m *resumed) encode() []byte { return append(m.signed(), m.mac[:]...) }

func parseResumed(b []byte) (m resumed, err error) {
	d := decoder{b: b}
	m.received = d.uint64()
	d.copy(m.random[:])
	d.copy(m.mac[:])
	if d.short || len(d.b) > 0 {
		return resumed{}, fmt.Errorf("%w: bad answer to a resume", errPreface)
	}
	return m, nil
}

// refusal is why an agent says no. It is not authenticated: who knows no key
// cannot sign, and whoever can forge it can as well cut the connection.
type refusal byte

const (
	// refusedGone: no such session, any more, or it is not the client's.
	refusedGone refusal = iota + 1
	// refusedVersion: no common version.
	refusedVersion
	// refusedFull: no room for a new session.
	refusedFull
)

func parseRefusal(b []byte) (refusal, error) {
	if len(b) < 1 {
		return 0, fmt.Errorf("%w: bad refusal", errPreface)
	}
	return refusal(b[0]), nil
}

// appendBytes appends p with its length in two bytes in front.
func appendBytes(b, p []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	return append(b, p...)
}

// decoder takes fields off the front of b. Once a field was missing all that
// follow are zero.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if d.short || n > len(d.b) {
		d.short = true
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) copy(p []byte) { copy(p, d.take(len(p))) }

func (d *decoder) byte() byte {
	var p [1]byte
	d.copy(p[:])
	return p[0]
}

func (d *decoder) uint16() uint16 {
	var p [2]byte
	d.copy(p[:])
	return binary.BigEndian.Uint16(p[:])
}

func (d *decoder) uint32() uint32 {
	var p [4]byte
	d.copy(p[:])
	return binary.BigEndian.Uint32(p[:])
}

func (d *decoder) uint64() uint64 {
	var p [8]byte
	d.copy(p[:])
	return binary.BigEndian.Uint64(p[:])
}

func (d *decoder) bytes() []byte { return d.take(int(d.uint16())) }
