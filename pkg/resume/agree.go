package resume

import (
	"context"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/pin"
)

// minRSA is the shortest RSA host key that a client accepts, in bits.
const minRSA = 2048

// session is what a first handshake yields.
type session struct {
	secret        *secrets
	client, agent *guard // of the first connection
	token         [tokenSize]byte
	window        time.Duration // the agent's
	peerBuffer    int
}

func newSession(secret *secrets, transcript []byte, token [tokenSize]byte, window time.Duration, peerBuffer int) (*session, error) {
	client, agent, err := secret.connection(transcript)
	return &session{secret, client, agent, token, window, peerBuffer}, err
}

// newKey makes an ephemeral key.
func newKey() (*ecdh.PrivateKey, [keySize]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, [keySize]byte{}, err
	}
	return key, [keySize]byte(key.PublicKey().Bytes()), nil
}

// greet is the client's side of a first handshake. The zero pin accepts any
// agent.
func greet(ctx context.Context, conn net.Conn, buffer int, want pin.Pin) (*session, error) {
	defer interruptible(ctx, conn)()
	key, public, err := newKey()
	if err != nil {
		return nil, err
	}
	h := hello{min: version, max: version, fastAES: fastAES, buffer: uint32(buffer), key: public}
	_, _ = rand.Read(h.random[:]) // never fails: the process would end
	sent := h.encode()
	if _, err := conn.Write(encode(msgHello, sent)); err != nil {
		return nil, err
	}
	body, err := answer(conn, msgWelcome)
	if err != nil {
		return nil, err
	}
	w, err := parseWelcome(body)
	switch {
	case err != nil:
		return nil, err
	case w.version != version:
		return nil, ErrVersion
	}
	transcript := hash(contextTranscript, sent, w.signed())
	if err := verifyHost(&w, transcript, want); err != nil {
		return nil, err
	}
	peerBuffer, err := checkPeerBuffer(w.buffer)
	if err != nil {
		return nil, err
	}
	secret, err := agree(key, w.key[:], transcript, w.suite)
	if err != nil {
		return nil, err
	}
	return newSession(secret, transcript, w.token, time.Duration(w.window)*time.Second, peerBuffer)
}

// interruptible bounds a client's handshake by handshakeWait and a context.
func interruptible(ctx context.Context, conn net.Conn) (done func()) {
	clear := bound(conn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	return func() {
		if stop() {
			clear()
		}
	}
}

// answer reads the agent's message of the kind that is wanted.
func answer(conn net.Conn, want messageType) ([]byte, error) {
	kind, body, err := readMessage(conn)
	switch {
	case err != nil:
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	case kind == want:
		return body, nil
	case kind != msgRefused:
		return nil, fmt.Errorf("%w: message %d in place of %d", errPreface, kind, want)
	}
	reason, err := parseRefusal(body)
	switch {
	case err != nil:
		return nil, err
	case reason == refusedVersion:
		return nil, ErrVersion
	case reason == refusedFull:
		return nil, ErrFull
	}
	return nil, ErrGone
}

// welcomeClient is the agent's side of a first handshake, up to the message
// that it sends.
func welcomeClient(body []byte, signer ssh.Signer, window time.Duration, buffer int) (*session, []byte, error) {
	h, err := parseHello(body)
	if err != nil {
		return nil, nil, err
	}
	if h.min > version || h.max < version {
		return nil, encode(msgRefused, []byte{byte(refusedVersion)}), ErrVersion
	}
	peerBuffer, err := checkPeerBuffer(h.buffer)
	if err != nil {
		return nil, nil, err
	}
	key, public, err := newKey()
	if err != nil {
		return nil, nil, err
	}
	w := welcome{
		version: version, suite: suitePoly1305, window: seconds(window), buffer: uint32(buffer),
		key: public, hostKey: signer.PublicKey().Marshal(),
	}
	if fastAES && h.fastAES {
		w.suite = suiteGMAC
	}
	_, _ = rand.Read(w.random[:])
	_, _ = rand.Read(w.token[:])
	transcript := hash(contextTranscript, body, w.signed())
	signature, err := sign(signer, transcript)
	if err != nil {
		return nil, nil, err
	}
	w.signature = ssh.Marshal(signature)
	secret, err := agree(key, h.key[:], transcript, w.suite)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errPreface, err)
	}
	s, err := newSession(secret, transcript, w.token, window, peerBuffer)
	return s, encode(msgWelcome, w.encode()), err
}

