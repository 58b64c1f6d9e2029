package frame

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// pairs are the kinds of connections that a trial is tested with: with a
// descriptor and, as TLS, without.
var pairs = map[string]func(t *testing.T) (net.Conn, net.Conn){
	"tcp": func(t *testing.T) (net.Conn, net.Conn) { a, b := tcpPair(t); return a, b },
	"pipe": func(t *testing.T) (net.Conn, net.Conn) {
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		return a, b
	},
}

// trialled is a session on trial: its client's end, its spare's and, once it
// was asked for, the one instead.
type trialled struct {
	client, spare *Conn
	instead       chan *Conn
	handler       *notes
	stats         chan Stats
}

func try(t *testing.T, pair func(*testing.T) (net.Conn, net.Conn), wait time.Duration) *trialled {
	t.Helper()
	opts := rarely(t)
	opts.Ping = -1
	client, relayA := pair(t)
	spare, relayB := pair(t)
	port, handler := NewPort(Peer{Conn: relayB}, opts), newNotes()
	r := &trialled{
		client: Client(client, nil, quiet), spare: Client(spare, nil, quiet),
		instead: make(chan *Conn, 1), handler: handler, stats: make(chan Stats, 1),
	}
	port.Start(handler)
	joined := make(chan *Session, 1)
	trial := Trial{
		Port: port, Offer: []byte("offer:"), Wait: wait,
		Answer: func(b []byte) (int, error) {
			if bytes.HasPrefix(b, []byte("no")) {
				return 0, errors.New("no room")
			}
			return 1 + bytes.IndexByte(b, ':'), nil
		},
		Instead: func(ctx context.Context) (Peer, error) {
			if ctx.Err() != nil {
				return Peer{}, ctx.Err()
			}
			end, relay := pair(t)
			r.instead <- Client(end, nil, quiet)
			return Peer{Conn: relay}, nil
		},
	}
	// A pipe takes the offer only when that is read.
	go func() { joined <- JoinTrial(Peer{Conn: relayA}, trial, opts, func(s Stats) { r.stats <- s }) }()
	t.Cleanup(func() {
		_, _ = r.client.Close(), r.spare.Close()
		(<-joined).Shutdown()
		<-handler.closed
	})
	return r
}

func wantBytes(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

func TestTrialAccepted(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			r := try(t, pair, patience)
			sent := async(func() error { _, err := r.client.Write([]byte("question")); return err })
			wantBytes(t, r.spare, "offer:question")
			await(t, "the client", sent)
			sent = async(func() error { _, err := r.spare.Write([]byte("yes:answer")); return err })
			wantBytes(t, r.client, "answer")
			await(t, "the spare", sent)
			done := async(func() error { _ = r.client.CloseWrite(); return nil })
			if _, err := io.Copy(io.Discard, r.spare); err != nil {
				t.Error(err)
			}
			await(t, "the close frame", done)
			_, _ = r.spare.Close(), r.client.Close()
			if got := <-r.stats; got != (Stats{AToB: 8, BToA: 6, End: "close frame"}) {
				t.Errorf("got %+v", got)
			}
			<-r.handler.closed
		})
	}
}

func TestTrialDead(t *testing.T) {
	for name, pair := range pairs {
		for _, size := range []int{0, 8, maxHeld, maxHeld + 1, 10 * maxHeld} {
			t.Run(name, func(t *testing.T) {
				r := try(t, pair, 50*time.Millisecond)
				go func() { _, _ = io.Copy(io.Discard, r.spare) }() // takes it, and says nothing
				data := randomBytes(t, size)
				sent := async(func() error { _, err := r.client.Write(data); return err })
				conn := <-r.instead
				defer conn.Close()
				got := make([]byte, size)
				if _, err := io.ReadFull(conn, got); err != nil {
					t.Fatal(err)
				}
				sameBytes(t, "what the client said", got, data)
				await(t, "the client", sent)
				sent = async(func() error { _, err := conn.Write([]byte("answer")); return err })
				wantBytes(t, r.client, "answer")
				await(t, "the answer", sent)
				<-r.handler.closed
			})
		}
	}
}

func TestTrialRefused(t *testing.T) {
	for name, pair := range pairs {
		t.Run(name, func(t *testing.T) {
			r := try(t, pair, patience)
			wantBytes(t, r.spare, "offer:")
			sent := async(func() error { _, err := r.spare.Write([]byte("no")); return err })
			_, err := r.client.Read(make([]byte, 1))
			var closed *CloseError
			if !errors.As(err, &closed) || closed.Code != CloseTryAgainLater || closed.Reason != "no room" {
				t.Errorf("the client's connection ended with %v", err)
			}
			await(t, "the spare", sent)
			_ = r.client.Close()
			if got := <-r.stats; got.End != "no room" {
				t.Errorf("got %+v", got)
			}
			<-r.handler.closed
		})
	}
}

// TestTrialLongAnswer must not be remembered without end.
func TestTrialLongAnswer(t *testing.T) {
	r := try(t, pairs["tcp"], patience)
	wantBytes(t, r.spare, "offer:")               // what is said before is not for the trial
	_, _ = r.spare.Write(make([]byte, 2*maxHeld)) // may be cut off
	_, err := r.client.Read(make([]byte, 1))
	var closed *CloseError
	if !errors.As(err, &closed) || closed.Code != CloseTryAgainLater {
		t.Errorf("the client's connection ended with %v", err)
	}
}

// TestTrialOfAnEndedPort goes on without it.
func TestTrialOfAnEndedPort(t *testing.T) {
	opts := rarely(t)
	spare, relayB := tcpPair(t)
	client, relayA := tcpPair(t)
	end, relayC := tcpPair(t)
	port, handler := NewPort(Peer{Conn: relayB}, opts), newNotes()
	port.Start(handler)
	_ = spare.Close()
	<-handler.closed
	stats := make(chan Stats, 1)
	JoinTrial(Peer{Conn: relayA}, Trial{
		Port: port, Offer: []byte("offer"), Wait: patience,
		Instead: func(context.Context) (Peer, error) { return Peer{Conn: relayC}, nil },
	}, opts, func(s Stats) { stats <- s })
	mustWrite(t, client, fromClient(opBinary, []byte("question")))
	if got := wantFrame(t, end, opBinary); string(got) != "question" {
		t.Errorf("got %q", got)
	}
	_, _ = client.Close(), end.Close()
	if got := <-stats; got.AToB != 8 {
		t.Errorf("got %+v", got)
	}
}
