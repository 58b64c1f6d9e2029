package rendezvous

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
)

const (
	// NonceSize is the length of a challenge's nonce in bytes.
	NonceSize     = 32
	keySize       = ed25519.PublicKeySize
	signatureSize = ed25519.SignatureSize

	// proofContext keeps the signature from meaning anything elsewhere.
	proofContext = "converge registration v1\x00"
)

// NewNonce makes a challenge's nonce.
func NewNonce() []byte {
	nonce := make([]byte, NonceSize)
	_, _ = rand.Read(nonce) // never fails: the process would end
	return nonce
}

// proofText is what a proof signs: the context, the nonce and the id.
func proofText(nonce []byte, id string) []byte {
	text := append([]byte(proofContext), nonce...)
	return append(text, id...)
}

// Prove signs a challenge for an id with the agent's run key.
func Prove(key ed25519.PrivateKey, nonce []byte, id string) *Proof {
	return &Proof{Signature: ed25519.Sign(key, proofText(nonce, id))}
}

// Verify reports whether the proof is key's answer to the nonce for the id.
func (p *Proof) Verify(key ed25519.PublicKey, nonce []byte, id string) bool {
	return len(key) == keySize && len(nonce) == NonceSize &&
		ed25519.Verify(key, proofText(nonce, id), p.Signature)
}

// CommonVersion returns the newest version that both sides speak, or a
// Refused that says which of them is too old.
func CommonVersion(h *Hello) (int, *Refused) {
	switch {
	case h.Version < MinVersion:
		return 0, &Refused{Code: RefusedVersion, Text: fmt.Sprintf(
			"this agent is too old for the server (protocol %d, the server needs %d or newer): download the agent from the server again", h.Version, MinVersion)}
	case h.MinVersion > Version:
		return 0, &Refused{Code: RefusedVersion, Text: fmt.Sprintf(
			"this agent is too new for the server (protocol %d, the server speaks %d at most): download the agent from the server, or update the server", h.MinVersion, Version)}
	}
	return min(h.Version, Version), nil
}
