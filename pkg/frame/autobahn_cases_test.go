package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
)

// autobahnCase is a case of the Autobahn test suite: what its fuzzer sends,
// in the words of RFC 6455, and what has to come of it.
type autobahnCase struct {
	id, what string
	bursts   []burst
	rounds   int // how often, each time after the echo; 0 is once
	// want is "echo": all data comes back, all pings are answered, and then
	// the fuzzer closes; "close": the same, and the case closes by itself;
	// or the close code of a failed connection.
	want string
	// text says that the suite sends this as text. It is sent as binary
	// first, and then as it stands, for 1003 unless asText says another code.
	text   bool
	asText string
	note   string
}

// burst is frames that are sent together.
type burst struct {
	frames []refFrame
	chop   int  // octets in a write; 0 is all in one, frameWise one frame each
	pong   bool // wait for the pong to its last ping
}

const frameWise = -1

// binOctets are what all binary messages are made of, so that the table does
// not hold each of the large ones. Nobody writes to them.
var binOctets = sync.OnceValue(func() []byte {
	return bytes.Repeat([]byte("\x00\xfe\x23\xfa\xf0"), (16<<20)/5+1)
})

func text(payload string) refFrame { return refFrame{fin: true, op: 1, payload: []byte(payload)} }
func bin(n int) refFrame           { return refFrame{fin: true, op: 2, payload: binOctets()[:n:n]} }
func ping(payload string) refFrame { return refFrame{fin: true, op: 9, payload: []byte(payload)} }
func pong(payload string) refFrame { return refFrame{fin: true, op: 10, payload: []byte(payload)} }
func part(op byte, payload string) refFrame {
	return refFrame{op: op, payload: []byte(payload)}
}
func last(payload string) refFrame { return refFrame{fin: true, op: 0, payload: []byte(payload)} }
func bye(code int, reason string) refFrame {
	return refFrame{fin: true, op: 8, payload: append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)}
}
func rsv(bits byte, f refFrame) refFrame { f.rsv = bits; return f }

func once(chop int, frames ...refFrame) []burst { return []burst{{frames: frames, chop: chop}} }

// fragmented splits a binary message of n octets.
func fragmented(n, size int) []refFrame {
	whole := bin(n).payload
	var frames []refFrame
	for op := byte(2); len(whole) > 0; op = 0 {
		k := min(size, len(whole))
		frames = append(frames, refFrame{fin: k == len(whole), op: op, payload: whole[:k]})
		whole = whole[k:]
	}
	return frames
}

const (
	hello     = "Hello, world!"
	notUTF8   = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"
	anyOctets = "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	emptyNote = "an empty message is nothing to a stream: there is no echo to wait for"
)

// pongNote is about the two cases of which the suite says itself that the RFC
// does not ask for what they check.
const pongNote = "section 5.5.3 lets an end answer the newest ping alone: that one's pong has to come, the others may"

// autobahnCases are sections 1 to 5 and 7 to 10 of the suite, version 0.8.
func autobahnCases() []autobahnCase {
	cases := framingCases()
	cases = append(cases, []autobahnCase{
		{id: "2.1", what: "ping without payload", bursts: once(0, ping("")), want: "echo"},
		{id: "2.2", what: "ping with text", bursts: once(0, ping("Hello, world!")), want: "echo"},
		{id: "2.3", what: "ping with octets that are not UTF-8", bursts: once(0, ping(anyOctets)), want: "echo"},
		{id: "2.4", what: "ping with 125 octets", bursts: once(0, ping(strings.Repeat("\xfe", 125))), want: "echo"},
		{id: "2.5", what: "ping with 126 octets", bursts: once(0, ping(strings.Repeat("\xfe", 126))), want: "1002"},
		{id: "2.6", what: "ping with 125 octets, octet by octet", bursts: once(1, ping(strings.Repeat("\xfe", 125))), want: "echo"},
		{id: "2.7", what: "pong nobody asked for, empty", bursts: once(0, pong("")), want: "echo"},
		{id: "2.8", what: "pong nobody asked for", bursts: once(0, pong("unsolicited")), want: "echo"},
		{id: "2.9", what: "pong nobody asked for, then a ping", bursts: once(0, pong("unsolicited"), ping("ping")), want: "echo"},
		{id: "2.10", what: "ten pings", bursts: once(0, pings(10)...), want: "echo", note: pongNote},
		{id: "2.11", what: "ten pings, octet by octet", bursts: once(1, pings(10)...), want: "echo", note: pongNote},

		{id: "3.1", what: "message with RSV 1", bursts: once(0, rsv(1, text(hello))), want: "1002", text: true, asText: "1002"},
		{id: "3.2", what: "message, message with RSV 2, ping", bursts: once(0, text(hello), rsv(2, text(hello)), ping("")), want: "1002", text: true},
		{id: "3.3", what: "the same with RSV 3, frame by frame", bursts: once(frameWise, text(hello), rsv(3, text(hello)), ping("")), want: "1002", text: true},
		{id: "3.4", what: "the same with RSV 4, octet by octet", bursts: once(1, text(hello), rsv(4, text(hello)), ping("")), want: "1002", text: true},
		{id: "3.5", what: "binary message with RSV 5", bursts: once(0, rsv(5, bin(13))), want: "1002"},
		{id: "3.6", what: "ping with RSV 6", bursts: once(0, rsv(6, ping(hello))), want: "1002"},
		{id: "3.7", what: "close with RSV 7", bursts: once(0, rsv(7, bye(1000, ""))), want: "1002"},
	}...)
	for i, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		reserved := refFrame{fin: true, op: op}
		n := i%5 + 1
		if n != 1 && n != 3 {
			reserved.payload = []byte(hello)
		}
		c := autobahnCase{id: fmt.Sprintf("4.%d.%d", 1+i/5, n), what: fmt.Sprintf("reserved opcode %d, %d octets", op, len(reserved.payload)),
			bursts: once(0, reserved), want: "1002"}
		if n >= 3 {
			c.what = "message, " + c.what + ", ping"
			c.bursts, c.text = once(0, text(hello), reserved, ping("")), true
		}
		if n == 5 {
			c.what += ", octet by octet"
			c.bursts[0].chop = 1
		}
		cases = append(cases, c)
	}
	cases = append(cases, fragmentationCases()...)
	cases = append(cases, closeCases()...)
	return append(cases, largeCases()...)
}

