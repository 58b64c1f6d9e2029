package resume

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

// stalled opens a stream whose client does not come back.
func (a *agent) stalled(t *testing.T, keep bool) *Stream {
	t.Helper()
	first := true
	client, server := a.open(Config{Dial: func(ctx context.Context) (net.Conn, error) {
		if !first {
			return nil, errNoAgent
		}
		first = false
		return a.dial(ctx)
	}})
	synctest.Wait()
	if keep {
		server.Keep()
	}
	cutLink(client)
	synctest.Wait()
	return server
}

func isOver(s *Stream) bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// TestTooManyDetached: the longest detached goes, those not worth keeping
// first.
func TestTooManyDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{MaxDetached: 3})
		kept := a.stalled(t, true)
		old := a.stalled(t, false)
		young := a.stalled(t, false)
		next := a.stalled(t, true)
		if isOver(kept) || !isOver(old) || isOver(young) || isOver(next) {
			t.Errorf("the wrong one went: %v %v %v %v", isOver(kept), isOver(old), isOver(young), isOver(next))
		}
		_, err := old.Read(make([]byte, 1))
		wantError(t, "read of a stream that was given up", err, ErrEvicted)
		stranger := a.stalled(t, false) // and then one that is not worth more than young
		a.stalled(t, true)
		if !isOver(young) || !isOver(stranger) || isOver(kept) {
			t.Errorf("the wrong one went: %v %v %v", isOver(young), isOver(stranger), isOver(kept))
		}
		if stats := a.Stats(); stats.Detached != 3 || stats.Sessions != 3 {
			t.Errorf("the Hub has %+v", stats)
		}
	})
}

// TestTooMuchDetached: their memory is bounded as well.
func TestTooMuchDetached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{MaxMemory: 5 * MinBuffer})
		var all []*Stream
		for range 9 {
			s := a.stalled(t, false)
			all = append(all, s)
		}
		for i, s := range all {
			if isOver(s) != (i < 4) {
				t.Errorf("stream %d: over %v", i, isOver(s))
			}
		}
		if stats := a.Stats(); stats.Memory != 5*MinBuffer {
			t.Errorf("the Hub has %+v", stats)
		}
		// What is written meanwhile is within what was counted.
		live := all[8]
		done := make(chan int)
		go func() {
			n, _ := live.Write(make([]byte, 10*MinBuffer))
			done <- n
		}()
		synctest.Wait()
		live.mu.Lock()
		held := live.core.out.memory() + live.core.in.memory()
		live.mu.Unlock()
		if held > MinBuffer {
			t.Errorf("a detached stream holds %d bytes", held)
		}
		live.fail(io.ErrUnexpectedEOF)
		if n := <-done; n != MinBuffer {
			t.Errorf("%d bytes were taken", n)
		}
	})
}

// TestStrangers: streams of clients that never showed their key go first.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{MaxDetached: 2})
		client := a.stalled(t, false)
		for range 5 {
			conn, _ := a.dial(context.Background())
			if _, err := greet(context.Background(), conn, DefaultBuffer, a.pin()); err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			<-a.streams
			synctest.Wait()
		}
		if isOver(client) || a.Stats().Detached != 2 {
			t.Errorf("strangers drove a client out, %+v", a.Stats())
		}
	})
}

// TestUnconfirmed: a connection whose far end never shows that it has the key
// ends with the handshake's time.
func TestUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		conn, _ := a.dial(context.Background())
		if _, err := greet(context.Background(), conn, DefaultBuffer, a.pin()); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s := <-a.streams
		if s.Attached() {
			t.Error("it counts as attached")
		}
		_, err := io.Copy(io.Discard, conn)
		if took := time.Since(start); err != nil || took != handshakeWait {
			t.Errorf("the connection ended after %v: %v", took, err)
		}
		_ = conn.Close()
	})
}

