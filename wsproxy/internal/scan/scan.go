// Package scan asks an SSH server for its host key, as ssh-keyscan does, over
// any connection. It neither logs in nor decides whether the key is the right
// one.
package scan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"
)

// wait bounds the key exchange, in case ctx does not.
const wait = 30 * time.Second

// HostKey returns the host key of the server at the other end, which has proved
// that it holds it, and closes the connection.
func HostKey(ctx context.Context, conn net.Conn) (ssh.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	var key ssh.PublicKey
	enough := errors.New("that is all that was asked")
	_, _, _, err := ssh.NewClientConn(conn, "agent", &ssh.ClientConfig{
		User: "wsproxy",
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			key = k
			return enough
		},
	})
	switch {
	case key != nil:
		return key, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil:
		err = errors.New("it showed none")
	}
	return nil, fmt.Errorf("cannot ask the agent for its host key: %w", err)
}
