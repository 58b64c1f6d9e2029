package frame

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// anyStream is a stream that keeps to the RFC: messages in fragments of all
// sizes, most of them small, control frames between them, and a close frame
// with a code that may be sent.
func anyStream(rnd *rand.Rand, frames int) []refFrame {
	var out []refFrame
	open := false
	for range rnd.IntN(frames + 1) {
		payload := make([]byte, rnd.IntN(1<<rnd.IntN(17)))
		for i := range payload {
			payload[i] = byte(i>>8) ^ byte(i) ^ byte(len(payload))
		}
		f := refFrame{fin: true, payload: payload}
		switch rnd.IntN(8) {
		case 0:
			f.op, f.payload = 9, payload[:min(len(payload), 125)]
		case 1:
			f.op, f.payload = 10, payload[:min(len(payload), 125)]
		default:
			if f.op = 2; open {
				f.op = 0
			}
			f.fin = rnd.IntN(3) == 0
			open = !f.fin
		}
		out = append(out, f)
	}
	if rnd.IntN(4) == 0 { // a message may stay unfinished
		return append(out, refFrame{fin: true, op: 8})
	}
	codes := []int{1000, 1001, 1003, 1008, 1011, 1014, 3000, 4999}
	return append(out, bye(codes[rnd.IntN(len(codes))], string(bytes.Repeat([]byte("ü"), rnd.IntN(62)))))
}

// anySizes cuts what is written: now into octets, now into much at once.
func anySizes(rnd *rand.Rand) func() int {
	most := 1 << rnd.IntN(18)
	return func() int {
		if rnd.IntN(100) == 0 {
			most = 1 << rnd.IntN(18)
		}
		return 1 + rnd.IntN(most)
	}
}

// converse says wire and hears everything, to the end of the connection. With
// answer it sends a close frame of its own after the other end's, and with
// leave it hangs up after wire.
func (p *refPeer) converse(wire []byte, answer, leave bool) error {
	defer p.conn.Close()
	size := anySizes(rand.New(rand.NewPCG(p.rnd.Uint64(), 2)))
	reply := p.encode(bye(1000, ""))
	told := make(chan struct{})
	said := async(func() error {
		if err := p.say(wire, size); err != nil {
			return err
		}
		if leave {
			p.hangUp()
		} else if <-told; answer {
			return p.say(reply, size)
		}
		return nil
	})
	err := p.hear(func() bool { return p.closed })
	close(told)
	if err == nil {
		err = p.hear(nil)
	} else if err == io.EOF { // without a close frame, which is the caller's to judge
		err = nil
	}
	_ = p.conn.Close() // a writer whose other end is gone
	if sayErr := <-said; sayErr != nil && !isEnd(sayErr) {
		err = errors.Join(err, sayErr)
	}
	return err
}

// TestRelayAnyStreams has two reference peers say whatever the RFC allows, both
// at once, through a relay.
func TestRelayAnyStreams(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var ends [2]*refPeer
		var peers [2]Peer
		var plans [2]refDecoded
		var done [2]<-chan error
		var wires [2][]byte
		for i := range ends {
			raw, nc := tcpPair(t)
			if rnd.IntN(2) == 0 {
				smallBuffers(raw, nc)
			}
			ends[i] = newRefPeer(raw, true, seed)
			wires[i] = ends[i].encode(anyStream(rnd, 150)...)
			plans[i] = refDecode(wires[i], true, DefaultMaxFrame)
			// Some of it comes with the handshake.
			early := wires[i][:rnd.IntN(min(len(wires[i]), 5000))]
			peers[i] = Peer{Conn: nc, Early: early}
			wires[i] = wires[i][len(early):]
		}
		stats := make(chan Stats, 1)
		go func() { stats <- Relay(context.Background(), peers[0], peers[1], quiet) }()
		for i, p := range ends {
			done[i] = async(func() error { return p.converse(wires[i], false, false) })
		}
		for i, p := range ends {
			await(t, fmt.Sprint("seed ", seed, ": end ", i), done[i])
			plan, own := plans[1-i], plans[i]
			sameBytes(t, fmt.Sprint("seed ", seed, ": data to ", i), p.data, plan.payload)
			if !p.closed || p.code != plan.code || p.reason != plan.reason {
				t.Errorf("seed %d: end %d got close code %d %q, want %d %q", seed, i, p.code, p.reason, plan.code, plan.reason)
			}
			if !isSubsequence(p.pongs, own.pings) {
				t.Errorf("seed %d: end %d got pongs %q for pings %q", seed, i, p.pongs, own.pings)
			}
		}
		if got := <-stats; got.AToB != int64(len(plans[0].payload)) || got.BToA != int64(len(plans[1].payload)) || got.End != "close frame" {
			t.Errorf("seed %d: %+v", seed, got)
		}
	}
}

// TestConnAnyStreams has a Conn read whatever the RFC allows with buffers of
// all sizes, and write as it likes.
func TestConnAnyStreams(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		raw, nc := tcpPair(t)
		if rnd.IntN(2) == 0 {
			smallBuffers(raw, nc)
		}
		open, server := Client, rnd.IntN(2) == 0
		if server {
			open = Server
		}
		conn := open(nc, nil, quiet)
		p := newRefPeer(raw, server, seed)
		wire := p.encode(anyStream(rnd, 150)...)
		plan := refDecode(wire, server, DefaultMaxFrame)
		said := async(func() error { return p.converse(wire, false, false) })

		answer := randomBytes(t, rnd.IntN(1<<rnd.IntN(21)))
		writes, reads := anySizes(rand.New(rand.NewPCG(seed, 5))), anySizes(rand.New(rand.NewPCG(seed, 6)))
		wrote := async(func() error {
			for rest := answer; len(rest) > 0; {
				n := min(writes(), len(rest))
				if _, err := conn.Write(rest[:n]); err != nil {
					return err
				}
				rest = rest[n:]
			}
			return nil
		})
		var got []byte
		var err error
		for buf := make([]byte, 1<<18); err == nil; {
			var n int
			n, err = conn.Read(buf[:reads()])
			got = append(got, buf[:n]...)
		}
		await(t, fmt.Sprint("seed ", seed, ": Write"), wrote)
		_ = conn.Close()
		await(t, fmt.Sprint("seed ", seed, ": peer"), said)
		sameBytes(t, fmt.Sprint("seed ", seed, ": read"), got, plan.payload)
		sameBytes(t, fmt.Sprint("seed ", seed, ": written"), p.data, answer)
		var closed *CloseError
		switch plan.code {
		case CloseNormal, CloseGoingAway, CloseNoStatus:
			if err != io.EOF {
				t.Errorf("seed %d: Read ended with %v, want io.EOF", seed, err)
			}
		default:
			if !errors.As(err, &closed) || closed.Code != plan.code || closed.Reason != plan.reason {
				t.Errorf("seed %d: Read ended with %v, want code %d %q", seed, err, plan.code, plan.reason)
			}
		}
		if !p.closed || p.code != CloseNormal || !isSubsequence(p.pongs, plan.pings) {
			t.Errorf("seed %d: the peer got %d, pongs %q for pings %q", seed, p.code, p.pongs, plan.pings)
		}
	}
}
