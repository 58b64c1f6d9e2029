package mux

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"example.com/converge/container/guest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is two ends of a session.
type pair struct {
	front, guest *Session
	accepted     chan *Stream // at the guest
	running      sync.WaitGroup
	stop         func()
}

// newPair joins two ends that know the extensions.
func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{accepted: make(chan *Stream, 100)}
	toGuest, fromFront := io.Pipe()
	toFront, fromGuest := io.Pipe()
	p.stop = func() {
		_ = fromFront.Close()
		_ = fromGuest.Close()
	}
	t.Cleanup(func() {
		p.stop()
		_ = toGuest.Close()
		_ = toFront.Close()
		p.running.Wait()
	})
	var answering sync.WaitGroup
	answering.Go(func() {
		var err error
		cfg := Config{Incoming: func(st *Stream) { p.accepted <- st }}
		p.guest, err = Answer(toGuest, fromGuest, cfg, func(wire.Setup) (uint64, error) { return 7, nil })
		if err != nil {
			t.Error(err)
		}
	})
	var granted wire.Granted
	var err error
	p.front, granted, err = Dial(toFront, fromFront, wire.Setup{ConnectionType: wire.ConnectionPortDial}, Config{})
	answering.Wait()
	if err != nil || granted.BindPort != 7 || granted.Extensions != wire.Extensions1 {
		t.Fatalf("the front end got %+v, %v", granted, err)
	}
	p.running.Go(func() { _ = p.front.Run() })
	p.running.Go(func() { _ = p.guest.Run() })
	return p
}

// connect opens a connection and accepts it.
func (p *pair) connect(t *testing.T) (front, guest *Stream) {
	t.Helper()
	front, err := p.front.Open(wire.New{Protocol: "tcp", ConnectedPort: 80})
	if err != nil {
		t.Fatal(err)
	}
	guest = <-p.accepted
	if guest.What().ConnectedPort != 80 {
		t.Errorf("it was opened with %+v", guest.What())
	}
	if err := guest.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := front.Opened(); err != nil {
		t.Fatal(err)
	}
	return front, guest
}

// TestHalfClose ends one direction long before the other.
func TestHalfClose(t *testing.T) {
	p := newPair(t)
	front, guest := p.connect(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 5*Window/16)
	var writing sync.WaitGroup
	writing.Go(func() {
		if n, err := front.Write(data); n != len(data) || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		_ = front.CloseWrite()
		if _, err := front.Write([]byte("x")); err == nil {
			t.Error("wrote after the end")
		}
	})
	got, err := io.ReadAll(guest)
	writing.Wait()
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	if _, err := guest.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	_ = guest.CloseWrite()
	if got, err := io.ReadAll(front); err != nil || string(got) != "answer" {
		t.Errorf("the answer is %q, %v", got, err)
	}
	_ = front.Close()
	<-front.Done()
	<-guest.Done()
	p.front.mu.Lock()
	p.guest.mu.Lock()
	defer p.front.mu.Unlock()
	defer p.guest.mu.Unlock()
	if len(p.front.streams)+len(p.guest.streams)+len(p.guest.waiting)+p.guest.queued != 0 {
		t.Error("something of the connection is left")
	}
}

// TestWindow: nobody reads one connection, the writer of which waits and takes no
// memory, while others go on.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t)
		stuck, unread := p.connect(t)
		var writing sync.WaitGroup
		written := 0
		writing.Go(func() {
			written, _ = stuck.Write(make([]byte, 10*Window))
		})
		for range 20 {
			front, guest := p.connect(t)
			_, _ = front.Write([]byte("hello"))
			_ = front.CloseWrite()
			if got, err := io.ReadAll(guest); err != nil || string(got) != "hello" {
				t.Errorf("read %q, %v", got, err)
			}
			_ = guest.Close()
			<-front.Done()
		}
		synctest.Wait()
		p.guest.mu.Lock()
		if p.guest.queued != Window {
			t.Errorf("%d bytes wait, want a window of %d", p.guest.queued, Window)
		}
		p.guest.mu.Unlock()
		_ = unread.Close()
		writing.Wait()
		if written != Window {
			t.Errorf("%d bytes were written", written)
		}
		if _, err := unread.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("a read after Close says %v", err)
		}
		p.stop()
		p.running.Wait()
	})
}

