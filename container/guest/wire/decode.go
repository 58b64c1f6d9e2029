package wire

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// ErrFormat is what a peer sent that is no packet, or one beyond the limits.
// After it nothing more can be read from the stream.
var ErrFormat = errors.New("malformed packet")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

// Reader reads packets from a stream. It is for one goroutine at a time.
type Reader struct{ d decoder }

// NewReader reads from r, ahead of what it returns.
func NewReader(r io.Reader) *Reader {
	return &Reader{decoder{r: bufio.NewReaderSize(r, 64<<10)}}
}

// Read returns the next packet, whose payload is the caller's. The error is io.EOF
// where the stream ends between packets, io.ErrUnexpectedEOF where it ends in one,
// ErrFormat, or that of the stream.
func (r *Reader) Read() (Packet, error) {
	if _, err := r.d.r.(*bufio.Reader).Peek(1); err != nil {
		return Packet{}, err
	}
	r.d.left = maxOther
	var p Packet
	err := r.d.fields(func(key string) error {
		var err error
		switch key {
		case keyType:
			var n uint64
			n, err = r.d.uint()
			p.Type = Type(n)
		case keyConnectionID:
			p.ConnectionID, err = r.d.uint()
		case keyPayload:
			p.Payload, err = r.d.bytes()
		default:
			err = r.d.skip(maxDepth)
		}
		return err
	})
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Packet{}, fmt.Errorf("read a packet: %w", err)
	}
	return p, nil
}

// ParseSetup reads the payload of a packet of TypeSetup.
func ParseSetup(payload []byte) (Setup, error) {
	var s Setup
	err := parse(payload, func(d *decoder, key string) (err error) {
		var n uint64
		switch key {
		case keyConnectionType:
			n, err = d.uint()
			s.ConnectionType = ConnectionType(n)
		case keyBindHost:
			s.BindHost, err = d.text()
		case keyBindPort:
			s.BindPort, err = d.uint()
		case keyProtocol:
			s.Protocol, err = d.text()
		case keyScreen:
			s.Screen, err = d.text()
		case keySingleConnection:
			s.SingleConnection, err = d.bool()
		case keyAuthProtocol:
			s.AuthProtocol, err = d.text()
		case keyAuthCookie:
			s.AuthCookie, err = d.text()
		case keyExtensions:
			s.Extensions, err = d.uint()
		default:
			err = d.skip(maxDepth)
		}
		return err
	})
	if err != nil {
		return Setup{}, fmt.Errorf("read a setup: %w", err)
	}
	return s, nil
}

// ParseGranted reads the payload of the SUCCESS to a setup; none is all zero.
func ParseGranted(payload []byte) (Granted, error) {
	var g Granted
	if len(payload) == 0 {
		return g, nil
	}
	err := parse(payload, func(d *decoder, key string) (err error) {
		switch key {
		case keyBindPort:
			g.BindPort, err = d.uint()
		case keyExtensions:
			g.Extensions, err = d.uint()
		default:
			err = d.skip(maxDepth)
		}
		return err
	})
	if err != nil {
		return Granted{}, fmt.Errorf("read the answer to a setup: %w", err)
	}
	return g, nil
}

// ParseNew reads the payload of a packet of TypeNew.
func ParseNew(payload []byte) (New, error) {
	var n New
	err := parse(payload, func(d *decoder, key string) (err error) {
		switch key {
		case keyProtocol:
			n.Protocol, err = d.text()
		case keyConnectedAddress:
			n.ConnectedAddress, err = d.text()
		case keyConnectedPort:
			n.ConnectedPort, err = d.uint()
		case keyOriginatorAddress:
			n.OriginatorAddress, err = d.text()
		case keyOriginatorPort:
			n.OriginatorPort, err = d.uint()
		default:
			err = d.skip(maxDepth)
		}
		return err
	})
	if err != nil {
		return New{}, fmt.Errorf("read a new connection: %w", err)
	}
	return n, nil
}

// ParseWindow reads the payload of a packet of TypeWindow.
func ParseWindow(payload []byte) (uint64, error) {
	d := decoder{r: bytes.NewReader(payload), left: maxOther}
	n, err := d.uint()
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return 0, fmt.Errorf("read a window: %w", truncated(err))
	}
	return n, nil
}

// parse reads a map that is all of the payload.
func parse(payload []byte, field func(d *decoder, key string) error) error {
	d := &decoder{r: bytes.NewReader(payload), left: maxOther}
	err := d.fields(func(key string) error { return field(d, key) })
	if err == nil {
		err = d.end()
	}
	return truncated(err)
}

// truncated is err, where the end of a payload is a mistake of the peer's.
func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return malformed("its payload ends too early")
	}
	return err
}

// decoder reads items of CBOR.
type decoder struct {
	r interface {
		io.Reader
		io.ByteReader
	}
	// left is how many bytes may still be read for what is no payload.
	left int
}

func (d *decoder) take(n int) error {
	if d.left -= n; d.left < 0 {
		return malformed("it is longer than %d bytes beside its payload", maxOther)
	}
	return nil
}

func (d *decoder) end() error {
	if _, err := d.r.ReadByte(); err == nil {
		return malformed("something follows its payload")
	}
	return nil
}

