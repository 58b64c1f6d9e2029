// Package resume is a stream of bytes that survives its connection: when the
// network, a relay or a server in between goes away, the client dials again,
// both ends say how far they have received, and what is missing is sent once
// more. The users of the stream see a pause. spec.md has the protocol, the
// state diagrams and the pitfalls.
//
// Client makes a stream over connections that it dials, a Hub takes the other
// ends. The Hub's end proves itself with an SSH host key; who the client is, is
// not this package's question. The stream protects its own integrity and not
// its content: what flows in it, SSH, is its own judge and its own cipher.
//
// It knows nothing of websockets, servers, ids or SSH sessions: a connection is
// a net.Conn whose bytes somebody hostile may move.
package resume
