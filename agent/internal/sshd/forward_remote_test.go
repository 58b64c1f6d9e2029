//go:build linux

package sshd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// ask sends a request of the connection.
func ask(t testing.TB, client *ssh.Client, request string, payload any) (bool, []byte) {
	t.Helper()
	ok, answer, err := client.SendRequest(request, true, ssh.Marshal(payload))
	if err != nil {
		t.Fatal(err)
	}
	return ok, answer
}

// anyPort asks for a port of the server's choice.
func anyPort(t testing.TB, client *ssh.Client, host string) uint32 {
	t.Helper()
	ok, answer := ask(t, client, "tcpip-forward", bindMessage{host, 0})
	var m struct{ Port uint32 }
	if err := ssh.Unmarshal(answer, &m); !ok || err != nil || m.Port == 0 {
		t.Fatalf("%v %x %v", ok, answer, err)
	}
	return m.Port
}

// Two forwards of any port have ports of their own, are told apart, and one
// can be cancelled without the other.
func TestAnyPorts(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	channels := client.HandleChannelOpen("forwarded-tcpip")
	ports := []uint32{anyPort(t, client, "localhost"), anyPort(t, client, "localhost"), anyPort(t, client, "127.0.0.1")}
	if ports[0] == ports[1] || ports[1] == ports[2] {
		t.Fatal(ports)
	}
	for i, port := range ports {
		nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		channel := <-channels
		var m directMessage
		if err := ssh.Unmarshal(channel.ExtraData(), &m); err != nil {
			t.Fatal(err)
		}
		from := nc.LocalAddr().(*net.TCPAddr)
		want := directMessage{[]string{"localhost", "localhost", "127.0.0.1"}[i], port, "127.0.0.1", uint32(from.Port)}
		if m != want {
			t.Errorf("%+v, want %+v", m, want)
		}
		// A client that refuses ends the connection.
		_ = channel.Reject(ssh.Prohibited, "no")
		if _, err := nc.Read(make([]byte, 1)); err == nil {
			t.Error("it goes on")
		}
		nc.Close()
	}
	for _, wrong := range []bindMessage{{"", ports[0]}, {"localhost", 0}, {"localhost", ports[2]}} {
		if ok, _ := ask(t, client, "cancel-tcpip-forward", wrong); ok {
			t.Errorf("%+v is cancelled", wrong)
		}
	}
	if ok, answer := ask(t, client, "cancel-tcpip-forward", bindMessage{"localhost", ports[0]}); !ok || len(answer) != 0 {
		t.Errorf("%v %x", ok, answer)
	}
	if ok, _ := ask(t, client, "cancel-tcpip-forward", bindMessage{"localhost", ports[0]}); ok {
		t.Error("it is cancelled twice")
	}
	b.events.wait(t, "forward closed 1", 1)
	if nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[0])); err == nil {
		nc.Close()
		t.Error("it still listens")
	}
	nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", ports[1]))
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	_ = (<-channels).Reject(ssh.Prohibited, "no")
}

// The answer, with its port, comes before the first connection.
func TestAnswerBeforeConnections(t *testing.T) {
	b := newBench(t, nil)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().(*net.TCPAddr)
	free.Close()
	client := b.dial()
	channels := client.HandleChannelOpen("forwarded-tcpip")
	var dialer sync.WaitGroup
	dialer.Go(func() {
		watchtest.Eventually(t, "a listener", func() bool {
			nc, err := net.DialTCP("tcp", nil, addr)
			if err != nil {
				return false
			}
			nc.Close()
			return true
		})
	})
	// A fixed port has no port in its answer (RFC 4254 §7.1).
	if ok, answer := ask(t, client, "tcpip-forward", bindMessage{"", uint32(addr.Port)}); !ok || len(answer) != 0 {
		t.Errorf("%v %x", ok, answer)
	}
	_ = (<-channels).Reject(ssh.Prohibited, "no")
	dialer.Wait()
}

// Only loopback, whatever the client names.
func TestRemoteForwardAddresses(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	_ = client.HandleChannelOpen("forwarded-tcpip")
	for host, want := range map[string][]string{
		"":            {"127.0.0.1", "::1"},
		"*":           {"127.0.0.1", "::1"},
		"localhost":   {"127.0.0.1", "::1"},
		"0.0.0.0":     {"127.0.0.1", "::1"},
		"192.0.2.1":   {"127.0.0.1", "::1"},
		"example.com": {"127.0.0.1", "::1"},
		"127.0.0.1":   {"127.0.0.1"},
		"127.7.7.7":   {"127.7.7.7"},
		"::1":         {"::1"},
	} {
		ok, answer := ask(t, client, "tcpip-forward", bindMessage{host, 0})
		var m struct{ Port uint32 }
		if err := ssh.Unmarshal(answer, &m); !ok || err != nil {
			t.Errorf("%q: %v %v", host, ok, err)
			continue
		}
		var got []string
		for _, c := range b.server.loggedIn() {
			c.mu.Lock()
			for _, n := range c.forwards.listeners[boundName(address{host, uint16(m.Port)})].nets {
				got = append(got, n.Addr().(*net.TCPAddr).IP.String())
			}
			c.mu.Unlock()
		}
		if len(got) == 0 || got[0] != want[0] || len(got) > len(want) {
			t.Errorf("%q listens at %q, want %q", host, got, want)
		}
		if len(want) > len(got) { // a machine without IPv6, or the port is taken there
			t.Logf("%q listens at %q only", host, got)
		}
	}
}

