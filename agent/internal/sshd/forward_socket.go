package sshd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"
)

// socketPath makes a path absolute. A relative one starts where commands and
// SFTP do; in no case is it a name in Linux's abstract namespace.
func (s *Server) socketPath(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	if s.cfg.Dir != "" {
		return filepath.Join(s.cfg.Dir, path)
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return filepath.Join(string(filepath.Separator), path)
}

// dialSocket connects to the target of a direct-streamlocal@openssh.com
// channel.
func dialSocket(c *conn, ctx gssh.Context, data []byte) (duplex, error) {
	path, err := parseDirectSocket(data)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: c.server.dialTimeout}
	nc, err := dialer.DialContext(ctx, "unix", c.server.socketPath(path))
	if err != nil {
		return nil, err
	}
	return nc.(*net.UnixConn), nil
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
		l, err := listenSocket(c.server.socketPath(path))
		return &listener{nets: []net.Listener{l}}, socketName(path), err
	}
	serve := func(nc duplex) {
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
		dir, err := privateDir()
		if err != nil {
			return nil, "", err
		}
		path = filepath.Join(dir, "agent")
		l, err := listenSocket(path)
		if err != nil {
			_ = os.RemoveAll(dir)
			return nil, "", err
		}
		return &listener{
			nets:   []net.Listener{l},
			remove: func() { _ = os.RemoveAll(dir) },
		}, agentName, nil
	}
	serve := func(nc duplex) { c.forwardIn(peer, "auth-agent@openssh.com", nil, nc, false) }
	if _, err := c.listen(open, nil, serve); err != nil {
		return "", err
	}
	c.agent.path = path
	return path, nil
}

// privateDir makes a folder that is nobody else's, with a path that is short
// enough for a socket in it.
func privateDir() (string, error) {
	// 104 bytes, with their end, are the least of our platforms.
	const most = 103 - len("/converge-0123456789/agent")
	var errs []error
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if !filepath.IsAbs(parent) || len(parent) > most {
			continue
		}
		dir, err := os.MkdirTemp(parent, "converge-") // 0700
		if err == nil {
			return dir, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(append(errs, errors.New("no folder for a socket: set TMPDIR to a short path"))...)
}

// requestAgent answers auth-agent-req@openssh.com.
func (s *session) requestAgent(payload []byte) bool {
	if len(payload) != 0 || !hasAgents || !s.conn.forwardsKind(AgentForwarding) || s.started() {
		return false
	}
	path, err := s.conn.shareAgent(s.peer)
	if err != nil {
		s.server.log.Warn("a key agent cannot be shared", "id", s.conn.info.ID, "err", err)
		return false
	}
	s.agentSocket = path
	return true
}
