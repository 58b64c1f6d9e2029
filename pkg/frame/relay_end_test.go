package frame

import (
	"errors"
	"io"
	"testing"
	"time"
)

func TestRelayCloseFrame(t *testing.T) {
	r := relayTCP(t, quiet)
	mustWrite(t, r.a, append(fromClient(opBinary, []byte("last")), fromClient(opClose, closePayload(4001, "I am done"))...))
	b := Client(r.b, nil, quiet)
	got, err := io.ReadAll(b)
	var closed *CloseError
	if string(got) != "last" || !errors.As(err, &closed) || closed.Code != 4001 || closed.Reason != "I am done" {
		t.Fatalf("b got %q, %v", got, err)
	}
	// The other direction goes on.
	data := randomBytes(t, 3<<20)
	sent := async(func() error {
		if _, err := b.Write(data); err != nil {
			return err
		}
		return b.send.close(4002, "me too")
	})
	var answer []byte
	for {
		h, payload, err := readFrame(r.a)
		if err != nil {
			t.Fatal(err)
		}
		if h.op == opClose {
			if code, reason, err := parseClose(payload); code != 4002 || reason != "me too" || err != nil {
				t.Errorf("a got the close frame %d %q %v", code, reason, err)
			}
			break
		}
		answer = append(answer, payload...)
	}
	await(t, "b", sent)
	sameBytes(t, "answer", answer, data)
	_, _ = r.a.Close(), b.Close()
	r.end(t, Stats{AToB: 4, BToA: int64(len(data)), End: "close frame"})
}

// TestRelayVanished loops over an end that goes without a close frame. Every
// other time it leaves unread what the other sent, so that its system resets
// the connection: what had left it by then must be delivered nevertheless.
func TestRelayVanished(t *testing.T) {
	for i := range 40 {
		r := relayTCP(t, quiet)
		size := 200_000
		mustWrite(t, r.b, fromClient(opBinary, randomBytes(t, 30_000)))
		if i%2 == 0 {
			for left := 30_000; left > 0; {
				left -= len(wantFrame(t, r.a, opBinary))
			}
		} else {
			size = 20_000 // less than a window, so that all has left
			if _, err := io.ReadFull(r.a, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		data := randomBytes(t, size)
		mustWrite(t, r.a, fromClient(opBinary, data))
		_ = r.a.Close()
		var got []byte
		for {
			h, payload, err := readFrame(r.b)
			if err != nil {
				t.Fatal(err)
			}
			if h.op == opClose {
				if code, _, err := parseClose(payload); code != CloseGoingAway || err != nil {
					t.Errorf("b got close code %d, %v", code, err)
				}
				break
			}
			got = append(got, payload...)
		}
		sameBytes(t, "last bytes", got, data)
		_ = r.b.Close()
		stats := <-r.stats
		if stats.AToB != int64(len(data)) || (stats.End != "connection ended" && stats.End != "connection broken") {
			t.Errorf("got %+v", stats)
		}
	}
}

func TestRelayViolations(t *testing.T) {
	for _, test := range violations {
		if test.client {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			r := relayTCP(t, quiet)
			mustWrite(t, r.a, append(fromClient(opBinary, []byte("good")), test.input...))
			reason := wantClose(t, r.a, test.code)
			if got := wantFrame(t, r.b, opBinary); string(got) != "good" {
				t.Errorf("b got %q", got)
			}
			wantClose(t, r.b, CloseInternalError)
			_, _ = r.a.Close(), r.b.Close()
			r.end(t, Stats{AToB: 4, End: reason})
		})
	}
}

func TestRelayShutdown(t *testing.T) {
	r := relayTCP(t, quiet)
	mustWrite(t, r.a, fromClient(opBinary, []byte("x")))
	wantFrame(t, r.b, opBinary)
	r.stop()
	wantClose(t, r.a, CloseServiceRestart)
	wantClose(t, r.b, CloseServiceRestart)
	_, _ = r.a.Close(), r.b.Close()
	r.end(t, Stats{AToB: 1, End: "server shutdown"})
}

// TestRelayShutdownStuck shuts down while an end takes nothing.
func TestRelayShutdownStuck(t *testing.T) {
	r := relayTCP(t, quiet)
	sent := async(func() error {
		_, err := io.Copy(r.a, endless{})
		return err
	})
	wantFrame(t, r.b, opBinary) // it flows, and then is stuck
	start := time.Now()
	r.stop()
	<-r.stats
	if took := time.Since(start); took > patience {
		t.Errorf("took %v", took)
	}
	if err := <-sent; err == nil {
		t.Error("the writer ended without an error")
	}
}

// endless is a stream of frames.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	return copy(p, fromClient(opBinary, make([]byte, 1000))), nil
}

// TestRelayFinishDelivers has most of what was written still in the closing
// socket, and something unread there.
func TestRelayFinishDelivers(t *testing.T) {
	raw, nc := tcpPair(t)
	_, _ = nc.SetWriteBuffer(1<<20), raw.SetReadBuffer(32<<10)
	var s side
	s.init(Peer{Conn: nc}, quiet)
	data := randomBytes(t, 200_000)
	if _, err := s.send.data(append(make([]byte, maxHeader), data...), maxHeader); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, raw, fromClient(opBinary, randomBytes(t, 1000)))
	finished := async(func() error { s.finish(); return nil })
	sameBytes(t, "data", wantFrame(t, raw, opBinary), data)
	wantClose(t, raw, CloseNormal)
	if n, err := raw.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the close frame: %d, %v", n, err)
	}
	_ = raw.Close()
	await(t, "finish", finished)
}
