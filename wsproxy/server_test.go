package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/pkg/frame"
)

// fake is a websocket server. What it does with a connection is told by the
// last part of the path: see serve.
type fake struct {
	*httptest.Server
	handlers sync.WaitGroup
	// conns has the connections to /client/test, which their test closes.
	conns chan *frame.Conn
	// proxied are the targets of CONNECT.
	mu      sync.Mutex
	proxied []string
}

func newFake(secure bool) *fake {
	f := &fake{conns: make(chan *frame.Conn, 1)}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // TLS handshakes that clients refuse
	if secure {
		f.StartTLS()
	} else {
		f.Start()
	}
	return f
}

// url returns the websocket URL of a path.
func (f *fake) url(path string) string { return "ws" + strings.TrimPrefix(f.URL, "http") + path }

// end stops the server; the connections must have ended or end by themselves.
func (f *fake) end() {
	f.CloseClientConnections()
	f.Close()
	f.handlers.Wait()
}

// accept returns the next connection to /client/test.
func (f *fake) accept(t *testing.T) *frame.Conn {
	t.Helper()
	conn := <-f.conns
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	f.handlers.Add(1)
	defer f.handlers.Done()
	if r.Method == http.MethodConnect {
		f.tunnel(w, r)
		return
	}
	id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	switch id {
	case "none":
		http.Error(w, "there is no agent none: has its job ended?", http.StatusNotFound)
		return
	case "page":
		_, _ = io.WriteString(w, "<html>")
		return
	}
	peer, err := frame.Accept(w, r, "")
	if err != nil {
		return
	}
	in := io.MultiReader(bytes.NewReader(peer.Early), peer.Conn)
	switch id {
	case "cut": // without a close frame
		_, _ = peer.Conn.Write([]byte{0x82, 3, 'c', 'u', 't'})
		_ = peer.Conn.Close()
		return
	case "reset":
		_, _ = in.Read(make([]byte, 1))
		_ = peer.Conn.(*net.TCPConn).SetLinger(0)
		_ = peer.Conn.Close()
		return
	case "text":
		_, _ = peer.Conn.Write([]byte{0x81, 2, 'h', 'i'})
		_, _ = io.Copy(io.Discard, in)
		_ = peer.Conn.Close()
		return
	}
	conn := frame.Server(peer.Conn, in, frame.Options{})
	if id == "test" {
		f.conns <- conn
		return
	}
	defer conn.Close()
	switch id {
	case "echo":
		_, _ = io.Copy(conn, conn)
	case "header":
		var lines []string
		for name, values := range r.Header {
			for _, value := range values {
				lines = append(lines, fmt.Sprintf("%s: %s\n", name, value))
			}
		}
		slices.Sort(lines)
		_, _ = io.WriteString(conn, strings.Join(lines, ""))
	case "restart":
		_ = conn.CloseWith(frame.CloseServiceRestart, "the server is restarting")
	}
}

// tunnel makes the server a proxy too: every target is the server itself.
func (f *fake) tunnel(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.proxied = append(f.proxied, r.Host)
	f.mu.Unlock()
	far, err := net.Dial("tcp", f.Listener.Addr().String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer far.Close()
	near, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer near.Close()
	_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(far, near)
		_ = far.Close()
	})
	_, _ = io.Copy(near, far)
	_ = near.Close()
	up.Wait()
}