// seconds rounds up.
func seconds(d time.Duration) uint32 {
	return uint32(min((d+time.Second-1)/time.Second, math.MaxUint32))
}

// sign signs a transcript with the host key, under this protocol's context, so
// that it means nothing in SSH, which signs bare hashes with that key, and
// nothing that SSH signs means anything here.
func sign(signer ssh.Signer, transcript []byte) (*ssh.Signature, error) {
	text := append([]byte(contextHost), transcript...)
	var signature *ssh.Signature
	var err error
	algorithms, ok := signer.(ssh.AlgorithmSigner)
	switch {
	case signer.PublicKey().Type() != ssh.KeyAlgoRSA:
		signature, err = signer.Sign(rand.Reader, text)
	case ok:
		signature, err = algorithms.SignWithAlgorithm(rand.Reader, text, ssh.KeyAlgoRSASHA512)
	default:
		err = errors.New("an RSA key that signs with SHA-1 only: use an Ed25519 key")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot sign with the host key: %w", err)
	}
	return signature, nil
}

// verifyHost checks the welcome's signature, and its key against the pin.
func verifyHost(w *welcome, transcript []byte, want pin.Pin) error {
	key, err := ssh.ParsePublicKey(w.hostKey)
	if err != nil {
		return fmt.Errorf("%w: unreadable host key", errPreface)
	}
	if !want.IsZero() && !want.Matches(key) {
		return ErrPin
	}
	if !acceptable(key) {
		return fmt.Errorf("%w: a host key of type %q that is too weak or of no use", errPreface, key.Type())
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(w.signature, &signature); err != nil || len(signature.Rest) > 0 {
		return ErrSignature
	}
	if signature.Format == ssh.KeyAlgoRSA { // SHA-1
		return ErrSignature
	}
	if err := key.Verify(append([]byte(contextHost), transcript...), &signature); err != nil {
		return ErrSignature
	}
	return nil
}

// acceptable leaves certificates, security tokens and short keys out.
func acceptable(key ssh.PublicKey) bool {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return true
	case ssh.KeyAlgoRSA:
		c, ok := key.(ssh.CryptoPublicKey)
		if !ok {
			return false
		}
		k, ok := c.CryptoPublicKey().(*rsa.PublicKey)
		return ok && k.N.BitLen() >= minRSA
	}
	return false
}

// goOn is the client's side of the handshake of a resumed connection. It
// returns the offset up to which the agent has received.
func goOn(ctx context.Context, conn net.Conn, secret *secrets, token [tokenSize]byte, attempt, received uint64) (client, agent *guard, peer uint64, err error) {
	defer interruptible(ctx, conn)()
	m := resumption{version: version, token: token, attempt: attempt, received: received}
	_, _ = rand.Read(m.random[:])
	m.mac = [macSize]byte(mac(secret.clientMAC, m.signed()))
	sent := m.encode()
	if _, err := conn.Write(encode(msgResume, sent)); err != nil {
		return nil, nil, 0, err
	}
	body, err := answer(conn, msgResumed)
	if err != nil {
		return nil, nil, 0, err
	}
	r, err := parseResumed(body)
	if err != nil {
		return nil, nil, 0, err
	}
	if !hmac.Equal(r.mac[:], mac(secret.agentMAC, sent, r.signed())) {
		return nil, nil, 0, errForged
	}
	client, agent, err = secret.connection(hash(contextResume, sent, body))
	return client, agent, r.received, err
}

// authentic reports whether a resumption is from the session's client. Whether
// it was used already is the counter's question.
func (m *resumption) authentic(secret *secrets) bool {
	return hmac.Equal(m.mac[:], mac(secret.clientMAC, m.signed()))
}

// confirm is the agent's answer to an authentic resumption.
func confirm(secret *secrets, request []byte, received uint64) (client, agent *guard, message []byte, err error) {
	r := resumed{received: received}
	_, _ = rand.Read(r.random[:])
	r.mac = [macSize]byte(mac(secret.agentMAC, request, r.signed()))
	body := r.encode()
	client, agent, err = secret.connection(hash(contextResume, request, body))
	return client, agent, encode(msgResumed, body), err
}
