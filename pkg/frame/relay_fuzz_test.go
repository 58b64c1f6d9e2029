package frame

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
)

// scripted makes frames, good and bad, of pairs of octets, so that the fuzzer
// gets behind masks and lengths: opcode, FIN, size and reserved bits from the
// first, the length from the second.
func scripted(script []byte) []refFrame {
	var out []refFrame
	open := false
	for len(script) >= 2 && len(out) < 64 {
		k, n := script[0], int(script[1])
		script = script[2:]
		f := refFrame{fin: k&0x10 == 0, op: k & 15}
		switch k >> 5 {
		case 0, 1, 2: // whatever stands there
		case 3, 4: // data where it belongs
			f.op = 2
			if open {
				f.op = 0
			}
		case 5:
			n *= 257
		case 6: // a control frame as it should be
			f.op, f.fin, n = 8|f.op%3, true, n%126
		case 7:
			f.rsv = 1 << (n % 3)
		}
		f.payload = bytes.Repeat([]byte{k}, n)
		if f.op == 8 && n >= 2 {
			codes := []int{999, 1000, 1001, 1005, 1011, 2000, 3000, 5000}
			f.payload = append(bye(codes[n%8], "").payload, f.payload[2:]...)
			if k&0x20 == 0 { // else the reason is no UTF-8
				clear(f.payload[2:])
			}
		}
		if f.op < 8 {
			open = !f.fin
		}
		out = append(out, f)
	}
	return out
}

// FuzzRelay runs both pumps of a relay between two reference peers: one says
// what the fuzzer wants, frames and then any octets, the other what the RFC
// allows. What either hears must be what the reference makes of what the other
// said, however both are cut into reads.
func FuzzRelay(f *testing.F) {
	f.Add([]byte("\x62\x05\xc9\x03\x70\x10\xc8\x00"), []byte(nil), uint64(1))
	f.Fuzz(func(t *testing.T, script, tail []byte, seed uint64) {
		synctest.Test(t, func(t *testing.T) { fuzzRelay(t, script, tail, seed) })
	})
}

func fuzzRelay(t *testing.T, script, tail []byte, seed uint64) {
	const limit = 40_000
	rnd := rand.New(rand.NewPCG(seed, 7))
	rawA, ncA := net.Pipe()
	rawB, ncB := net.Pipe()
	a, b := newRefPeer(rawA, true, seed), newRefPeer(rawB, true, seed+1)
	wireA := append(a.encode(scripted(script)...), tail...)
	planA := refDecode(wireA, true, limit)
	framesB := anyStream(rnd, 20)
	for i := range framesB {
		framesB[i].payload = framesB[i].payload[:min(len(framesB[i].payload), limit)]
	}
	if rnd.IntN(2) == 0 { // b answers a's end
		framesB = framesB[:len(framesB)-1]
	}
	wireB := b.encode(framesB...)
	planB := refDecode(wireB, true, limit)
	early := wireA[:rnd.IntN(len(wireA)+1)]

	stats := make(chan Stats, 1)
	go func() {
		stats <- Relay(context.Background(), Peer{Conn: ncA, Early: bytes.Clone(early)}, Peer{Conn: ncB}, Options{Ping: -1, MaxFrame: limit})
	}()
	doneA := async(func() error { return a.converse(wireA[len(early):], false, planA.end == refOpen) })
	doneB := async(func() error { return b.converse(wireB, planB.end == refOpen, false) })
	if err := <-doneA; err != nil {
		t.Errorf("a: %v", err)
	}
	if err := <-doneB; err != nil {
		t.Errorf("b: %v", err)
	}
	got := <-stats

	if !bytes.Equal(b.data, planA.payload) || got.AToB != int64(len(planA.payload)) {
		t.Errorf("b got %d octets of %d, or they differ: %+v", len(b.data), len(planA.payload), got)
	}
	if err := toldB(b, planA); err != nil {
		t.Error(err)
	}
	// a's end may cut b off, unless it is a close frame.
	if !bytes.HasPrefix(planB.payload, a.data) || planA.end == refClosed && len(a.data) != len(planB.payload) {
		t.Errorf("a got %d octets of %d, or they differ: %+v", len(a.data), len(planB.payload), got)
	}
	codes := []int{CloseNormal} // b's answer
	if planB.end == refClosed {
		codes = []int{planB.code}
	}
	switch planA.end {
	case refFailed:
		codes = append(codes, planA.code)
		if planB.end == refOpen {
			codes = codes[1:]
		}
	case refOpen: // it left: on a pipe it hears nothing then
		codes = nil
	}
	if codes != nil && (!a.closed || !slices.Contains(codes, a.code)) {
		t.Errorf("a got close code %d, want one of %d", a.code, codes)
	}
	for p, own := range map[*refPeer]refDecoded{a: planA, b: planB} {
		if !isSubsequence(p.pongs, own.pings) {
			t.Errorf("pongs %q for pings %q", p.pongs, own.pings)
		}
	}
}

// toldB checks the close frame that follows a's end.
func toldB(b *refPeer, a refDecoded) error {
	code, reason := CloseGoingAway, b.reason // a left
	switch a.end {
	case refClosed:
		code, reason = a.code, a.reason
	case refFailed:
		code = CloseInternalError
	}
	if !b.closed || b.code != code || b.reason != reason {
		return fmt.Errorf("b got close code %d %q, want %d %q", b.code, b.reason, code, reason)
	}
	return nil
}
