package clientend

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/resume"
	"example.com/converge/pkg/resume/resumetest"
	"example.com/converge/pkg/transport"
)

type far struct{ *resumetest.Far }

func newFar(t *testing.T, cfg resume.HubConfig) *far {
	t.Helper()
	f, err := resumetest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.End)
	return &far{f}
}

// target names the agent, with a fragment.
func (f *far) target(t *testing.T, fragment string, r Resumption) *Target {
	t.Helper()
	target, err := NewTarget(f.ClientURL()+fragment, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Use(transport.Options{}, r); err != nil {
		t.Fatal(err)
	}
	return target
}

var anyWindow = Resumption{Window: maxWindow}

func TestResumes(t *testing.T) {
	f := newFar(t, resume.HubConfig{})
	conn, err := f.target(t, f.Pin(), anyWindow).Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i, trouble := range [][]int{{}, {}, {http.StatusNotFound, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusOK}} {
		word := fmt.Sprintf("word %d", i)
		write(t, conn, word)
		expect(t, conn, word)
		f.Answer(trouble...)
		f.Cut()
	}
	write(t, conn, "at last")
	expect(t, conn, "at last")
	for _, r := range f.Requests() {
		if offer := r.Header.Get("Sec-WebSocket-Protocol"); offer != resume.Protocol {
			t.Errorf("it offered %q", offer)
		}
		var sent bytes.Buffer
		_ = r.Header.Write(&sent)
		if all := r.RequestURI + sent.String(); strings.Contains(all, strings.TrimPrefix(f.Pin(), "#")) || strings.Contains(all, "%23") {
			t.Errorf("the pin was sent to the server: %s", all)
		}
	}
	if n := len(f.Requests()); n != 8 {
		t.Errorf("%d connections were tried, want 8", n)
	}
}

// TestRefusals: what a server says is the end of it.
func TestRefusals(t *testing.T) {
	for _, code := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden} {
		f := newFar(t, resume.HubConfig{})
		conn, err := f.target(t, f.Pin(), anyWindow).Dial(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		write(t, conn, "x")
		expect(t, conn, "x")
		f.Answer(code)
		f.Cut()
		in, hold := io.Pipe()
		err = Join(t.Context(), conn, Local{In: in, Out: io.Discard})
		_ = hold.Close()
		want := fmt.Sprintf("the connection was lost and cannot be made again: the answer is %d (HTTP %d)", code, code)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if n := len(f.Requests()); n != 2 {
			t.Errorf("%d: %d connections were tried", code, n)
		}
	}
}

func TestWindowEnds(t *testing.T) {
	f := newFar(t, resume.HubConfig{Window: time.Minute})
	conn, err := f.target(t, "", Resumption{Window: time.Second}).Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, "x")
	expect(t, conn, "x")
	f.Down(true)
	f.Cut()
	in, hold := io.Pipe()
	defer hold.Close()
	err = Join(t.Context(), conn, Local{In: in, Out: io.Discard})
	if !errors.Is(err, resume.ErrExpired) || !strings.HasPrefix(err.Error(), resume.ErrExpired.Error()) || !strings.Contains(err.Error(), "1s: the answer is 502") {
		t.Errorf("got %v", err)
	}
}

// TestAgentEnds: an agent that has ended does not know the stream any more.
func TestAgentEnds(t *testing.T) {
	f := newFar(t, resume.HubConfig{})
	conn, err := f.target(t, "", anyWindow).Dial(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, conn, "x")
	expect(t, conn, "x")
	if err := f.Restart(resume.HubConfig{}); err != nil {
		t.Fatal(err)
	}
	f.Cut()
	in, hold := io.Pipe()
	defer hold.Close()
	if err := Join(t.Context(), conn, Local{In: in, Out: io.Discard}); !errors.Is(err, resume.ErrGone) {
		t.Errorf("got %v", err)
	}
}

