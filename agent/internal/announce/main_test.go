package announce

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/rendezvous"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newSigner makes a host key.
func newSigner(t *testing.T, kind string) ssh.Signer {
	t.Helper()
	var key any
	var err error
	switch kind {
	case ssh.KeyAlgoED25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case ssh.KeyAlgoECDSA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ssh.KeyAlgoRSA:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// example is an agent's access, as most have it.
func example(t *testing.T) Access {
	return Access{
		Server: rendezvous.Server{Host: "relay.example:8080"}, ID: "team/job-1",
		User: "abc", HostKey: newSigner(t, ssh.KeyAlgoED25519).PublicKey(), Wsproxy: "wsproxy",
		Window: 5 * time.Minute,
	}
}
