//go:build !windows

package announce

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// TestPin has the real ssh take the agent's host key by the line, and refuse
// another one under the same name.
func TestPin(t *testing.T) {
	for _, kind := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSA} {
		t.Run(kind, func(t *testing.T) {
			signer := newSigner(t, kind)
			host, port, err := net.SplitHostPort(serve(t, signer))
			if err != nil {
				t.Fatal(err)
			}
			home := t.TempDir()
			wsproxy := filepath.Join(home, "wsproxy")
			install(t, wsproxy, fmt.Sprintf("#!/bin/sh\nexec socat - TCP:%s:%s\n", host, port))
			enter := func(key ssh.PublicKey) (string, error) {
				a := Access{
					Server: example(t).Server, ID: "job", User: "abc", HostKey: key, Wsproxy: wsproxy,
					Options: []string{"-Fnone", "-oBatchMode=yes", "-oIdentityFile=none"},
				}
				return run(t, "sh", a.SSH()+" true", home)
			}
			if out, err := enter(signer.PublicKey()); err != nil {
				t.Errorf("the agent's own key is refused: %v\n%s", err, out)
			}
			out, err := enter(newSigner(t, kind).PublicKey())
			if err == nil || !strings.Contains(out, "Host key verification failed") {
				t.Errorf("another key is taken: %v\n%s", err, out)
			}
		})
	}
}

// serve runs an SSH server that lets everybody in and says that each command
// went well. It returns its address.
func serve(t *testing.T, signer ssh.Signer) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &ssh.ServerConfig{NoClientAuth: true}
	cfg.AddHostKey(signer)
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	t.Cleanup(func() { _ = l.Close() })
	running.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer nc.Close()
				conn, channels, requests, err := ssh.NewServerConn(nc, cfg)
				if err != nil {
					return
				}
				running.Go(func() { ssh.DiscardRequests(requests) })
				for channel := range channels {
					succeed(t, channel)
				}
				_ = conn.Close()
			})
		}
	})
	return l.Addr().String()
}

// succeed answers a session's command with exit status 0.
func succeed(t *testing.T, offered ssh.NewChannel) {
	channel, requests, err := offered.Accept()
	if err != nil {
		return
	}
	for r := range requests {
		if r.WantReply {
			_ = r.Reply(true, nil)
		}
		if r.Type != "exec" {
			continue
		}
		if _, err := channel.SendRequest("exit-status", false, make([]byte, 4)); err != nil {
			t.Error(err)
		}
		_ = channel.Close()
	}
}
