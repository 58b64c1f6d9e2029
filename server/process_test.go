//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/converge/pkg/clitest"
	"example.com/converge/pkg/frame"
	"example.com/converge/pkg/rendezvous"
	"example.com/converge/server/internal/fakeagent"
)

// process is a running server.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string // that it listens on
	server  rendezvous.Server
	tls     *tls.Config // nil for plain HTTP

	reading sync.WaitGroup
	mu      sync.Mutex
	changed *sync.Cond
	lines   []map[string]any // what it has logged
	text    strings.Builder  // as it was written
	over    bool             // no more will come
}

// start runs the server on a free port, with logs in JSON, and waits until it
// serves. It kills it at the test's end if it still runs then.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	return startBy(t, []string{"server"}, args...)
}

// startBy runs a command that becomes the server.
func startBy(t *testing.T, command []string, args ...string) *process {
	t.Helper()
	return startOn(t, nil, command, args...)
}

// startOn is startBy with that for standard output; nil is none.
func startOn(t *testing.T, stdout io.Writer, command []string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	args = append(command[1:], append([]string{"--listen", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	p := &process{t: t, cmd: exec.CommandContext(ctx, command[0], args...)}
	p.changed = sync.NewCond(&p.mu)
	p.cmd.Stdout = stdout
	p.cmd.Env = append(os.Environ(), "GORACE="+clitest.RaceOptions)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.reading.Go(func() { p.read(stderr) })
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			p.reading.Wait()
			_ = p.cmd.Wait()
		}
	})
	p.address, _ = p.logged("serving")["address"].(string)
	p.server = rendezvous.Server{Host: p.address}
	return p
}

// read takes the log in: each line is one object, with what every line has.
func (p *process) read(stderr io.Reader) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		var line map[string]any
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			p.t.Errorf("a log line is not JSON: %q: %v", lines.Text(), err)
		}
		for _, key := range []string{"time", "level", "msg"} {
			if s, ok := line[key].(string); !ok || s == "" {
				p.t.Errorf("a log line has no %s: %q", key, lines.Text())
			}
		}
		p.mu.Lock()
		p.lines = append(p.lines, line)
		p.text.WriteString(lines.Text() + "\n")
		p.changed.Broadcast()
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	p.changed.Broadcast()
}

// logged waits for a log line with that text in its message and returns it.
func (p *process) logged(text string) map[string]any {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for seen := 0; ; p.changed.Wait() {
		for ; seen < len(p.lines); seen++ {
			if msg, _ := p.lines[seen]["msg"].(string); strings.Contains(msg, text) {
				return p.lines[seen]
			}
		}
		if p.over {
			p.t.Fatalf("it never logged %q, but\n%s", text, p.text.String())
		}
	}
}

// signal sends one; a process that is gone already is no failure.
func (p *process) signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

// wait waits for the process's end and returns all that it logged.
func (p *process) wait() (logged string, state *os.ProcessState) {
	p.reading.Wait()
	_ = p.cmd.Wait()
	return p.text.String(), p.cmd.ProcessState
}

// end sends a signal and wants exit code 0, reached the soft way.
func (p *process) end(sig os.Signal) (logged string) {
	p.t.Helper()
	p.signal(sig)
	logged, state := p.wait()
	if !state.Success() || strings.Contains(logged, "the hard way") {
		p.t.Errorf("it ended with %v and logged\n%s", state, logged)
	}
	return logged
}

// transport trusts the server's certificate, if it has one.
func (p *process) transport() *http.Transport {
	tr := fakeagent.Transport()
	tr.TLSClientConfig = p.tls
	return tr
}

// register registers an agent that the test's end closes.
func (p *process) register(id string) *fakeagent.Agent {
	p.t.Helper()
	a, err := fakeagent.Register(p.t.Context(), p.server, id, fakeagent.NewKey(), p.transport())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = a.Conn.Close() })
	return a
}

// serveAgent registers an agent that sends back what comes.
func (p *process) serveAgent(id string) {
	p.t.Helper()
	a := p.register(id)
	var serving sync.WaitGroup
	serving.Go(func() {
		_ = a.Serve(func(conn net.Conn) {
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		})
	})
	p.t.Cleanup(func() { _ = a.Conn.Close(); serving.Wait() })
}

// dial connects a client.
func (p *process) dial(id string) (*frame.Conn, error) {
	conn, err := frame.Dial(p.t.Context(), p.server.ClientURL(id), p.transport(), nil, frame.Options{})
	if err == nil {
		p.t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

// client connects a client that must get through.
func (p *process) client(id string) *frame.Conn {
	p.t.Helper()
	conn, err := p.dial(id)
	if err != nil {
		p.t.Fatal(err)
	}
	return conn
}

// echoes checks that a session with an agent of serveAgent is alive.
func echoes(t *testing.T, conn net.Conn) {
	t.Helper()
	const text = "are you there?"
	got := make([]byte, len(text))
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Errorf("the session takes nothing: %v", err)
	} else if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Errorf("the session gave %q, %v", got, err)
	}
}

// peer is a connection for requests by hand.
type peer struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (p *process) connect() *peer {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return &peer{conn, p.t, bufio.NewReader(conn)}
}

// ask sends a request. Who is turned away may be so before having asked:
// answer tells.
func (c *peer) ask(target string, header ...string) {
	lines := append([]string{"GET " + target + " HTTP/1.1", "Host: h"}, header...)
	_, _ = io.WriteString(c, strings.Join(lines, "\r\n")+"\r\n\r\n")
}

// answer returns an answer whose body is not read yet.
func (c *peer) answer() *http.Response {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	return resp
}

// get asks for a page and leaves the connection open.
func (c *peer) get(target string, header ...string) *http.Response {
	c.t.Helper()
	c.ask(target, header...)
	return c.answer()
}

// status asks for a page, reads all of it and returns the status.
func (c *peer) status(target string) int {
	c.t.Helper()
	resp := c.get(target)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Errorf("GET %s: %v", target, err)
	}
	return resp.StatusCode
}
