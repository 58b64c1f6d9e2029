package mux

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/container/guest/wire"
)

// TestCloseRead: who reads no more can still write, and holds nothing.
func TestCloseRead(t *testing.T) {
	p := newPair(t)
	front, guest := p.connect(t)
	if _, err := guest.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	buf := make([]byte, 6)
	if _, err := io.ReadFull(front, buf); err != nil {
		t.Fatal(err)
	}
	reading.Go(func() {
		if n, err := front.Read(make([]byte, 1)); n != 0 || err == nil || err == io.EOF {
			t.Errorf("read %d, %v", n, err)
		}
	})
	if err := front.CloseRead(); err != nil {
		t.Fatal(err)
	}
	reading.Wait()
	// More than there is room for.
	if _, err := guest.Write(make([]byte, 3*Window)); err != nil {
		t.Fatal(err)
	}
	if _, err := front.Write([]byte("heard")); err != nil {
		t.Fatal(err)
	}
	_ = front.CloseWrite()
	if got, err := io.ReadAll(guest); err != nil || string(got) != "heard" {
		t.Errorf("%q, %v", got, err)
	}
	if n := p.front.Len(); n != 1 {
		t.Errorf("%d connections", n)
	}
	_ = front.Close()
	<-front.Done()
	<-guest.Done()
	if n := p.front.Len(); n != 0 {
		t.Errorf("%d connections", n)
	}
	p.front.mu.Lock()
	defer p.front.mu.Unlock()
	if p.front.queued != 0 {
		t.Errorf("%d bytes are held", p.front.queued)
	}
}

// TestCloseBeforeAnswer: who gives up a connection does not wait for a peer that
// answers nothing.
func TestCloseBeforeAnswer(t *testing.T) {
	out, w := io.Pipe()
	r, in := io.Pipe()
	var peer sync.WaitGroup
	peer.Go(func() {
		read := wire.NewReader(out)
		if _, err := read.Read(); err != nil {
			t.Error(err)
		}
		yes := wire.Packet{Type: wire.TypeSuccess, Payload: wire.Granted{Extensions: wire.Extensions1}.Payload()}
		if _, err := in.Write(yes.Append(nil)); err != nil {
			t.Error(err)
		}
		for {
			if _, err := read.Read(); err != nil {
				return
			}
		}
	})
	s, _, err := Dial(r, w, wire.Setup{ConnectionType: wire.ConnectionPortDial}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	peer.Go(func() { _ = s.Run() })
	st, err := s.Open(wire.New{})
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error, 1)
	go func() { opened <- st.Opened() }()
	_ = st.Close()
	select {
	case err := <-opened:
		if err != ErrEnded {
			t.Errorf("error %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it waits for the answer")
	}
	s.Close()
	_ = in.Close()
	_ = w.Close()
	peer.Wait()
}

// TestSmallData: many small packets wait in no more memory than one large one.
func TestSmallData(t *testing.T) {
	p := newPair(t)
	front, guest := p.connect(t)
	const many = 100_000
	for range many {
		if _, err := front.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := front.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	guest.session.mu.Lock()
	for !guest.eof {
		guest.changed.Wait()
	}
	held := 0
	for _, part := range guest.queue {
		held += cap(part)
	}
	if len(guest.queue) > many/chunk+1 || held > 2*many+chunk {
		t.Errorf("%d bytes wait in %d parts of %d bytes", many, len(guest.queue), held)
	}
	guest.session.mu.Unlock()
	if got, err := io.ReadAll(guest); err != nil || string(got) != strings.Repeat("x", many) {
		t.Errorf("%d bytes came, %v", len(got), err)
	}
}
