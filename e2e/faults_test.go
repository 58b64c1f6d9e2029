package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestNoSuchAgent: ssh ends with a sentence, by either way, and does not hang.
func TestNoSuchAgent(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	url := s.ws("/client/nobody")
	for _, w := range []way{viaWsproxy(id, url), viaTcptows(t, id, url)} {
		t.Run(w.name, func(t *testing.T) {
			r := w.ssh(t, nil, "true")
			if r.code != 255 || !strings.Contains(r.stderr, `no agent is registered as "nobody"`) {
				t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
			}
		})
	}
}

// TestAgentFaults: what an agent says when it cannot begin.
func TestAgentFaults(t *testing.T) {
	s := startServer(t)
	cert, key := selfSigned(t)
	secure := startServer(t, "--tls-cert", cert, "--tls-key", key)
	missing := filepath.Join(t.TempDir(), "missing")
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "ws://" + closed.Addr().String() + "/agent/x"
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"scheme", []string{"http://" + s.addr + "/agent/x"}, 2, "must be ws or wss"},
		{"client's URL", []string{s.ws("/client/x")}, 2, "an agent registers at"},
		{"odd id", []string{s.ws("/agent/a b")}, 2, "invalid id"},
		{"id twice", []string{"--id", "y", s.ws("/agent/x")}, 2, "give one of them"},
		{"no URL", nil, 2, "give one URL"},
		{"negative expiry", []string{"--expiry=-1s", s.ws("/agent/x")}, 2, "--expiry is negative"},
		{"odd expiry", []string{"--expiry", "soon", s.ws("/agent/x")}, 2, "expiry"},
		{"option after the URL", []string{s.ws("/agent/x"), "--no-such-option"}, 2, "no-such-option"},
		{"keys file", []string{"--authorized-keys", missing, s.ws("/agent/x")}, 1, missing},
		{"bad key", []string{"--authorized-key", "ssh-ed25519 nonsense", s.ws("/agent/x")}, 2, "no public key on this line"},
		{"host key", []string{"--host-key", missing, s.ws("/agent/x")}, 1, missing},
		{"server not there", []string{"--connect-timeout", "0", nobody}, 1, "cannot reach"},
		{"TLS not trusted", []string{"wss://" + secure.addr + "/agent/x"}, 1, "--ca FILE"},
		{"no TLS", []string{"wss://" + s.addr + "/agent/x"}, 1, "does not speak TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := runCommand(t, nil, tool("agent"), c.args...)
			if r.code != c.code || !strings.Contains(r.stderr, c.says) {
				t.Errorf("exit code %d, want %d; stderr %q, want %q in it", r.code, c.code, r.stderr, c.says)
			}
			if r.stdout != "" {
				t.Errorf("stdout is %q", r.stdout)
			}
		})
	}
}

// TestTLS: trusted by --ca, or not asked for by --insecure, and refused
// otherwise.
func TestTLS(t *testing.T) {
	cert, key := selfSigned(t)
	s := startServer(t, "--tls-cert", cert, "--tls-key", key)
	s.tls = true
	id := newIdentity(t)
	a := startAgent(t, s, id, "--insecure")
	if r := viaWsproxy(id, a.url).ssh(t, nil, "true"); r.code != 255 || !strings.Contains(r.stderr, "--ca FILE") {
		t.Errorf("an untrusted certificate: exit code %d, stderr %q", r.code, r.stderr)
	}
	viaWsproxy(id, a.url, "--ca", cert).ssh(t, nil, "true").must(t)
	viaWsproxy(id, a.url, "--insecure").ssh(t, nil, "true").must(t)
}

// TestAgentKilled: the clients of an agent that is killed end, and its id is
// free again.
func TestAgentKilled(t *testing.T) {
	s := startServer(t, "--resume-window", "0") // which keeps no id for it
	id := newIdentity(t)
	name := uniqueID()
	a := runAgent(t, s.ws("/agent/"+name), id, "--keep")
	w := viaWsproxy(id, a.url)
	client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo in; cat")...)
	client.out.Await(t, "in", 1)
	plain := viaWsproxy(id, a.url, "--resume-window", "0")
	mortal := start(t, nil, "ssh", append(append([]string{}, plain.options...), "abc@localhost", "echo in; cat")...)
	mortal.out.Await(t, "in", 1)
	a.kill(t)
	if code := mortal.wait(t); code != 255 {
		t.Errorf("the exit code of a client that does not wait is %d, want 255", code)
	}
	s.out.Await(t, `msg="agent gone" id=`+name, 1)
	again := runAgent(t, s.ws("/agent/"+name), id, "--keep", "--id-conflict=fail")
	if again.id != name {
		t.Errorf("the next agent is %q, want %q", again.id, name)
	}
	// The other one has waited, and hears from the next agent that it was in vain.
	if code := client.wait(t); code != 255 || !strings.Contains(client.out.String(), "the session is gone") {
		t.Errorf("the client's exit code is %d, want 255: %s", code, client.out)
	}
}

