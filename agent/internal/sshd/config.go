package sshd

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/keys"
)

// version is what the server calls itself (RFC 4253 §4.2).
const version = "Converge"

// userAlgorithms are those of user keys: no SHA-1, no DSA.
var userAlgorithms = []string{
	ssh.KeyAlgoED25519,
	ssh.KeyAlgoSKED25519,
	ssh.KeyAlgoSKECDSA256,
	ssh.KeyAlgoECDSA256,
	ssh.KeyAlgoECDSA384,
	ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA256,
	ssh.KeyAlgoRSASHA512,
}

// modernSigner keeps an RSA host key from signing with SHA-1.
func modernSigner(signer ssh.Signer) (ssh.Signer, error) {
	if signer.PublicKey().Type() != ssh.KeyAlgoRSA {
		return signer, nil
	}
	algorithms, ok := signer.(ssh.AlgorithmSigner)
	if !ok {
		return nil, errors.New("cannot use the RSA host key: it signs with SHA-1 only; use an Ed25519 key")
	}
	modern, err := ssh.NewSignerWithAlgorithms(algorithms,
		[]string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	if err != nil {
		return nil, fmt.Errorf("cannot use the RSA host key: %w; use an Ed25519 key", err)
	}
	return modern, nil
}

// contextKey is for what this package keeps in a connection's context.
type contextKey int

const (
	// connKey holds the *conn.
	connKey contextKey = iota
	// metadataKey holds the ssh.ConnMetadata of the handshake.
	metadataKey
	// grantKey holds, in a key's permissions, its keys.Grant.
	grantKey
)

// newSSH makes the part that gliderlabs/ssh serves for. It has no Serve, so
// that all handlers have to be set here.
func (s *Server) newSSH(hostKey ssh.Signer) *gssh.Server {
	server := &gssh.Server{
		HostSigners:          []gssh.Signer{hostKey},
		Version:              version,
		ServerConfigCallback: s.serverConfig,
		ConnCallback:         bindConn,
		ChannelHandlers:      channelHandlers,
		RequestHandlers:      requestHandlers,
	}
	// Only what was configured is offered: a method is on when its handler is
	// there. With none of them everybody would be let in, which New refuses
	// and serverConfig refuses once more.
	if !s.cfg.Keys.Empty() {
		server.PublicKeyHandler = func(ctx gssh.Context, key gssh.PublicKey) bool {
			return s.paced(ctx, s.allowsKey(ctx, key))
		}
	}
	if s.cfg.Password != "" {
		server.PasswordHandler = func(ctx gssh.Context, password string) bool {
			return s.paced(ctx, s.allowsPassword(ctx, password))
		}
	}
	return server
}

// serverConfig is the configuration of one connection. Host key, version and
// handlers are added to it by the library, which holds its lock meanwhile:
// nothing here may wait.
func (s *Server) serverConfig(ctx gssh.Context) *ssh.ServerConfig {
	c := ctx.Value(connKey).(*conn)
	cfg := &ssh.ServerConfig{
		MaxAuthTries:            maxAuthTries,
		PublicKeyAuthAlgorithms: userAlgorithms,
		// This is asked only if the library should ever turn the method
		// "none" on.
		NoClientAuthCallback: func(ssh.ConnMetadata) (*ssh.Permissions, error) {
			return nil, errors.New("permission denied")
		},
		// The library remembers the first user name that a connection
		// tries; a client may change it between attempts.
		PreAuthConnCallback: func(m ssh.ServerPreAuthConn) {
			ctx.SetValue(metadataKey, ssh.ConnMetadata(m))
		},
		VerifiedPublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey, p *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			c.info.KeyFingerprint = fingerprint(key)
			// What was granted to another key that this connection has tried
			// does not count.
			grant, ok := p.ExtraData[grantKey].(keys.Grant)
			if !ok {
				return nil, errors.New("permission denied")
			}
			c.grant = grant
			return p, nil
		},
		AuthLogCallback: func(m ssh.ConnMetadata, method string, err error) {
			switch {
			case err == nil:
				s.login(c, ctx, m.User())
			case method != "none":
				s.log.Info("a login attempt was refused", "method", method,
					"user", clip(m.User()), "session", c.info.Session, "remote", c.info.Remote)
			}
		},
	}
	cfg.KeyExchanges, cfg.Ciphers, cfg.MACs = c.offer.kex, c.offer.ciphers, c.offer.macs
	return cfg
}

// bindConn makes the connection known to its context.
func bindConn(ctx gssh.Context, nc net.Conn) net.Conn {
	c := nc.(*conn)
	ctx.SetValue(connKey, c)
	return c
}

// allowsKey says whether a key may log in. Whether the client has its private
// half is verified afterwards.
func (s *Server) allowsKey(ctx gssh.Context, key gssh.PublicKey) bool {
	// Both are always looked at: a wrong user looks like a wrong key.
	grant, ok := s.cfg.Keys.Grant(s.cfg.User, key)
	p := &ssh.Permissions{ExtraData: map[any]any{grantKey: grant}}
	if grant.NoTouch {
		p.Extensions = map[string]string{"no-touch-required": ""} // for x/crypto
	}
	// The library hands on what is in the context at that moment, so that each
	// key has permissions of its own.
	ctx.SetValue(gssh.ContextKeyPermissions, &gssh.Permissions{Permissions: p})
	return s.isUser(ctx)&bit(ok) == 1
}

// fingerprint is that of the key, also where it came in a certificate.
func fingerprint(key ssh.PublicKey) string {
	if cert, ok := key.(*ssh.Certificate); ok {
		key = cert.Key
	}
	return ssh.FingerprintSHA256(key)
}

// allowsPassword says whether a password may log in.
func (s *Server) allowsPassword(ctx gssh.Context, password string) bool {
	sum := sha256.Sum256([]byte(password))
	return s.isUser(ctx)&subtle.ConstantTimeCompare(sum[:], s.password[:]) == 1
}

// isUser is 1 if the user name of the current attempt may log in, else 0.
func (s *Server) isUser(ctx gssh.Context) int {
	m, ok := ctx.Value(metadataKey).(ssh.ConnMetadata)
	if !ok {
		return 0
	}
	sum := sha256.Sum256([]byte(m.User()))
	return subtle.ConstantTimeCompare(sum[:], s.user[:])
}

// bit is 1 for true.
func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// clip bounds what a stranger can put in the log.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