// TestAcceptRefuses: what is not a client is told so, or cut, in bounded time.
func TestAcceptRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		for name, test := range map[string]struct {
			send []byte
			want error
		}{
			"an SSH client":        {[]byte("SSH-2.0-OpenSSH_9.2\r\n"), errPreface},
			"an agent's message":   {encode(msgResumed, prefaces()[msgResumed]), errPreface},
			"a short hello":        {encode(msgHello, []byte{1, 1}), errPreface},
			"a small buffer":       {encode(msgHello, (&hello{min: 1, max: 1, buffer: 1}).encode()), errPreface},
			"a key of zero bits":   {encode(msgHello, (&hello{min: 1, max: 1, buffer: MinBuffer}).encode()), errPreface},
			"an unknown session":   {encode(msgResume, (&resumption{version: 1}).encode()), ErrGone},
			"another version":      {encode(msgResume, (&resumption{version: 2}).encode()), ErrVersion},
			"another first one":    {encode(msgHello, (&hello{min: 2, max: 3, buffer: MinBuffer}).encode()), ErrVersion},
			"nothing":              {nil, context.DeadlineExceeded},
			"a hello without end":  {encode(msgHello, make([]byte, 100))[:50], context.DeadlineExceeded},
			"a session's other id": {encode(msgResume, nil), errPreface},
		} {
			near, far := net.Pipe()
			go func() {
				_, _ = near.Write(test.send)
				_, _ = io.Copy(io.Discard, near)
			}()
			start := time.Now()
			_, _, err := a.Accept(far)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				err = context.DeadlineExceeded
			}
			if !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want %v", name, err, test.want)
			}
			if took := time.Since(start); took > handshakeWait {
				t.Errorf("%s: it took %v", name, took)
			}
			if _, err := far.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("%s: the connection is open", name)
			}
			_ = near.Close()
		}
		if stats := a.Stats(); stats != (Stats{}) {
			t.Errorf("the Hub is left with %+v", stats)
		}
	})
}

// TestSuperseded: the agent learns of the client's new connection while the
// old one still looks alive, and bytes are under way on it: none comes twice.
func TestSuperseded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		conns := 0
		client, server := a.open(Config{Dial: func(context.Context) (net.Conn, error) {
			conns++
			p := plan{capacity: 1 << 20, mute: true} // the old end is never heard of
			if conns == 1 {
				p.up = fault{kind: faultHold, at: 500, hold: time.Second}
			}
			near, far := simPipe(p)
			a.serve(far)
			return near, nil
		}})
		var want bytes.Buffer
		for i := range 200 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			mustWrite(t, client, line)
		}
		synctest.Wait()
		cutLink(client) // a second before the rest arrives on the old connection
		mustClose(t, client.CloseWrite())
		time.Sleep(2 * time.Second)
		got, err := io.ReadAll(server)
		if err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("read %d bytes of %d, or they differ: %v", len(got), want.Len(), err)
		}
		if conns != 2 {
			t.Errorf("%d connections were made", conns)
		}
	})
}

// TestHubNotices: the agent is told too.
func TestHubNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said notices
		a := newAgent(t, HubConfig{Notice: func(_ *Stream, n Notice) { said.add(n) }})
		var down time.Time
		client, server := a.open(Config{Dial: func(ctx context.Context) (net.Conn, error) {
			if !down.IsZero() && time.Since(down) < time.Minute {
				return nil, errNoAgent
			}
			return a.dial(ctx)
		}})
		mustWrite(t, client, "x")
		wantRead(t, server, "x")
		down = time.Now()
		cutLink(client)
		synctest.Wait()
		if server.Attached() || client.Attached() {
			t.Error("a stream without a connection counts as attached")
		}
		mustWrite(t, client, "y")
		wantRead(t, server, "y")
		synctest.Wait()
		if said.String() != "stalled flowing" {
			t.Errorf("it was told %q", &said)
		}
	})
}