func TestRefusals(t *testing.T) {
	p := newPair(t)
	front, err := p.front.Open(wire.New{})
	if err != nil {
		t.Fatal(err)
	}
	if err := (<-p.accepted).Reject("connection\x1brefused"); err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if err := front.Opened(); !errors.As(err, &refused) || refused.Reason != "connection refused" {
		t.Errorf("it was told %v", err)
	}
	if _, err := front.Read(make([]byte, 1)); !errors.As(err, &refused) {
		t.Errorf("reading says %v", err)
	}
	if _, err := front.Write([]byte("x")); !errors.As(err, &refused) {
		t.Errorf("writing says %v", err)
	}
	// The front end takes none at all.
	back, err := p.guest.Open(wire.New{})
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Opened(); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "other side only") {
		t.Errorf("it was told %v", err)
	}
	// A connection that is open when the session ends.
	front, guest := p.connect(t)
	if _, err := front.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Read(make([]byte, 1)); err != nil { // it has arrived
		t.Fatal(err)
	}
	p.stop()
	<-front.Done()
	if got, err := io.ReadAll(guest); err != nil || string(got) != "ast" {
		t.Errorf("the last words are %q, %v", got, err)
	}
	p.running.Wait()
	if _, err := p.front.Open(wire.New{}); !errors.Is(err, ErrEnded) {
		t.Errorf("opening after the end says %v", err)
	}
}

func TestRefusedSetup(t *testing.T) {
	toGuest, fromFront := io.Pipe()
	toFront, fromGuest := io.Pipe()
	var answering sync.WaitGroup
	answering.Go(func() {
		_, err := Answer(toGuest, fromGuest, Config{}, func(wire.Setup) (uint64, error) {
			return 0, errors.New("the address is in use")
		})
		if err == nil {
			t.Error("the guest has a session")
		}
		_ = fromGuest.Close()
	})
	_, _, err := Dial(toFront, fromFront, wire.Setup{}, Config{})
	var refused *RefusedError
	if !errors.As(err, &refused) || refused.Reason != "the address is in use" {
		t.Errorf("the front end was told %v", err)
	}
	answering.Wait()
	_, _, err = Dial(strings.NewReader(""), io.Discard, wire.Setup{}, Config{})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without an answer: %v", err)
	}
}

// original is the other end without extensions, packet by packet.
type original struct {
	t       *testing.T
	r       *wire.Reader
	w       *io.PipeWriter
	guest   *Session
	streams chan *Stream
	running sync.WaitGroup
}

func newOriginal(t *testing.T, cfg Config) *original {
	t.Helper()
	toGuest, w := io.Pipe()
	r, fromGuest := io.Pipe()
	o := &original{t: t, r: wire.NewReader(r), w: w, streams: make(chan *Stream, 2000)}
	cfg.Incoming = func(st *Stream) { o.streams <- st }
	ready := make(chan struct{})
	o.running.Go(func() {
		defer func() { _ = fromGuest.Close() }()
		guest, err := Answer(toGuest, fromGuest, cfg, func(wire.Setup) (uint64, error) { return 0, nil })
		o.guest = guest
		close(ready)
		if err != nil {
			t.Error(err)
			return
		}
		_ = guest.Run()
	})
	t.Cleanup(o.end)
	o.send(wire.Packet{Type: wire.TypeSetup, Payload: wire.Setup{ConnectionType: wire.ConnectionPortDial}.Payload()})
	o.want(wire.Packet{Type: wire.TypeSuccess})
	<-ready
	return o
}

func (o *original) end() {
	_ = o.w.Close()
	o.running.Wait()
}

func (o *original) send(p wire.Packet) {
	o.t.Helper()
	if _, err := o.w.Write(p.Append(nil)); err != nil {
		o.t.Fatal(err)
	}
}

func (o *original) want(want wire.Packet) {
	o.t.Helper()
	got, err := o.r.Read()
	if err != nil || got.Type != want.Type || got.ConnectionID != want.ConnectionID || !bytes.Equal(got.Payload, want.Payload) || (got.Payload == nil) != (want.Payload == nil) {
		o.t.Fatalf("the guest sent %+v, %v, want %+v", got, err, want)
	}
}

// open opens a connection of that id, which is accepted.
func (o *original) open(id uint64) *Stream {
	o.t.Helper()
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: id, Payload: wire.New{}.Payload()})
	st := <-o.streams
	if err := st.Accept(); err != nil {
		o.t.Fatal(err)
	}
	o.want(wire.Packet{Type: wire.TypeSuccess, ConnectionID: id})
	return st
}