// head reads the head of an item: its first byte and the number that belongs to
// it. Of an item of indefinite length (RFC 8949 section 3.2) and of the code that
// ends one, more is true.
func (d *decoder) head() (first byte, n uint64, more bool, err error) {
	if err := d.take(1); err != nil {
		return 0, 0, false, err
	}
	first, err = d.r.ReadByte()
	if err != nil {
		return 0, 0, false, err
	}
	switch info := first & 0x1f; {
	case info < 24:
		return first, uint64(info), false, nil
	case info < 28:
		var b [8]byte
		size := 1 << (info - 24)
		if err := d.take(size); err != nil {
			return 0, 0, false, err
		}
		if _, err := io.ReadFull(d.r, b[8-size:]); err != nil {
			return 0, 0, false, err
		}
		return first, binary.BigEndian.Uint64(b[:]), false, nil
	case info == 31:
		return first, 0, true, nil
	}
	return 0, 0, false, malformed("its byte %#02x begins no item", first)
}

// null reports an item that stands for the zero value: null or undefined.
func null(first byte) bool { return first == simpleNull || first == simpleUndefined }

func (d *decoder) uint() (uint64, error) {
	first, n, more, err := d.head()
	switch {
	case err != nil:
		return 0, err
	case null(first):
		return 0, nil
	case first>>5 != majorUint || more:
		return 0, malformed("it has something else (%#02x) in place of a number", first)
	}
	return n, nil
}

func (d *decoder) bool() (bool, error) {
	first, _, _, err := d.head()
	switch {
	case err != nil:
		return false, err
	case first == simpleTrue, first == simpleFalse, null(first):
		return first == simpleTrue, nil
	}
	return false, malformed("it has something else (%#02x) in place of true or false", first)
}

func (d *decoder) text() (string, error) {
	first, n, more, err := d.head()
	switch {
	case err != nil:
		return "", err
	case null(first):
		return "", nil
	case first>>5 != majorText || more:
		return "", malformed("it has something else (%#02x) in place of a text", first)
	case n > maxText:
		return "", malformed("it has a text of %d bytes, more than %d", n, maxText)
	}
	if err := d.take(int(n)); err != nil {
		return "", err
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(d.r, b); err != nil {
		return "", err
	}
	if !utf8.Valid(b) {
		return "", malformed("it has a text that is not UTF-8")
	}
	return string(b), nil
}

// bytes reads a payload, which does not count against left.
func (d *decoder) bytes() ([]byte, error) {
	first, n, more, err := d.head()
	switch {
	case err != nil:
		return nil, err
	case null(first):
		return nil, nil
	case first>>5 != majorBytes || more:
		return nil, malformed("it has something else (%#02x) in place of a byte string", first)
	case n > MaxPayload:
		return nil, malformed("its payload has %d bytes, more than %d", n, MaxPayload)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(d.r, b)
	return b, err
}

// fields reads a map, and calls field after each key to read the value.
func (d *decoder) fields(field func(key string) error) error {
	first, n, more, err := d.head()
	switch {
	case err != nil:
		return err
	case first>>5 != majorMap:
		return malformed("it begins with %#02x, which is no map", first)
	case !more && n > maxEntries:
		return malformed("it has %d keys, more than %d", n, maxEntries)
	}
	seen := make([]string, 0, 8)
	for i := uint64(0); more || i < n; i++ {
		if i == maxEntries {
			return malformed("it has more than %d keys", maxEntries)
		}
		key, last, err := d.key(more)
		if err != nil || last {
			return err
		}
		for _, before := range seen {
			if before == key {
				return malformed("it has the key %q twice", key)
			}
		}
		seen = append(seen, key)
		if err := field(key); err != nil {
			return err
		}
	}
	return nil
}

// key reads a key, or the end of a map without a length.
func (d *decoder) key(more bool) (key string, last bool, err error) {
	first, n, indefinite, err := d.head()
	switch {
	case err != nil:
		return "", false, err
	case more && first == stopCode:
		return "", true, nil
	case first>>5 != majorText || indefinite:
		return "", false, malformed("it has a key that is no text (%#02x)", first)
	case n > maxText:
		return "", false, malformed("it has a key of %d bytes", n)
	}
	if err := d.take(int(n)); err != nil {
		return "", false, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(d.r, b)
	return string(b), false, err
}

// skip reads one item, whatever it is.
func (d *decoder) skip(depth int) error {
	_, err := d.skipItem(depth, false)
	return err
}

// skipItem reports in last that it read the code that ends an item of indefinite
// length, if that may stand here.
func (d *decoder) skipItem(depth int, mayEnd bool) (last bool, err error) {
	if depth == 0 {
		return false, malformed("it is nested too deeply")
	}
	first, n, more, err := d.head()
	if err != nil {
		return false, err
	}
	major := first >> 5
	switch {
	case first == stopCode:
		if !mayEnd {
			return false, malformed("it has the end of an item where none has begun")
		}
		return true, nil
	case more && (major == majorUint || major == majorNeg || major == majorTag):
		return false, malformed("its byte %#02x begins no item", first)
	case more:
		// What is inside of a string without a length is strings; to be skipped,
		// any item is good enough.
		for !last {
			if last, err = d.skipItem(depth-1, true); err != nil {
				return false, err
			}
		}
		return false, nil
	}
	switch major {
	case majorBytes, majorText:
		if n > maxOther {
			return false, malformed("it has a string of %d bytes under an unknown key", n)
		}
		if err := d.take(int(n)); err != nil {
			return false, err
		}
		_, err = io.CopyN(io.Discard, d.r, int64(n))
		return false, err
	case majorTag:
		_, err = d.skipItem(depth-1, false)
		return false, err
	case majorMap:
		if n > maxOther {
			return false, malformed("it has a map of %d entries under an unknown key", n)
		}
		n *= 2
	case majorArray:
	default:
		return false, nil
	}
	// Each item takes a byte at least, so left bounds the loop.
	for range n {
		if _, err := d.skipItem(depth-1, false); err != nil {
			return false, err
		}
	}
	return false, nil
}
