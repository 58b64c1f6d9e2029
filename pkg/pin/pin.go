// Package pin is how a person's copy of an agent's SSH host key is written in
// the fragment of a client URL: short, and checked by a program. It knows
// nothing of URLs, connections or known_hosts files.
package pin

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// prefix starts a pin that is a fingerprint. ssh-keygen prints it in capitals,
// which Parse takes as well.
const prefix = "sha256:"

// ErrInvalid is wrapped by every error of Parse.
var ErrInvalid = errors.New("invalid pin")

// Pin is one host key, or the fingerprint of one. The zero value is no pin and
// matches nothing. Pins are comparable, but a key and its fingerprint are two
// different ones.
type Pin struct {
	kind kind
	sum  [sha256.Size]byte // an Ed25519 key or a SHA-256: both have 32 bytes
}

type kind byte

const (
	none kind = iota
	key
	fingerprint
)

// Parse reads what String writes: the 43 characters of an Ed25519 key, or
// sha256: and the 43 characters of a fingerprint as OpenSSH prints it.
func Parse(s string) (Pin, error) {
	p := Pin{kind: key}
	encoding := base64.RawURLEncoding
	if len(s) > len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		s, p.kind, encoding = s[len(prefix):], fingerprint, base64.RawStdEncoding
	}
	// Strict: one pin has one spelling, line breaks are none.
	decoded, err := encoding.Strict().DecodeString(s)
	if err != nil || len(decoded) != len(p.sum) || strings.ContainsAny(s, "\r\n") {
		return Pin{}, fmt.Errorf("%w: it must be the 43 characters of the agent's Ed25519 key, or %s and a fingerprint: copy the whole URL that the agent printed", ErrInvalid, prefix)
	}
	copy(p.sum[:], decoded)
	return p, nil
}

// Of is the pin of a host key: the key itself if it is an Ed25519 key, else
// its fingerprint.
func Of(k ssh.PublicKey) Pin {
	if raw, ok := ed25519Key(k); ok {
		return Pin{kind: key, sum: [32]byte(raw)}
	}
	return Pin{kind: fingerprint, sum: sha256.Sum256(k.Marshal())}
}

// IsZero reports whether p is no pin.
func (p Pin) IsZero() bool { return p.kind == none }

// String is the pin as it stands in a URL's fragment; empty for none.
func (p Pin) String() string {
	switch p.kind {
	case key:
		return base64.RawURLEncoding.EncodeToString(p.sum[:])
	case fingerprint:
		return prefix + base64.RawStdEncoding.EncodeToString(p.sum[:])
	}
	return ""
}

// Key is the pinned key, if the pin is one and not the fingerprint of one.
func (p Pin) Key() (ssh.PublicKey, bool) {
	if p.kind != key {
		return nil, false
	}
	k, err := ssh.NewPublicKey(ed25519.PublicKey(p.sum[:]))
	return k, err == nil
}

// Matches reports whether k is the pinned key. A fingerprint is one of a key
// of any type.
func (p Pin) Matches(k ssh.PublicKey) bool {
	switch p.kind {
	case key:
		raw, ok := ed25519Key(k)
		return ok && subtle.ConstantTimeCompare(p.sum[:], raw) == 1
	case fingerprint:
		sum := sha256.Sum256(k.Marshal())
		return subtle.ConstantTimeCompare(p.sum[:], sum[:]) == 1
	}
	return false
}

// ed25519Key returns the 32 bytes of a plain Ed25519 key. A certificate and a
// key of a security token are other types.
func ed25519Key(k ssh.PublicKey) (ed25519.PublicKey, bool) {
	c, ok := k.(ssh.CryptoPublicKey)
	if !ok || k.Type() != ssh.KeyAlgoED25519 {
		return nil, false
	}
	raw, ok := c.CryptoPublicKey().(ed25519.PublicKey)
	return raw, ok && len(raw) == ed25519.PublicKeySize
}