// TestPin: another agent's key is refused at once, in one sentence.
func TestPin(t *testing.T) {
	f := newFar(t, resume.HubConfig{})
	for name, fragment := range map[string]string{
		"its key": f.Pin(), "its fingerprint": "#sha256:" + strings.TrimPrefix(ssh.FingerprintSHA256(f.Key), "SHA256:"), "none": "",
	} {
		conn, err := f.target(t, fragment, anyWindow).Dial(t.Context(), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_ = conn.Close()
	}
	before := len(f.Requests())
	for name, fragment := range map[string]string{"key": "#" + somePin, "fingerprint": "#sha256:" + somePin} {
		conn, err := f.target(t, fragment, anyWindow).Dial(t.Context(), nil)
		if conn != nil || !errors.Is(err, resume.ErrPin) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	if n := len(f.Requests()) - before; n != 2 {
		t.Errorf("two wrong pins led to %d connections", n)
	}
}

// TestPlain: without an offer, or where nobody takes it up, the stream is the
// websocket's own, with a pin or without.
func TestPlain(t *testing.T) {
	f := newFar(t, resume.HubConfig{})
	for name, r := range map[string]Resumption{"nobody takes it up": anyWindow, "no offer": {}} {
		f.Answer(http.StatusOK)
		conn, err := f.target(t, "#"+somePin, r).Dial(t.Context(), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, ok := conn.(*frame.Conn); !ok {
			t.Errorf("%s: the stream is a %T", name, conn)
		}
		expect(t, conn, "plain")
		_ = conn.Close()
	}
	if all := f.Requests(); all[0].Header.Values("Sec-WebSocket-Protocol") == nil && all[1].Header.Values("Sec-WebSocket-Protocol") == nil ||
		all[0].Header.Values("Sec-WebSocket-Protocol") != nil && all[1].Header.Values("Sec-WebSocket-Protocol") != nil {
		t.Error("resumption was offered always or never")
	}
}

// TestBrokenHandshake: a server that goes away in the middle of the first
// handshake is spoken of as any that cannot be reached.
func TestBrokenHandshake(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := frame.Accept(w, r, resume.Protocol)
		if err == nil {
			_ = peer.Conn.Close()
		}
	}))
	defer server.Close()
	target, err := NewTarget("ws"+strings.TrimPrefix(server.URL, "http")+"/client/id", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Use(transport.Options{}, anyWindow); err != nil {
		t.Fatal(err)
	}
	_, err = target.Dial(t.Context(), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "cannot reach ws://127.0.0.1:") {
		t.Errorf("got %v", err)
	}
}

func TestPermanent(t *testing.T) {
	for code, want := range map[int]bool{
		400: true, 401: true, 403: true,
		200: false, 302: false, 404: false, 429: false, 500: false, 502: false, 503: false, 504: false,
	} {
		if got := permanent(fmt.Errorf("x: %w", &transport.RefusedError{Status: code})); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
	if permanent(io.ErrUnexpectedEOF) || permanent(errPlain) {
		t.Error("what may pass is permanent")
	}
}

// TestDeadPath: a path that takes everything and passes nothing on is found out
// by both ends, and left for another one.
func TestDeadPath(t *testing.T) {
	const ping = 50 * time.Millisecond
	f := newFar(t, resume.HubConfig{Ping: ping})
	path := newPath(t, f.Listener.Addr().String())
	r := anyWindow
	r.Ping = ping
	target, err := NewTarget("ws://"+path.Addr().String()+"/client/id"+f.Pin(), false)
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Use(transport.Options{}, r); err != nil {
		t.Fatal(err)
	}
	said := make(chan resume.Notice, 16)
	conn, err := target.Dial(t.Context(), &Events{Notice: func(n resume.Notice) { said <- n }})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	write(t, conn, "before")
	expect(t, conn, "before")
	stream := <-f.Streams
	path.block(true)
	write(t, conn, "in between")
	if n := <-said; n.State != resume.Stalled || n.Err == nil || n.Err.Error() != "the far end does not answer" {
		t.Errorf("it said %+v", n)
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for stream.Attached() {
		<-look.C
	}
	path.block(false)
	expect(t, conn, "in between")
	if n := <-said; n.State != resume.Flowing || time.Since(n.Since) < time.Second {
		t.Errorf("it said %+v", n)
	}
}

// path is a way to a server on which everything may be lost.
type path struct {
	net.Listener
	to      string
	running sync.WaitGroup

	mu      sync.Mutex
	blocked bool
	conns   []net.Conn
}

func newPath(t *testing.T, to string) *path {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &path{Listener: l, to: to}
	p.running.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.running.Wait()
	})
	return p
}

// block makes the connections that there are lose everything, and lets no
// others be made.
func (p *path) block(blocked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked = blocked
}

func (p *path) accept() {
	for {
		near, err := p.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		if p.blocked {
			_, _ = near.Close(), far.Close()
		}
		p.conns = append(p.conns, near, far)
		p.mu.Unlock()
		p.running.Go(func() { p.pass(near, far) })
		p.running.Go(func() { p.pass(far, near) })
	}
}

// pass passes bytes on, until they are lost once: then all that follow are.
func (p *path) pass(from, to net.Conn) {
	buf := make([]byte, 32<<10)
	lost := false
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		lost = lost || p.blocked
		p.mu.Unlock()
		if !lost {
			_, _ = to.Write(buf[:n])
		}
		if err != nil {
			if !lost {
				_ = to.Close()
			}
			return
		}
	}
}
