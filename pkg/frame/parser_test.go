package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// parsed is all that a parser found in some input.
type parsed struct {
	payload  []byte
	controls []string // each with its place in the payload
	failure  string
}

// parseAll feeds pieces of the sizes that next gives to a new parser.
func parseAll(t *testing.T, server bool, limit int64, input []byte, next func() int) parsed {
	var out parsed
	p := parser{wantMask: server, maxFrame: limit}
	input = bytes.Clone(input)
	for len(input) > 0 {
		size := min(next(), len(input))
		piece := input[:size]
		input = input[size:]
		for len(piece) > 0 {
			n, ev, err := p.next(piece)
			if n < 0 || n > len(piece) || (n == 0 && err == nil) {
				t.Fatalf("consumed %d of %d bytes", n, len(piece))
			}
			if err != nil {
				out.failure = err.Error()
				return out
			}
			if ev.op == opBinary {
				if !bytes.Equal(ev.payload, piece[n-len(ev.payload):n]) {
					t.Fatal("the payload does not end where the parser stopped")
				}
				out.payload = append(out.payload, ev.payload...)
			} else if ev.op != 0 {
				out.controls = append(out.controls, fmt.Sprintf("%X %q at %d", ev.op, ev.payload, len(out.payload)))
			}
			piece = piece[n:]
		}
	}
	return out
}

func FuzzParser(f *testing.F) {
	f.Add([]byte("\x82\x03abc\x89\x01x"), false, uint64(1))
	f.Fuzz(func(t *testing.T, input []byte, server bool, seed uint64) {
		const limit = 1 << 20
		rnd := rand.New(rand.NewPCG(seed, seed))
		whole := parseAll(t, server, limit, input, func() int { return len(input) })
		single := parseAll(t, server, limit, input, func() int { return 1 })
		pieces := parseAll(t, server, limit, input, func() int { return 1 + rnd.IntN(20) })
		for name, got := range map[string]parsed{"bytes": single, "pieces": pieces} {
			if !bytes.Equal(got.payload, whole.payload) || !slices.Equal(got.controls, whole.controls) || got.failure != whole.failure {
				t.Fatalf("in %s: %+v\nat once: %+v", name, got, whole)
			}
		}
	})
}

// TestParserFragments interleaves pings with random fragments.
func TestParserFragments(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var input, want []byte
	pings := 0
	for message := range 50 {
		op := byte(opBinary)
		for left := rnd.IntN(5); left >= 0; left-- {
			part := bytes.Repeat([]byte{byte(message)}, rnd.IntN(70000)*rnd.IntN(2))
			want = append(want, part...)
			input = append(input, rawFrame(left == 0, true, op, part)...)
			op = opContinuation
			if rnd.IntN(3) == 0 {
				input = append(input, fromClient(opPing, []byte("x"))...)
				pings++
			}
		}
	}
	got := parseAll(t, true, DefaultMaxFrame, input, func() int { return 1 + rnd.IntN(4000) })
	if got.failure != "" || len(got.controls) != pings {
		t.Fatalf("%d controls of %d, failure %q", len(got.controls), pings, got.failure)
	}
	sameBytes(t, "payload", got.payload, want)
}

// violations are inputs that fail a connection, and the close code for each.
var violations = []struct {
	name   string
	client bool // the violator is a server
	input  []byte
	code   int
}{
	{name: "text", input: fromClient(opText, []byte("hello")), code: CloseUnsupported},
	{name: "reserved bit", input: []byte{0xc2, 0x80, 0, 0, 0, 0}, code: CloseProtocolError},
	{name: "reserved opcode", input: fromClient(0x7, nil), code: CloseProtocolError},
	{name: "unmasked client", input: rawFrame(true, false, opBinary, []byte("x")), code: CloseProtocolError},
	{name: "unmasked ping", input: rawFrame(true, false, opPing, nil), code: CloseProtocolError},
	{name: "masked server", client: true, input: fromClient(opBinary, []byte("x")), code: CloseProtocolError},
	{name: "fragmented ping", input: rawFrame(false, true, opPing, nil), code: CloseProtocolError},
	{name: "long ping", input: rawFrame(true, true, opPing, make([]byte, 126)), code: CloseProtocolError},
	{name: "half a close code", input: fromClient(opClose, []byte{3}), code: CloseProtocolError},
	{name: "bad close code", input: fromClient(opClose, []byte{3, 0xee}), code: CloseProtocolError},
	{name: "close reason not UTF-8", input: fromClient(opClose, []byte{3, 0xe8, 0xff}), code: CloseInvalidPayload},
	{name: "oversize", input: []byte{0x82, 0xff, 0, 0, 0, 0, 0x01, 0, 0, 1, 1, 2, 3, 4}, code: CloseTooBig},
	{name: "oversize from server", client: true, input: []byte{0x82, 0x7f, 0, 0, 0, 0, 0x01, 0, 0, 1}, code: CloseTooBig},
	{name: "highest bit", input: []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, code: CloseProtocolError},
	{name: "length not shortest", input: []byte{0x82, 0xfe, 0, 5, 1, 2, 3, 4}, code: CloseProtocolError},
	{name: "lone continuation", input: fromClient(opContinuation, []byte("x")), code: CloseProtocolError},
	{name: "message inside a message", input: append(rawFrame(false, true, opBinary, nil), fromClient(opBinary, nil)...), code: CloseProtocolError},
}

func TestConnViolations(t *testing.T) {
	for _, test := range violations {
		t.Run(test.name, func(t *testing.T) {
			raw, nc := tcpPair(t)
			open := Server
			if test.client {
				open = Client
			}
			conn := open(nc, nil, quiet)
			defer conn.Close()
			defer raw.Close() // first: Close need not wait for an answer
			mustWrite(t, raw, test.input)
			var protocol *ProtocolError
			for range 2 { // it is sticky
				if _, err := conn.Read(make([]byte, 10)); !errors.As(err, &protocol) || protocol.Code != test.code {
					t.Fatalf("Read: %v, want code %d", err, test.code)
				}
			}
			if reason := wantClose(t, raw, test.code); reason != protocol.Text {
				t.Errorf("reason %q, want %q", reason, protocol.Text)
			}
			if _, err := conn.Write([]byte("x")); err == nil {
				t.Error("Write after the failure: no error")
			}
		})
	}
}
