//go:build linux

package e2e

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"example.com/converge/e2e/internal/fault"
	"example.com/converge/pkg/watchtest"
)

// throughGate is the agent's URL for a client that comes through a gate.
func throughGate(a *agent, s *server, g *fault.Gate) string {
	return strings.Replace(a.url, s.addr, g.Address(), 1)
}

// pinned is a URL with the pin of an agent's host key, which is an Ed25519 key:
// its last 32 bytes, RFC 8709.
func pinned(t *testing.T, url string, host identity) string {
	t.Helper()
	blob, err := base64.StdEncoding.DecodeString(strings.Fields(host.public)[1])
	if err != nil || len(blob) < 32 {
		t.Fatalf("%q: %v", host.public, err)
	}
	return unpinned(url) + "#" + base64.RawURLEncoding.EncodeToString(blob[len(blob)-32:])
}

func unpinned(url string) string {
	url, _, _ = strings.Cut(url, "#")
	return url
}

// twoAgents are two agents with one id and two host keys, at two servers that
// know nothing of each other, and a relay in front that may lead to either.
type twoAgents struct {
	id       identity
	hosts    [2]identity
	servers  [2]*server
	gate     *fault.Gate
	url, pin string // by way of the gate, of the first agent
}

func newTwoAgents(t *testing.T) *twoAgents {
	x := &twoAgents{id: newIdentity(t)}
	name := uniqueID()
	for i := range x.servers {
		x.servers[i], x.hosts[i] = startServer(t), newIdentity(t)
		a := runAgent(t, x.servers[i].ws("/agent/"+name), x.id, "--keep", "--host-key", x.hosts[i].file)
		if i == 0 {
			x.gate = openGate(t, x.servers[0].addr)
			x.url = unpinned(throughGate(a, x.servers[0], x.gate))
		}
	}
	x.pin = pinned(t, x.url, x.hosts[0])
	return x
}

// conversation is ssh with cat, to which lines are said one by one.
type conversation struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr *watchtest.Output
	said   int
}

