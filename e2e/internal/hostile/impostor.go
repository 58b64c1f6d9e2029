package main

import (
	"crypto/ed25519"
	"fmt"
	"net"

	"golang.org/x/crypto/ssh"
)

// impostor is an SSH server with a key of its own that lets everybody in, and
// remembers what they told it.
func (r *relay) impostor() (*ssh.ServerConfig, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot make a host key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a host key: %w", err)
	}
	login := func(format string, a ...any) {
		r.note(func(s *seen) { s.Logins = append(s.Logins, fmt.Sprintf(format, a...)) })
	}
	config := &ssh.ServerConfig{
		PasswordCallback: func(c ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			login("password %s %s", c.User(), password)
			return nil, nil
		},
		PublicKeyCallback: func(c ssh.ConnMetadata, _ ssh.PublicKey) (*ssh.Permissions, error) {
			login("publickey %s", c.User())
			return nil, nil
		},
		// A client asks for this first, as soon as it believes the host key.
		AuthLogCallback: func(_ ssh.ConnMetadata, method string, _ error) {
			if method == "none" {
				r.note(func(s *seen) { s.Exchanged++ })
			}
		},
	}
	config.AddHostKey(signer)
	return config, nil
}

// serveSSH takes a client for itself, until it ends.
func (r *relay) serveSSH(conn net.Conn) {
	defer conn.Close()
	server, channels, requests, err := ssh.NewServerConn(conn, r.ssh)
	if err != nil {
		return
	}
	defer server.Close()
	go ssh.DiscardRequests(requests)
	for offer := range channels {
		channel, asked, err := offer.Accept()
		if err != nil {
			return
		}
		go func() {
			defer channel.Close()
			for request := range asked {
				_ = request.Reply(true, nil)
				if request.Type != "exec" {
					continue
				}
				var command struct{ Line string }
				_ = ssh.Unmarshal(request.Payload, &command)
				r.note(func(s *seen) { s.Commands = append(s.Commands, command.Line) })
				_, _ = fmt.Fprintln(channel, "this is not your job")
				_, _ = channel.SendRequest("exit-status", false, make([]byte, 4))
				return
			}
		}()
	}
}
