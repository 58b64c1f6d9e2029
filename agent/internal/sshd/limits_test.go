//go:build linux

package sshd

import (
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// A connection that never logs in is closed, whether it is silent or keeps
// talking.
func TestLoginTimeout(t *testing.T) {
	b := newBench(t, func(c *Config) { c.LoginTimeout = 100 * time.Millisecond })
	silent, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	if _, err := io.Copy(io.Discard, silent); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("silent: %v", err) // a reset is an end as well
	}
	_, err = b.tryDial(testUser, ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
		watchtest.Eventually(t, "the end of the connection", func() bool {
			b.server.mu.Lock()
			defer b.server.mu.Unlock()
			return len(b.server.conns) == 0
		})
		return testPassword, nil
	}), 2))
	if err == nil {
		t.Error("the login came through after its time")
	}
	if lines := b.events.all(); len(lines) != 0 {
		t.Errorf("events: %q", lines)
	}
}

// One that has logged in in time stays.
func TestLoginTimeoutSparesUsers(t *testing.T) {
	b := newBench(t, func(c *Config) { c.LoginTimeout = 3 * time.Second })
	client := b.dial()
	other, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	// The later one is cut; by then the time of the earlier one is over too.
	_, _ = io.Copy(io.Discard, other)
	if out, err := b.session(client).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("%q %v", out, err)
	}
}

func TestPendingBound(t *testing.T) {
	b := newBench(t, nil)
	var open []net.Conn
	defer func() {
		for _, nc := range open {
			nc.Close()
		}
	}()
	hello := make([]byte, 3)
	for range maxPending {
		nc, err := net.Dial("tcp", "127.0.0.1:"+b.port)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, nc)
		if _, err := io.ReadFull(nc, hello); err != nil {
			t.Fatal(err)
		}
	}
	extra, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	if _, err := io.ReadFull(extra, hello); err == nil {
		t.Error("one too many is served")
	}
	open[0].Close()
	watchtest.Eventually(t, "a free place", func() bool {
		client, err := b.tryDial(testUser)
		if err != nil {
			return false
		}
		client.Close()
		return true
	})
	// Those who have logged in do not count.
	if !slices.Contains(b.events.all(), "login "+lastID(b)) {
		t.Error("no login")
	}
}

// Somebody who has connected and says nothing, or too little, keeps nobody
// else waiting: others log in, work and leave.
func TestSilentClients(t *testing.T) {
	b := newBench(t, func(c *Config) { c.LoginTimeout = time.Hour })
	for _, said := range []string{"", "SSH-2.0-Slow", "SSH-2.0-Slow\r\n", "SSH-2.0-Slow\r\n\x00\x00"} {
		silent, err := net.Dial("tcp", "127.0.0.1:"+b.port)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		if _, err := io.WriteString(silent, said); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(silent, make([]byte, 3)); err != nil { // it is being served
			t.Fatal(err)
		}
		for range 2 {
			if out, errs, code := run(t, b.ssh("echo here")); out != "here\n" || code != 0 {
				t.Fatalf("after %q: %q, %q, exit code %d", said, out, errs, code)
			}
		}
	}
}

// lastID is the number of the latest connection.
func lastID(b *bench) string {
	for _, line := range slices.Backward(b.events.all()) {
		if id, ok := strings.CutPrefix(line, "login "); ok {
			return id
		}
	}
	return "?"
}