// TestHubClose: clients get what was written before it.
func TestHubClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		client, server := a.open(Config{})
		mustWrite(t, server, "bye")
		lost, closed := a.stalled(t, true), a.stalled(t, true)
		mustClose(t, closed.Close()) // and it waits for its client
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantError(t, "close with a client away", a.Hub.Close(ctx), ErrUnsent)
		if !isOver(lost) || !isOver(closed) {
			t.Error("a stream outlived its Hub")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("it waited %v for clients that are away", took)
		}
		got, err := io.ReadAll(client)
		if string(got) != "bye" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		near, far := net.Pipe()
		_, _, err = a.Accept(far)
		wantError(t, "accept after close", err, ErrHubClosed)
		_ = near.Close()
	})
}

// TestHubCloseEmpties: when Close returns there is no session, also where whoever
// ended the last one, such as a timer, has not told the Hub yet.
func TestHubCloseEmpties(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		near, far := net.Pipe()
		defer near.Close()
		s := newStream(a.Hub, DefaultPing, nil, [tokenSize]byte{1}, newCore(MinBuffer, MinBuffer), false)
		s.link = &link{s: s, conn: far, wake: make(chan struct{}, 1), stop: make(chan struct{}), confirmed: true, ticker: time.NewTimer(time.Hour)}
		a.sessions[s.token] = &entry{s: s}
		closed := make(chan error)
		go func() { closed <- a.Hub.Close(t.Context()) }()
		synctest.Wait() // it waits for the client
		s.mu.Lock()
		s.endLocked(nil)
		s.mu.Unlock()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if stats := a.Stats(); stats != (Stats{}) {
			t.Errorf("the Hub is left with %+v", stats)
		}
	})
}

func TestHostKeys(t *testing.T) {
	rsaSigner := func(bits int) ssh.Signer {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return signer
	}
	a := newAgent(t, HubConfig{Signer: rsaSigner(2048)})
	client, server := a.open(Config{}) // pinned by its fingerprint
	mustWrite(t, client, "x")
	wantRead(t, server, "x")

	t.Setenv("GODEBUG", "rsa1024min=0")
	for name, cfg := range map[string]HubConfig{
		"none":               {},
		"a short RSA key":    {Signer: rsaSigner(1024)},
		"SHA-1 alone":        {Signer: struct{ ssh.Signer }{rsaSigner(2048)}},
		"a negative limit":   {Signer: newSigner(t), MaxDetached: -1},
		"an unusable buffer": {Signer: newSigner(t), Buffer: 1},
	} {
		if _, err := NewHub(cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// TestOvertaken: a resume that a newer one has overtaken while it was being
// answered does not take the stream away from it.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t, HubConfig{})
		conn, _ := a.dial(t.Context())
		session, err := greet(t.Context(), conn, DefaultBuffer, a.pin())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		server := <-a.streams

		slow, slowFar := net.Pipe()
		slowDone := make(chan error, 1)
		go func() {
			_, _, err := a.Accept(slowFar)
			slowDone <- err
		}()
		m := resumption{version: version, token: session.token, attempt: 1}
		m.mac = [macSize]byte(mac(session.secret.clientMAC, m.signed()))
		if _, err := slow.Write(encode(msgResume, m.encode())); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it writes its answer, which nobody reads yet

		fast, _ := a.dial(t.Context())
		out, _, _, err := goOn(t.Context(), fast, session.secret, session.token, 2, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := answer(slow, msgResumed); err != nil {
			t.Fatal(err)
		}
		wantError(t, "the overtaken resume", <-slowDone, errSuperseded)
		go func() { _, _ = io.Copy(io.Discard, fast) }()
		frame := append(header{kind: typeData, length: 4}.append(nil), "fast"...)
		frame = append(frame, make([]byte, tagSize)...)
		out.seal(frame)
		if _, err := fast.Write(frame); err != nil {
			t.Fatal(err)
		}
		wantRead(t, server, "fast")
		_, _ = slow.Close(), fast.Close()
	})
}
