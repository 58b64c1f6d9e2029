//go:build linux

package sshd

import (
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// travelling is a connection that may be lost for a while.
type travelling struct {
	net.Conn
	kept atomic.Int32
	away atomic.Bool
}

func (c *travelling) Keep()          { c.kept.Add(1) }
func (c *travelling) Attached() bool { return !c.away.Load() }

// TestTravelling: a connection is told that it is worth keeping when somebody
// has logged in, and not before; and is asked whether it is there.
func TestTravelling(t *testing.T) {
	b := newBench(t, nil)
	pairs, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pairs.Close()
	open := func(auth ssh.AuthMethod) (*travelling, *ssh.Client, error) {
		near, err := net.Dial("tcp", pairs.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		far, err := pairs.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := &travelling{Conn: far}
		b.accept.Go(func() { b.server.HandleConn(c) })
		conn, channels, requests, err := ssh.NewClientConn(near, "", &ssh.ClientConfig{
			User: testUser, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: ssh.FixedHostKey(b.host.PublicKey()),
		})
		if err != nil {
			_ = near.Close()
			return c, nil, err
		}
		return c, ssh.NewClient(conn, channels, requests), nil
	}
	if c, _, err := open(ssh.Password("wrong")); err == nil || c.kept.Load() != 0 {
		t.Errorf("a stranger's connection was kept %d times, %v", c.kept.Load(), err)
	}
	c, client, err := open(ssh.PublicKeys(b.user))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if n := c.kept.Load(); n != 1 {
		t.Errorf("a user's connection was kept %d times", n)
	}
	for _, away := range []bool{false, true, false} {
		c.away.Store(away)
		if users := b.server.Users(); len(users) != 1 || users[0].Away != away {
			t.Errorf("away %v: %+v", away, users)
		}
	}
}