// TestClientKilled: a client that is killed leaves neither its command nor
// its wsproxy behind.
func TestClientKilled(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url)
	client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo pid $$; exec cat")...)
	client.out.Await(t, `pid (\d+)`, 1)
	client.kill(t)
	a.out.Await(t, "logged out", 1)
	s.out.Await(t, `msg="client ended"`, 1)
}

// TestServerKilled: the agent comes back by itself, under its id.
func TestServerKilled(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	viaWsproxy(id, a.url).ssh(t, nil, "true").must(t)
	s.kill(t)
	again := s.restart(t)
	again.out.Await(t, `msg="agent registered" id=`+a.id+` `, 1)
	viaWsproxy(id, a.url).ssh(t, nil, "true").must(t)
	if n := strings.Count(a.out.String(), "Its id is"); n != 1 {
		t.Errorf("the lines were printed %d times", n)
	}
}

// TestServerStopped: the server ends on SIGTERM while sessions are open, and
// their clients with it if they do not wait for another.
func TestServerStopped(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url, "--resume-window", "0")
	client := start(t, nil, "ssh", append(append([]string{}, w.options...), "abc@localhost", "echo in; cat")...)
	client.out.Await(t, "in", 1)
	s.signal(syscall.SIGTERM)
	if code := s.wait(t); code != 0 {
		t.Errorf("the server's exit code is %d", code)
	}
	if code := client.wait(t); code != 255 {
		t.Errorf("the client's exit code is %d, want 255", code)
	}
}

// TestSecondAgent: the holder of an id keeps it; the newcomer gets another
// one and says so, or ends.
func TestSecondAgent(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	first := startAgent(t, s, id)
	url := s.ws("/agent/" + first.id)

	r := runCommand(t, nil, tool("agent"), "--id-conflict=fail", url)
	if r.code != 1 || !strings.Contains(r.stderr, "is taken by another agent") {
		t.Errorf("exit code %d, stderr %q", r.code, r.stderr)
	}
	second := runAgent(t, url, id, "--keep")
	if second.id == first.id || !strings.HasPrefix(second.id, first.id+"-") {
		t.Errorf("the second agent has the id %q beside %q", second.id, first.id)
	}
	second.out.Await(t, "the id is taken", 1)
	for _, a := range []*agent{first, second} {
		pid := viaWsproxy(id, a.url).ssh(t, nil, "echo $PPID").must(t).stdout
		if want := a.cmd.Process.Pid; strings.TrimSpace(pid) != strconv.Itoa(want) {
			t.Errorf("the URL of %s leads to process %s, want %d", a.id, strings.TrimSpace(pid), want)
		}
	}
}

// TestRandomID: without an id the agent makes one that nobody can guess.
func TestRandomID(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	seen := map[string]bool{}
	for range 2 {
		a := runAgent(t, "ws://"+s.addr, id, "--keep")
		if len(a.id) < 26 || seen[a.id] {
			t.Errorf("the random id is %q", a.id)
		}
		seen[a.id] = true
		viaWsproxy(id, a.url).ssh(t, nil, "true").must(t)
	}
	named := runAgent(t, "ws://"+s.addr, id, "--keep", "--id", "team/repo/job_1.2~x")
	viaWsproxy(id, named.url).ssh(t, nil, "true").must(t)
}

// holdUp is a TCP forwarder whose connections can be made half-open: bytes
// are swallowed, and nobody is told.
type holdUp struct {
	net.Listener
	to string

	mu    sync.Mutex
	held  bool
	conns []net.Conn
	wg    sync.WaitGroup
}