func converse(t *testing.T, id identity, url string, options ...string) *conversation {
	t.Helper()
	args := append(viaWsproxy(id, "'"+url+"'").options, "-oServerAliveCountMax=36")
	c := &conversation{t: t, cmd: exec.CommandContext(t.Context(), "ssh", append(append(options, args...), "abc@localhost", "cat")...), stderr: &watchtest.Output{}}
	c.cmd.Stderr = c.stderr
	var err error
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.out = bufio.NewReader(stdout)
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// say sends lines and wants each back.
func (c *conversation) say(lines int) {
	c.t.Helper()
	for range lines {
		c.said++
		line := fmt.Sprintf("line %d\n", c.said)
		if _, err := io.WriteString(c.in, line); err != nil {
			c.t.Fatalf("%v: %s", err, c.stderr)
		}
		if got, err := c.out.ReadString('\n'); err != nil || got != line {
			c.t.Fatalf("got %q, %v, want %q: %s", got, err, line, c.stderr)
		}
	}
}

// end waits for the end and returns what came behind the last answer.
func (c *conversation) end() (rest string, code int) {
	c.t.Helper()
	b, _ := io.ReadAll(c.out)
	_ = c.cmd.Wait()
	_ = c.in.Close()
	return string(b), c.cmd.ProcessState.ExitCode()
}

// TestAnotherAgent: in the middle of a session the relay leads to another
// agent of the same id. It does not know the session, and ssh never sees a
// byte of it.
func TestAnotherAgent(t *testing.T) {
	x := newTwoAgents(t)
	for name, url := range map[string]string{"with the pin": x.pin, "without": x.url} {
		t.Run(name, func(t *testing.T) {
			x.gate.Lead(x.servers[0].addr)
			c := converse(t, x.id, url)
			c.say(3)
			x.gate.Lead(x.servers[1].addr)
			x.gate.CutAll(true)
			rest, code := c.end()
			if rest != "" || code != 255 {
				t.Errorf("exit code %d, and %q came from somewhere", code, rest)
			}
			if want := "the session is gone, because"; !strings.Contains(c.stderr.String(), want) {
				t.Errorf("stderr is %q, want %q in it", c.stderr, want)
			}
		})
	}
	t.Run("from the start, with the pin", func(t *testing.T) {
		x.gate.Lead(x.servers[1].addr)
		c := converse(t, x.id, x.pin)
		rest, code := c.end()
		if rest != "" || code != 255 || !strings.Contains(c.stderr.String(), "the far end is not the agent that the URL names") {
			t.Errorf("exit code %d, %q, stderr %q", code, rest, c.stderr)
		}
		// Who was not the agent has not even heard ssh's greeting.
		if strings.Contains(c.stderr.String(), "Host key verification") {
			t.Errorf("ssh was let through: %q", c.stderr)
		}
	})
	t.Run("from the start, without", func(t *testing.T) {
		// SSH in it is the judge, as the printed line makes it.
		x.gate.Lead(x.servers[1].addr)
		key := strings.Join(strings.Fields(x.hosts[0].public)[:2], " ")
		c := converse(t, x.id, x.url, "-oStrictHostKeyChecking=yes", "-oKnownHostsCommand=/bin/echo %H "+key)
		rest, code := c.end()
		if rest != "" || code != 255 || !strings.Contains(c.stderr.String(), "Host key verification failed") {
			t.Errorf("exit code %d, %q, stderr %q", code, rest, c.stderr)
		}
	})
}

// forger is a relay that takes every client, and answers in an agent's place.
type forger struct {
	*httptest.Server
	attempts atomic.Int64
	answer   func() []byte
}

func newForger(t *testing.T, answer func() []byte) *forger {
	t.Helper()
	f := &forger{answer: answer}
	var serving sync.WaitGroup
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serving.Add(1)
		defer serving.Done()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
		protocol, _, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), ",")
		w.Header().Set("Sec-WebSocket-Protocol", strings.TrimSpace(protocol))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, both, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := both.Peek(2); err != nil { // its hello or resume has come
			return
		}
		f.attempts.Add(1)
		body := f.answer()
		head := binary.BigEndian.AppendUint16([]byte{0x82, 126}, uint16(len(body)))
		_, _ = conn.Write(append(head, body...))
		_, _ = io.Copy(io.Discard, both) // until it gives up
	}))
	t.Cleanup(func() {
		f.CloseClientConnections()
		f.Close()
		serving.Wait()
	})
	return f
}

// forged is a resumed message as somebody writes it who has no key, and frames
// behind it.
func forged() []byte {
	noise := make([]byte, 32+32)
	_, _ = rand.Read(noise)
	msg := binary.BigEndian.AppendUint16([]byte("CvR\x00\x04"), 8+64)
	msg = append(binary.BigEndian.AppendUint64(msg, 0), noise...)
	frame := append(binary.BigEndian.AppendUint16([]byte{1, 0}, 1000), make([]byte, 8)...)
	return append(append(msg, frame...), bytes.Repeat([]byte("forged "), 150)...)
}

// TestForgedResume: a relay that answers a resume in the agent's place costs
// attempts and nothing else: the stream's MAC refuses it, pin or not, and the
// session goes on as soon as the agent can be reached.
func TestForgedResume(t *testing.T) {
	x := newTwoAgents(t)
	for name, url := range map[string]string{"with the pin": x.pin, "without": x.url} {
		t.Run(name, func(t *testing.T) {
			x.gate.Lead(x.servers[0].addr)
			c := converse(t, x.id, url)
			c.say(3)
			f := newForger(t, forged)
			x.gate.Lead(f.Listener.Addr().String())
			x.gate.CutAll(true)
			watchtest.Eventually(t, "attempts to resume", func() bool { return f.attempts.Load() >= 3 })
			x.gate.Lead(x.servers[0].addr)
			x.gate.CutAll(true)
			c.say(3)
			_ = c.in.Close()
			if rest, code := c.end(); rest != "" || code != 0 {
				t.Errorf("exit code %d, %q, %s", code, rest, c.stderr)
			}
		})
	}
}