// TestOddPackets: nothing that a peer says makes the guest hang, or answer for a
// connection that it does not mean.
func TestOddPackets(t *testing.T) {
	o := newOriginal(t, Config{})
	o.send(wire.Packet{Type: wire.TypeClose, ConnectionID: 99})
	o.want(wire.Packet{Type: wire.TypeError, ConnectionID: 99})
	o.send(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 99})
	o.send(wire.Packet{Type: wire.TypeError, ConnectionID: 99})
	o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 99, Payload: []byte("x")})
	o.send(wire.Packet{Type: wire.TypeEOF, ConnectionID: 99})
	o.send(wire.Packet{Type: 77})
	o.send(wire.Packet{Type: wire.TypeSetup})
	st := o.open(5)                                                                         // not the last id and one, which the original takes too
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: 5, Payload: wire.New{}.Payload()}) // no answer
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: 4, Payload: wire.New{}.Payload()})
	o.want(wire.Packet{Type: wire.TypeError, ConnectionID: 4})
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: 6, Payload: []byte("x")})
	o.want(wire.Packet{Type: wire.TypeError, ConnectionID: 6})
	// Without extensions they mean nothing.
	o.send(wire.Packet{Type: wire.TypeEOF, ConnectionID: 5})
	o.send(wire.Packet{Type: wire.TypeWindow, ConnectionID: 5, Payload: wire.WindowPayload(1)})
	o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 5}) // empty
	o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 5, Payload: []byte("still here")})
	buf := make([]byte, 20)
	if n, err := st.Read(buf); err != nil || string(buf[:n]) != "still here" {
		t.Errorf("read %q, %v", buf[:n], err)
	}
	// An end of data is all that the original can be told, and its answer may cross
	// with data.
	if err := st.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	o.want(wire.Packet{Type: wire.TypeClose, ConnectionID: 5})
	o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 5, Payload: []byte("on the way")})
	o.send(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 5})
	if got, err := io.ReadAll(st); err != nil || string(got) != "on the way" {
		t.Errorf("read %q, %v", got, err)
	}
	// Both close at once.
	st = o.open(7)
	_ = st.Close()
	o.want(wire.Packet{Type: wire.TypeClose, ConnectionID: 7})
	o.send(wire.Packet{Type: wire.TypeClose, ConnectionID: 7})
	o.want(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 7})
	o.send(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 7})
	<-st.Done()
	// It closes before the guest has answered.
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: 8, Payload: wire.New{}.Payload()})
	st = <-o.streams
	o.send(wire.Packet{Type: wire.TypeClose, ConnectionID: 8})
	o.want(wire.Packet{Type: wire.TypeSuccess, ConnectionID: 8})
	if err := st.Accept(); !errors.Is(err, ErrEnded) {
		t.Errorf("accepting it says %v", err)
	}
	o.guest.mu.Lock()
	defer o.guest.mu.Unlock()
	if len(o.guest.streams) != 0 {
		t.Errorf("%d connections are left", len(o.guest.streams))
	}
}

// TestManyConnections: there is a limit.
func TestManyConnections(t *testing.T) {
	o := newOriginal(t, Config{})
	for id := uint64(1); id <= maxStreams; id++ {
		o.open(id)
	}
	o.send(wire.Packet{Type: wire.TypeNew, ConnectionID: maxStreams + 1, Payload: wire.New{}.Payload()})
	o.want(wire.Packet{Type: wire.TypeError, ConnectionID: maxStreams + 1})
}

// TestWindowViolation: who sends more than there is room for loses the connection.
func TestWindowViolation(t *testing.T) {
	toGuest, w := io.Pipe()
	r, fromGuest := io.Pipe()
	streams := make(chan *Stream, 1)
	var running sync.WaitGroup
	running.Go(func() {
		guest, err := Answer(toGuest, fromGuest, Config{Incoming: func(st *Stream) { streams <- st }}, func(wire.Setup) (uint64, error) { return 0, nil })
		if err != nil {
			t.Error(err)
			return
		}
		_ = guest.Run()
	})
	o := &original{t: t, r: wire.NewReader(r), w: w, streams: streams}
	o.send(wire.Packet{Payload: wire.Setup{Extensions: wire.Extensions1}.Payload()})
	o.want(wire.Packet{Type: wire.TypeSuccess, Payload: wire.Granted{Extensions: wire.Extensions1}.Payload()})
	st := o.open(1)
	for range Window / chunk {
		o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 1, Payload: make([]byte, chunk)})
	}
	o.send(wire.Packet{Type: wire.TypeData, ConnectionID: 1, Payload: make([]byte, 1)})
	o.want(wire.Packet{Type: wire.TypeClose, ConnectionID: 1})
	if _, err := st.Read(make([]byte, 1)); err == nil {
		t.Error("it can be read")
	}
	_ = w.Close()
	running.Wait()
}

// TestUnreadAnswers: a peer that only writes is not answered without limit.
func TestUnreadAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		toGuest, w := io.Pipe()
		r, fromGuest := io.Pipe()
		guest := newSession(toGuest, fromGuest, Config{})
		var running sync.WaitGroup
		running.Go(func() {
			if err := guest.Run(); err == nil {
				t.Error("it ended in good order")
			}
		})
		running.Go(func() {
			for closing := (wire.Packet{Type: wire.TypeClose, ConnectionID: 9}).Append(nil); ; {
				if _, err := w.Write(closing); err != nil {
					return
				}
			}
		})
		synctest.Wait() // until everybody waits for somebody
		guest.out.mu.Lock()
		if n := len(guest.out.buf); n < controlLimit || n > controlLimit+100 {
			t.Errorf("%d bytes wait to be written, want about %d", n, controlLimit)
		}
		guest.out.mu.Unlock()
		_ = r.Close()
		running.Go(func() { _ = toGuest.Close() })
		running.Wait()
	})
}
