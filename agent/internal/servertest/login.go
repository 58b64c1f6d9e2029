package servertest

import (
	"context"

	"golang.org/x/crypto/ssh"
)

// Login brings a client to the agent and logs in as it. To close the result is
// the caller's.
func (s *Server) Login(ctx context.Context, c *Control, remote string, cfg *ssh.ClientConfig) (*ssh.Client, error) {
	data, err := s.Visit(ctx, c, remote)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = data.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewClientConn(data, remote, cfg)
	if err != nil {
		_ = data.Close()
		return nil, err
	}
	return ssh.NewClient(conn, channels, requests), nil
}
