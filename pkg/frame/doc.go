// Package frame is the data path of a websocket (RFC 6455): one end of a
// connection as a net.Conn (Conn, made by Dial, Client or Server), and the
// pump that joins two clients in a server (Accept, Relay). It takes binary
// messages only, as a stream of bytes whose message borders mean nothing, and
// negotiates no extensions.
//
// spec.md says what is accepted and refused, with which close code, and why.
//
// It holds as little as it can: payload is unmasked where it was read and
// written on from there, and nothing is allocated for what a peer announces.
//
// It knows nothing of ids, registration, SSH or what the bytes mean.
package frame
