package resume

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// Every use of a key or a hash has a context of its own, so that nothing made
// for one purpose or direction is of any use for another.
const (
	contextHost         = "converge resume v1 host signature\x00"
	contextTranscript   = "converge resume v1 transcript\x00"
	contextResume       = "converge resume v1 connection\x00"
	contextClientMAC    = "converge resume v1 client resumes\x00"
	contextAgentMAC     = "converge resume v1 agent resumes\x00"
	contextClientFrames = "converge resume v1 client frames\x00"
	contextAgentFrames  = "converge resume v1 agent frames\x00"
)

const (
	macSize    = sha256.Size
	randomSize = 32
	keySize    = 32 // of X25519
	tokenSize  = 16
)

// suite is how frames are authenticated. The data is not encrypted: it is
// SSH's, and leaving that out halves the cost.
type suite byte

const (
	// suiteGMAC is AES-128-GCM over nothing but additional data.
	suiteGMAC suite = iota + 1
	// suitePoly1305 is ChaCha20-Poly1305 likewise, for CPUs without AES.
	suitePoly1305
	suiteLimit
)

// fastAES is whether this CPU has instructions for AES-GCM.
var fastAES = cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ ||
	cpu.ARM64.HasAES && cpu.ARM64.HasPMULL ||
	cpu.S390X.HasAESGCM

// new makes the suite's function from a 32-byte key.
func (s suite) new(key []byte) (cipher.AEAD, error) {
	switch s {
	case suiteGMAC:
		block, err := aes.NewCipher(key[:16])
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	case suitePoly1305:
		return chacha20poly1305.New(key)
	}
	return nil, fmt.Errorf("unknown suite %d", s)
}

// hash is SHA-256 over a context and parts, each with its length in front.
func hash(context string, parts ...[]byte) []byte {
	h := sha256.New()
	h.Write([]byte(context))
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}

// secrets are what both ends of a session know from its first handshake and
// nobody else does, if that was with the right agent.
type secrets struct {
	root                []byte // of the keys of its connections
	clientMAC, agentMAC []byte // authenticate who resumes
	suite               suite
}

// agree makes the secrets from the X25519 exchange (RFC 7748, section 6.1) and
// the transcript of the handshake, by HKDF (RFC 5869).
func agree(own *ecdh.PrivateKey, peer []byte, transcript []byte, s suite) (*secrets, error) {
	pub, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	shared, err := own.ECDH(pub) // fails if all bits are zero
	if err != nil {
		return nil, err
	}
	root, err := hkdf.Extract(sha256.New, shared, transcript)
	if err != nil {
		return nil, err
	}
	out := &secrets{root: root, suite: s}
	out.clientMAC, err = hkdf.Expand(sha256.New, root, contextClientMAC, macSize)
	if err != nil {
		return nil, err
	}
	out.agentMAC, err = hkdf.Expand(sha256.New, root, contextAgentMAC, macSize)
	return out, err
}

// connection makes the authentication of one connection's frames, the
// client's and the agent's, from the transcript of its own handshake, which
// holds fresh random bytes of both ends: no two connections share a key.
func (s *secrets) connection(transcript []byte) (client, agent *guard, err error) {
	make := func(context string) *guard {
		key, err1 := hkdf.Expand(sha256.New, s.root, context+string(transcript), 32)
		aead, err2 := s.suite.new(key)
		err = errors.Join(err, err1, err2)
		return &guard{aead: aead}
	}
	client, agent = make(contextClientFrames), make(contextAgentFrames)
	return client, agent, err
}

// mac is HMAC-SHA-256 over parts.
func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(p))))
		h.Write(p)
	}
	return h.Sum(nil)
}

// errForged is the error of a frame that the peer did not send, or not here:
// the connection is of no use any more, the stream is unharmed.
var errForged = errors.New("a relay has changed, repeated or left out a part of the stream")

// guard authenticates the frames of one direction of one connection. Their
// numbers are the nonces, so that a frame is good in its place alone. It is not
// for concurrent use.
type guard struct {
	aead  cipher.AEAD
	count uint64
	nonce [12]byte
}

func (g *guard) next() []byte {
	binary.BigEndian.PutUint64(g.nonce[4:], g.count)
	g.count++
	return g.nonce[:]
}

// seal fills in the tags of whole frames, one behind the other.
func (g *guard) seal(frames []byte) {
	for len(frames) > 0 {
		size := int(binary.BigEndian.Uint16(frames[2:])) + overhead
		body := size - tagSize
		g.aead.Seal(frames[body:body], g.next(), nil, frames[:body:body])
		frames = frames[size:]
	}
}

// verify checks the tag of one whole frame, which must be the next.
func (g *guard) verify(frame []byte) error {
	body := len(frame) - tagSize
	if _, err := g.aead.Open(nil, g.next(), frame[body:], frame[:body]); err != nil {
		return errForged
	}
	return nil
}
