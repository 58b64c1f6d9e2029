package frame

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
)

// FuzzDecoder gives the parser any octets in any pieces, and compares what it
// makes of them with what the reference makes of them as a whole.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x82\x83\x01\x02\x03\x04abc\x88\x80\x01\x02\x03\x04"), true, uint64(1))
	f.Fuzz(func(t *testing.T, wire []byte, server bool, seed uint64) {
		const limit = 70_000
		want := refDecode(wire, server, limit)
		got := refDecoded{end: refOpen}
		rnd := rand.New(rand.NewPCG(seed, 8))
		p := parser{wantMask: server, maxFrame: limit}
		var failure error
		for rest := bytes.Clone(wire); len(rest) > 0 && got.end == refOpen && failure == nil; {
			piece := rest[:1+rnd.IntN(min(len(rest), 1<<rnd.IntN(10)))]
			rest = rest[len(piece):]
			for len(piece) > 0 && got.end == refOpen && failure == nil {
				n, ev, err := p.next(piece)
				piece, failure = piece[n:], err
				switch ev.op {
				case opBinary:
					got.payload = append(got.payload, ev.payload...)
				case opPing:
					got.pings = append(got.pings, string(ev.payload))
				case opPong:
					got.pongs = append(got.pongs, string(ev.payload))
				case opClose:
					got.end = refClosed
					got.code, got.reason, failure = parseClose(ev.payload)
				}
			}
		}
		var violation *ProtocolError
		if errors.As(failure, &violation) {
			got.end, got.code = refFailed, violation.Code
		}
		if got.end != want.end || got.code != want.code || got.reason != want.reason || !bytes.Equal(got.payload, want.payload) ||
			!slices.Equal(got.pings, want.pings) || !slices.Equal(got.pongs, want.pongs) {
			t.Fatalf("the reference: %+v\nthe parser: %+v (%v)", want, got, failure)
		}
	})
}
