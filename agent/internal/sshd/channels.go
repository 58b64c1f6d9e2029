package sshd

import (
	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"
)

// channelHandlers are the kinds of channels that a client may ask for (RFC
// 4254 §5.1).
var channelHandlers = map[string]gssh.ChannelHandler{
	"session":                        handleSession,
	"direct-tcpip":                   forwardOut(LocalForwarding, dialTCP),
	"direct-streamlocal@openssh.com": forwardOut(SocketForwarding, dialSocket),
	"tun@openssh.com":                refuse("this agent has no tunnels"),
	"default":                        refuseUnknown,
}

// requestHandlers are the requests that concern a whole connection (RFC 4254
// §4). A refusal carries no text in the protocol; it is logged.
var requestHandlers = map[string]gssh.RequestHandler{
	"keepalive@openssh.com":                  answerKeepAlive,
	"tcpip-forward":                          startForward,
	"cancel-tcpip-forward":                   stopForward,
	"streamlocal-forward@openssh.com":        startSocket,
	"cancel-streamlocal-forward@openssh.com": stopSocket,
	"default":                                refuseRequest,
}

// refuse makes a handler that says why there is no such channel.
func refuse(reason string) gssh.ChannelHandler {
	return func(_ *gssh.Server, _ *ssh.ServerConn, channel ssh.NewChannel, _ gssh.Context) {
		// An error means that the connection is gone.
		_ = channel.Reject(ssh.Prohibited, reason)
	}
}

func refuseUnknown(_ *gssh.Server, _ *ssh.ServerConn, channel ssh.NewChannel, _ gssh.Context) {
	_ = channel.Reject(ssh.UnknownChannelType, "this agent has no channels of this type")
}

// answerKeepAlive answers; that is all that the client wants to know.
func answerKeepAlive(gssh.Context, *gssh.Server, *ssh.Request) (bool, []byte) {
	return true, nil
}

func refuseRequest(ctx gssh.Context, _ *gssh.Server, req *ssh.Request) (bool, []byte) {
	c := ctx.Value(connKey).(*conn)
	c.server.log.Debug("a request was refused", "user", c.info.ID, "request", clip(req.Type))
	return false, nil
}

// handleSession serves a session channel until it is closed.
func handleSession(_ *gssh.Server, peer *ssh.ServerConn, channel ssh.NewChannel, ctx gssh.Context) {
	c := ctx.Value(connKey).(*conn)
	s := newSession(c)
	s.peer = peer
	switch c.enter(s) {
	case entryEnded:
		_ = channel.Reject(ssh.ResourceShortage, "this agent is ending")
		return
	case entryFull:
		_ = channel.Reject(ssh.ResourceShortage,
			"too many sessions on this connection: close one, or connect once more")
		return
	case entryOpen:
	}
	defer c.leave(s)
	ch, requests, err := channel.Accept()
	if err != nil {
		return
	}
	s.serve(ch, requests)
}