func TestRemoteForwardRefusals(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	busy, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := uint32(busy.Addr().(*net.TCPAddr).Port)
	for _, bind := range []bindMessage{{"", port}, {"127.0.0.1", port}, {"", 1 << 16}, {"a\x00b", 0}} {
		if ok, _ := ask(t, client, "tcpip-forward", bind); ok {
			t.Errorf("%+v is accepted", bind)
		}
	}
	// What is there is not replaced, and not removed.
	file := filepath.Join(b.dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, b.dir, filepath.Join(b.dir, "none", "s"), ""} {
		if ok, _ := ask(t, client, "streamlocal-forward@openssh.com", struct{ Path string }{path}); ok {
			t.Errorf("%q is accepted", path)
		}
		if ok, _ := ask(t, client, "cancel-streamlocal-forward@openssh.com", struct{ Path string }{path}); ok {
			t.Errorf("%q is cancelled", path)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "mine" {
		t.Errorf("%q %v", text, err)
	}
	for _, request := range []string{"tcpip-forward", "cancel-tcpip-forward",
		"streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com"} {
		for _, payload := range [][]byte{nil, {0, 0, 0, 9, 'x'}, {0xff, 0xff, 0xff, 0xff}} {
			if ok, _, err := client.SendRequest(request, true, payload); ok || err != nil {
				t.Errorf("%s %x: %v %v", request, payload, ok, err)
			}
		}
	}
	if lines := b.events.all(); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}

func TestListenerBound(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	path := func(i int) any { return struct{ Path string }{fmt.Sprintf("s%d", i)} }
	for i := range maxListeners {
		if ok, _ := ask(t, client, "streamlocal-forward@openssh.com", path(i)); !ok {
			t.Fatal(i)
		}
	}
	if ok, _ := ask(t, client, "streamlocal-forward@openssh.com", path(maxListeners)); ok {
		t.Error("one too many")
	}
	// A relative path is in the working folder.
	if _, err := os.Stat(filepath.Join(b.dir, "s0")); err != nil {
		t.Error(err)
	}
	if ok, _ := ask(t, client, "cancel-streamlocal-forward@openssh.com", path(0)); !ok {
		t.Error("not cancelled")
	}
	if ok, _ := ask(t, client, "streamlocal-forward@openssh.com", path(0)); !ok {
		t.Error("no free place")
	}
	client.Close()
	b.events.wait(t, "logout 1", 1)
	entries, err := os.ReadDir(b.dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
	b.balanced(1, maxListeners+1)
}

func TestForwardingOff(t *testing.T) {
	paths := t.TempDir()
	tcp := newTarget(t, "tcp", "127.0.0.1:0", mirror)
	socket := newTarget(t, "unix", filepath.Join(paths, "t"), mirror)
	for name, test := range map[string]struct {
		off                          Forwarding
		local, remote, socket, agent bool
	}{
		"nothing": {0, true, true, true, true},
		"local":   {LocalForwarding, false, true, true, true},
		"remote":  {RemoteForwarding, true, false, true, true},
		"socket":  {SocketForwarding, true, true, false, true},
		"agent":   {AgentForwarding, true, true, true, false},
		"all":     {AllForwarding, false, false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, func(c *Config) { c.NoForwarding = test.off })
			client := b.dial()
			opens := func(kind string, data []byte) bool {
				ch, requests, err := client.OpenChannel(kind, data)
				if err == nil {
					go ssh.DiscardRequests(requests)
					ch.Close()
					return true
				}
				var open *ssh.OpenChannelError
				if !errors.As(err, &open) || open.Reason != ssh.Prohibited || open.Message != forwardingOff {
					t.Error(err)
				}
				return false
			}
			if got := opens("direct-tcpip", directTo(t, tcp.Addr().String())); got != test.local {
				t.Errorf("local: %v", got)
			}
			if got := opens("direct-streamlocal@openssh.com", ssh.Marshal(directSocketMessage{Path: socket.Addr().String()})); got != test.socket {
				t.Errorf("socket: %v", got)
			}
			if ok, _ := ask(t, client, "tcpip-forward", bindMessage{"", 0}); ok != test.remote {
				t.Errorf("remote: %v", ok)
			}
			if ok, _ := ask(t, client, "streamlocal-forward@openssh.com", struct{ Path string }{"s"}); ok != test.socket {
				t.Errorf("remote socket: %v", ok)
			}
			session := b.session(client)
			if ok, err := session.SendRequest("auth-agent-req@openssh.com", true, nil); ok != test.agent || err != nil {
				t.Errorf("agent: %v %v", ok, err)
			}
			out, err := session.Output("echo ${SSH_AUTH_SOCK:+set}")
			if got := string(out) == "set\n"; got != test.agent || err != nil {
				t.Errorf("agent: %q %v", out, err)
			}
		})
	}
}