func startHoldUp(t *testing.T, to string) *holdUp {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &holdUp{Listener: l, to: to}
	h.wg.Go(h.accept)
	t.Cleanup(func() {
		_ = l.Close()
		h.mu.Lock()
		for _, c := range h.conns {
			_ = c.Close()
		}
		h.mu.Unlock()
		h.wg.Wait()
	})
	return h
}

func (h *holdUp) accept() {
	for {
		near, err := h.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", h.to)
		if err != nil {
			_ = near.Close()
			continue
		}
		h.mu.Lock()
		h.conns = append(h.conns, near, far)
		h.mu.Unlock()
		h.wg.Go(func() { h.move(far, near) })
		h.wg.Go(func() { h.move(near, far) })
	}
}

// move copies until the end, or swallows once held; the end of one side is
// then not told to the other.
func (h *holdUp) move(dst, src net.Conn) {
	_, _ = io.Copy(writerFunc(func(p []byte) (int, error) {
		h.mu.Lock()
		held := h.held
		h.mu.Unlock()
		if held {
			return len(p), nil
		}
		return dst.Write(p)
	}), src)
	h.mu.Lock()
	held := h.held
	h.mu.Unlock()
	if !held {
		_ = dst.Close()
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestHalfOpen: when the path to the server dies without a word, the agent's
// own return displaces its stale registration at once.
func TestHalfOpen(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	h := startHoldUp(t, s.addr)
	name := uniqueID()
	a := runAgent(t, "ws://"+h.Addr().String()+"/agent/"+name, id, "--keep", "--keepalive", "1s")
	viaWsproxy(id, s.ws("/client/"+name)).ssh(t, nil, "true").must(t)

	h.mu.Lock()
	h.held = true // swallow what there is, for good
	stale := h.conns
	h.conns = nil
	h.mu.Unlock()
	t.Cleanup(func() {
		for _, c := range stale {
			_ = c.Close()
		}
	})
	a.out.Await(t, "connection to the server lost", 1)
	h.mu.Lock()
	h.held = false
	h.mu.Unlock()

	s.out.Await(t, `msg="agent registered" id=`+name+` `, 2)
	viaWsproxy(id, s.ws("/client/"+name)).ssh(t, nil, "true").must(t)
	if n := strings.Count(a.out.String(), "Its id is"); n != 1 {
		t.Errorf("the agent changed its id: the lines were printed %d times", n)
	}
}

// TestPlainWebsocketClient: a client that knows nothing of Converge gets a
// working ssh and sftp.
func TestPlainWebsocketClient(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	script, err := filepath.Abs(filepath.Join("testdata", "plainclient.py"))
	if err != nil {
		t.Fatal(err)
	}
	w := way{name: "python", options: append(baseOptions(id), "-oProxyCommand=/usr/bin/python3 "+script+" "+a.plainURL())}
	source, want := randomFile(t, 4<<20)
	in, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	if r := w.ssh(t, bytes.NewReader(in), "cat").must(t); r.stdout != string(in) {
		t.Errorf("%d bytes came back, want %d", len(r.stdout), len(in))
	}
	back := filepath.Join(t.TempDir(), "back")
	w.sftp(t, "get "+source+" "+back+"\n").must(t)
	if fileSum(t, back) != want {
		t.Error("the file differs")
	}
}

// TestKeysReread: somebody is let in while the agent runs.
func TestKeysReread(t *testing.T) {
	s := startServer(t)
	first, second := newIdentity(t), newIdentity(t)
	file := filepath.Join(t.TempDir(), "authorized_keys")
	if err := os.WriteFile(file, []byte("# nobody else yet\n"+first.public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, tool("agent"), "--keep", "--authorized-keys", file, "--wsproxy", tool("wsproxy"), s.ws("/agent/"+uniqueID()))
	a := awaitAgent(t, p)
	if strings.Contains(a.out.String(), "password") {
		t.Error("a password is offered beside the keys")
	}
	viaWsproxy(first, a.url).ssh(t, nil, "true").must(t)
	if r := viaWsproxy(second, a.url).ssh(t, nil, "true"); r.code != 255 || !strings.Contains(r.stderr, "Permission denied (publickey)") {
		t.Errorf("an unknown key: exit code %d, stderr %q", r.code, r.stderr)
	}
	if err := os.WriteFile(file, []byte(first.public+"\n"+second.public+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	viaWsproxy(second, a.url).ssh(t, nil, "true").must(t)
}