// framingCases are section 1.
func framingCases() (cases []autobahnCase) {
	for section, kind := range []string{"text", "binary"} {
		for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			c := autobahnCase{id: fmt.Sprintf("1.%d.%d", section+1, i+1), what: fmt.Sprintf("%s message of %d octets", kind, n), bursts: once(0, bin(n)), want: "echo"}
			if section == 0 {
				c.bursts[0].frames[0].op = 1
				c.want = "1003"
			}
			if n == 0 && section == 1 {
				c.note = emptyNote
			}
			if i == 7 {
				c.what += ", 997 to a write"
				c.bursts[0].chop = 997
			}
			cases = append(cases, c)
		}
	}
	return cases
}

func pings(n int) (frames []refFrame) {
	for i := range n {
		frames = append(frames, ping(fmt.Sprint("payload-", i)))
	}
	return frames
}

// fragmentationCases are section 5.
func fragmentationCases() []autobahnCase {
	cases := []autobahnCase{
		{id: "5.1", what: "ping in two fragments", bursts: once(0, part(9, "fragment1"), last("fragment2")), want: "1002"},
		{id: "5.2", what: "pong in two fragments", bursts: once(0, part(10, "fragment1"), last("fragment2")), want: "1002"},
	}
	chops := []struct {
		words string
		size  int
	}{{"", 0}, {", frame by frame", frameWise}, {", octet by octet", 1}}
	add := func(id int, what, want string, frames ...refFrame) {
		for i, chop := range chops {
			c := autobahnCase{id: fmt.Sprint("5.", id+i), what: what + chop.words, bursts: once(chop.size, frames...), want: want, text: true}
			if frames[0].op == 0 {
				c.asText = "1002"
			}
			cases = append(cases, c)
		}
	}
	add(3, "message in two fragments", "echo", part(1, "fragment1"), last("fragment2"))
	add(6, "message in two fragments, a ping between them", "echo", part(1, "fragment1"), ping("ping payload"), last("fragment2"))
	add(9, "last continuation of nothing, then a message", "1002", last("non-continuation payload"), text(hello))
	add(12, "continuation of nothing, then a message", "1002", part(0, "non-continuation payload"), text(hello))
	nothing := []refFrame{part(0, "fragment1"), part(1, "fragment2"), last("fragment3")}
	final := []refFrame{last("fragment1"), part(1, "fragment2"), last("fragment3")}
	inTwo := func(chop int) []burst {
		return []burst{
			{frames: []refFrame{part(1, "fragment1"), part(0, "fragment2"), ping("pongme 1!")}, chop: chop, pong: true},
			{frames: []refFrame{part(0, "fragment3"), part(0, "fragment4"), ping("pongme 2!"), last("fragment5")}, chop: chop},
		}
	}
	return append(cases, []autobahnCase{
		{id: "5.15", what: "message in two fragments, continuation of nothing, message", want: "1002", text: true,
			bursts: once(0, part(1, "fragment1"), last("fragment2"), part(0, "fragment3"), text("fragment4"))},
		{id: "5.16", what: "continuation of nothing, message in two fragments, twice", bursts: once(0, append(nothing, nothing...)...), want: "1002", text: true, asText: "1002"},
		{id: "5.17", what: "last continuation of nothing, message in two fragments, twice", bursts: once(0, append(final, final...)...), want: "1002", text: true, asText: "1002"},
		{id: "5.18", what: "message inside a fragmented message", bursts: once(0, part(1, "fragment1"), text("fragment2")), want: "1002", text: true},
		{id: "5.19", what: "five fragments and two pings; the second half after the first pong", bursts: inTwo(0), want: "echo", text: true},
		{id: "5.20", what: "the same, frame by frame", bursts: inTwo(frameWise), want: "echo", text: true},
	}...)
}
