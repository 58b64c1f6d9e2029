package link

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"

	"example.com/converge/pkg/rendezvous"
	"example.com/converge/pkg/transport"
)

// handshake is the header of a registration: with a credential it also names
// the run key, to which the server binds it. That key stands for the credential
// when the agent comes back, by when a CI system may give no more of them.
func (l *Link) handshake(ctx context.Context) (http.Header, error) {
	if l.cfg.Credential == nil {
		return l.cfg.Header, nil
	}
	header := l.cfg.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	public, _ := l.key.Public().(ed25519.PublicKey)
	header.Set(rendezvous.KeyHeader, base64.RawURLEncoding.EncodeToString(public))
	token, err := l.cfg.Credential(ctx)
	switch {
	case err == nil:
		header.Set("Authorization", "Bearer "+token)
	case !l.ever:
		return nil, fmt.Errorf("cannot show the server what job this is: %w", err)
	default:
		l.log.Warn("no fresh OIDC token: the run key must do", "err", err)
	}
	return header, nil
}

// unwelcome reports whether a server refuses the agent itself, now and later.
func unwelcome(err error) bool {
	var refused *transport.RefusedError
	return errors.As(err, &refused) && (refused.Status == http.StatusUnauthorized || refused.Status == http.StatusForbidden)
}
