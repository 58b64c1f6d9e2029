package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sync/errgroup"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
	"example.com/converge/server/internal/front"
	"example.com/converge/server/internal/hub"
	"example.com/converge/server/internal/ticket"
)

// memory is a listener of connections that are pipes of this process.
type memory struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.done) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

// open makes a connection and upgrades it. What it returns holds no buffer.
func (m *memory) open(path string, header http.Header) (net.Conn, error) {
	near, far := net.Pipe()
	m.conns <- far
	req := "GET " + path + " HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
	for name := range header {
		req += name + ": " + header.Get(name) + "\r\n"
	}
	if _, err := io.WriteString(near, req+"\r\n"); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(near), nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	return near, err
}

// say sends a control message, hear receives one.
func say(conn net.Conn, m rendezvous.Message) error {
	b, err := rendezvous.Encode(m)
	if err != nil {
		return err
	}
	return ws.WriteFrame(conn, ws.MaskFrame(ws.NewBinaryFrame(b)))
}

func hear(conn net.Conn) (rendezvous.Message, error) {
	h, err := ws.ReadHeader(conn)
	if err != nil {
		return rendezvous.Message{}, err
	}
	payload := make([]byte, min(h.Length, rendezvous.MaxMessage+2))
	if _, err := io.ReadFull(conn, payload); err != nil {
		return rendezvous.Message{}, err
	}
	m, _, err := rendezvous.Cut(payload)
	return m, err
}

// register opens a control connection.
func (m *memory) register(id string, key ed25519.PrivateKey) (net.Conn, error) {
	conn, err := m.open(rendezvous.AgentPath+id, nil)
	if err != nil {
		return nil, err
	}
	if err := say(conn, fakeagent.Hello(key)); err != nil {
		return nil, err
	}
	challenge, err := hear(conn)
	if err != nil || challenge.Challenge == nil {
		return nil, fmt.Errorf("no challenge: %w", err)
	}
	if err := say(conn, rendezvous.Message{Proof: rendezvous.Prove(key, challenge.Challenge.Nonce, id)}); err != nil {
		return nil, err
	}
	_, err = hear(conn)
	return conn, err
}

// session opens a client's connection and the agent's for it.
func (m *memory) session(agent net.Conn) ([]net.Conn, error) {
	var client net.Conn
	var opening errgroup.Group
	opening.Go(func() error {
		var err error
		client, err = m.open(rendezvous.ClientPath+"agent", nil)
		return err
	})
	d, err := hear(agent)
	if err != nil || d.Dial == nil {
		return nil, fmt.Errorf("no dial: %w", err)
	}
	data, err := m.open(rendezvous.DataPath, http.Header{
		rendezvous.ClientHeader: {strconv.FormatUint(d.Dial.Client, 10)},
		rendezvous.TokenHeader:  {d.Dial.Token},
	})
	return []net.Conn{client, data}, errors.Join(err, opening.Wait())
}

// BenchmarkIdleInMemory prints heap and stacks for each of many connections
// that are no sockets, both ends included, so that their number has no limit.
// Such a connection, like one with TLS, keeps its goroutine and a kilobyte:
// the figure says how it grows with the number, not what a socket costs.
func BenchmarkIdleInMemory(b *testing.B) {
	for _, n := range []int{1000, 4000, 20_000} {
		for _, kind := range []string{"control", "session"} {
			b.Run(fmt.Sprintf("in-memory-%s/n=%d", kind, n), func(b *testing.B) {
				for b.Loop() {
					idleInMemory(b, kind, n)
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func idleInMemory(b *testing.B, kind string, n int) {
	joiner := hub.New(hub.Config{
		KeepAlive: -1, ResumeWindow: time.Minute,
		Tickets: ticket.New(make([]byte, ticket.MinKey), time.Minute),
	})
	door := front.New(front.Config{Endpoints: joiner})
	m := &memory{conns: make(chan net.Conn), done: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = door.Serve(m) })
	key := fakeagent.NewKey()
	agent, err := m.register("agent", key)
	if err != nil {
		b.Fatal(err)
	}
	conns := []net.Conn{agent}
	before := inUse()
	for i := range n {
		var more []net.Conn
		if kind == "session" {
			more, err = m.session(agent)
		} else {
			var conn net.Conn
			conn, err = m.register("agent"+strconv.Itoa(i), key)
			more = []net.Conn{conn}
		}
		if err != nil {
			b.Fatal(err)
		}
		conns = append(conns, more...)
	}
	b.ReportMetric(float64(inUse()-before)/1024/float64(n), "KiB/each")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, conn := range conns {
		_ = conn.Close()
	}
	if err := errors.Join(door.Shutdown(ctx), joiner.Shutdown(ctx)); err != nil {
		b.Error(err)
	}
	serving.Wait()
}

// inUse is what heap and stacks hold after a collection.
func inUse() uint64 {
	runtime.GC()
	runtime.GC() // and what pools kept through the first
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapInuse + s.StackInuse
}
