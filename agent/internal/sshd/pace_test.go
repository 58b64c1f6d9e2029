//go:build linux

package sshd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestPace(t *testing.T) {
	var p pace
	now := time.Now()
	for range freeFailures {
		if wait := p.wait(now); wait > 0 {
			t.Fatalf("a free one waits %s", wait)
		}
	}
	for i := range 3 {
		if got, want := p.wait(now), time.Duration(i+1)*failureEvery; got != want {
			t.Errorf("%d: %s, want %s", i, got, want)
		}
	}
	now = now.Add(4 * failureEvery)
	if got := p.wait(now); got != 0 {
		t.Errorf("later: %s", got)
	}
	now = now.Add(time.Hour)
	for range freeFailures {
		if wait := p.wait(now); wait > 0 {
			t.Fatalf("after an hour one waits %s", wait)
		}
	}
}

// Failures of all connections are slowed down together; who has the right key
// or password is not, and a shutdown does not wait for those who wait.
func TestFailuresAreSlowedDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, _ := newSigner(t)
		server, err := New(Config{User: testUser, HostKey: host, Password: testPassword, Shell: "/bin/sh"})
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		login := func(method ssh.AuthMethod) (*ssh.Client, error) {
			near, far := wires()
			served.Go(func() { server.HandleConn(far) })
			conn, channels, requests, err := ssh.NewClientConn(near, "", &ssh.ClientConfig{
				User: testUser, Auth: []ssh.AuthMethod{method}, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
			})
			if err != nil {
				return nil, err
			}
			return ssh.NewClient(conn, channels, requests), nil
		}
		wrong := func() ssh.AuthMethod {
			return ssh.RetryableAuthMethod(ssh.Password("wrong"), maxAuthTries)
		}
		start := time.Now()
		for range freeFailures / maxAuthTries {
			if _, err := login(wrong()); err == nil {
				t.Fatal("a wrong password lets in")
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the free failures took %s", took)
		}
		var attackers sync.WaitGroup
		for range 2 {
			attackers.Go(func() { _, _ = login(wrong()) })
		}
		synctest.Wait()
		client, err := login(ssh.Password(testPassword))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the right password took %s", took)
		}
		attackers.Wait()
		if took, want := time.Since(start), 2*maxAuthTries*failureEvery; took != want {
			t.Errorf("the others took %s, want %s", took, want)
		}
		client.Close()

		attackers.Go(func() { _, _ = login(wrong()) })
		synctest.Wait()
		before := time.Now()
		if err := server.Shutdown(context.Background(), ""); err != nil {
			t.Error(err)
		}
		if took := time.Since(before); took >= failureEvery {
			t.Errorf("the shutdown took %s", took)
		}
		attackers.Wait()
		served.Wait()
	})
}

// wire is one direction of a connection within the process. Unlike net.Pipe's
// it has a buffer: both ends of SSH begin with writing.
type wire struct {
	mu     sync.Mutex
	change sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newWire() *wire {
	w := &wire{}
	w.change.L = &w.mu
	return w
}

func (w *wire) Read(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.buf.Len() == 0 && !w.closed {
		w.change.Wait()
	}
	return w.buf.Read(p)
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return 0, io.ErrClosedPipe
	}
	w.change.Broadcast()
	return w.buf.Write(p)
}

func (w *wire) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.change.Broadcast()
	return nil
}

// wired is one end of two wires.
type wired struct {
	net.Conn // addresses and deadlines, of which there are none
	in, out  *wire
}

func wires() (net.Conn, net.Conn) {
	a, b := newWire(), newWire()
	none, _ := net.Pipe()
	return wired{none, a, b}, wired{none, b, a}
}

func (w wired) Read(p []byte) (int, error)  { return w.in.Read(p) }
func (w wired) Write(p []byte) (int, error) { return w.out.Write(p) }
func (w wired) Close() error                { return errors.Join(w.in.Close(), w.out.Close()) }
