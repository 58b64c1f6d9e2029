package sshd

import (
	"context"
	"errors"
	"sync"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/backend"
)

// dialSocket connects to the target of a direct-streamlocal@openssh.com
// channel.
func dialSocket(c *conn, ctx context.Context, data []byte) (backend.Conn, error) {
	path, err := parseDirectSocket(data)
	if err != nil {
		return nil, err
	}
	return c.place.Dial(ctx, "unix", path)
}

// startSocket serves streamlocal-forward@openssh.com.
func startSocket(ctx gssh.Context, _ *gssh.Server, req *ssh.Request) (bool, []byte) {
	c := ctx.Value(connKey).(*conn)
	peer, ok := ctx.Value(gssh.ContextKeyConn).(ssh.Conn)
	path, err := parseSocket(req.Payload)
	if err != nil || !ok || !c.forwardsKind(SocketForwarding) {
		return refuseRequest(ctx, nil, req)
	}
	open := func() (*listener, string, error) {
		nets, err := c.place.Listen(c.alive, "unix", path)
		return &listener{nets: nets}, socketName(path), err
	}
	serve := func(nc backend.Conn) {
		c.forwardIn(peer, "forwarded-streamlocal@openssh.com", forwardedSocket(path), nc, true)
	}
	return c.startListening(ctx, req, open, func() { answerNow(req, nil) }, serve)
}

// stopSocket serves cancel-streamlocal-forward@openssh.com.
func stopSocket(ctx gssh.Context, _ *gssh.Server, req *ssh.Request) (bool, []byte) {
	path, err := parseSocket(req.Payload)
	if err != nil || !ctx.Value(connKey).(*conn).unlisten(socketName(path)) {
		return refuseRequest(ctx, nil, req)
	}
	return true, nil
}

func socketName(path string) string { return "unix " + path }

// agentName is what a connection's agent socket is known by.
const agentName = "agent"

// sharedAgent is a connection's way to the key agent of its client.
type sharedAgent struct {
	sync.Mutex
	path string // of the socket, "" before it is made
}

// shareAgent returns the path of the socket that leads to the key agent of the
// connection's client. There is one for the connection, from the first session
// that asks for it to the connection's end, as in OpenSSH: what a session
// leaves in tmux goes on to work.
func (c *conn) shareAgent(peer ssh.Conn) (path string, err error) {
	c.agent.Lock()
	defer c.agent.Unlock()
	if c.agent.path != "" {
		return c.agent.path, nil
	}
	open := func() (*listener, string, error) {
		var l backend.Listener
		var err error
		l, path, err = c.place.ListenAgent(c.alive)
		return &listener{nets: []backend.Listener{l}}, agentName, err
	}
	serve := func(nc backend.Conn) { c.forwardIn(peer, "auth-agent@openssh.com", nil, nc, false) }
	if _, err := c.listen(open, nil, serve); err != nil {
		return "", err
	}
	c.agent.path = path
	return path, nil
}

// requestAgent answers auth-agent-req@openssh.com.
func (s *session) requestAgent(payload []byte) bool {
	if len(payload) != 0 || !s.conn.forwardsKind(AgentForwarding) || s.started() {
		return false
	}
	path, err := s.conn.shareAgent(s.peer)
	if errors.Is(err, backend.ErrUnsupported) {
		s.server.log.Debug("there is no place for a key agent", "id", s.conn.info.ID, "err", err)
		return false
	}
	if err != nil {
		s.server.log.Warn("a key agent cannot be shared", "id", s.conn.info.ID, "err", err)
		return false
	}
	s.agentSocket = path
	return true
}
