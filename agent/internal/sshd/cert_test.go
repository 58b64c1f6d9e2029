//go:build linux

package sshd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"example.com/converge/agent/internal/keys"
)

// keygen runs OpenSSH's ssh-keygen.
func (b *bench) keygen(args ...string) {
	b.t.Helper()
	cmd := b.client("ssh-keygen", nil)
	cmd.Args = append([]string{"ssh-keygen", "-q"}, args...)
	if _, stderr, code := run(b.t, cmd); code != 0 {
		b.t.Fatalf("ssh-keygen %q: %s", args, stderr)
	}
}

// authority makes a certificate authority with ssh-keygen, and a server that
// trusts it and nothing else.
func authority(t *testing.T, change func(*Config)) (b *bench, ca string) {
	t.Helper()
	ca = filepath.Join(t.TempDir(), "ca")
	(&bench{t: t, home: t.TempDir()}).keygen("-t", "ed25519", "-N", "", "-f", ca)
	set, err := keys.New(keys.Config{Authorities: []string{ca + ".pub"}})
	if err != nil {
		t.Fatal(err)
	}
	b = newBench(t, func(c *Config) {
		c.Keys, c.Password = set, ""
		if change != nil {
			change(c)
		}
	})
	return b, ca
}

// certify makes a key and has it signed; it returns the file of the key, beside
// which ssh finds the certificate.
func (b *bench) certify(ca, name string, options ...string) string {
	b.t.Helper()
	file := filepath.Join(b.home, name)
	b.keygen("-t", "ed25519", "-N", "", "-f", file)
	b.keygen(append(append([]string{"-s", ca, "-I", name}, options...), file+".pub")...)
	return file
}

// with runs a command over ssh with an identity.
func (b *bench) with(identity string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	cmd := b.client("ssh", []string{"IdentityFile=" + identity}, args...)
	// Options come first in bench.options, and the first IdentityFile is one more.
	for i, arg := range cmd.Args {
		if arg == "IdentityFile="+filepath.Join(b.home, "id") {
			cmd.Args[i] = "IdentityFile=" + identity
		}
	}
	return run(b.t, cmd)
}

// Stock OpenSSH makes the certificates and logs in with them.
func TestOpenSSHCertificates(t *testing.T) {
	b, ca := authority(t, nil)
	stranger := filepath.Join(t.TempDir(), "other")
	b.keygen("-t", "ed25519", "-N", "", "-f", stranger)
	for name, test := range map[string]struct {
		ca      string
		options []string
		want    bool
	}{
		"good":            {ca, []string{"-n", "root," + testUser}, true},
		"valid now":       {ca, []string{"-n", testUser, "-V", "-5m:+1h"}, true},
		"expired":         {ca, []string{"-n", testUser, "-V", "-2h:-1h"}, false},
		"not yet":         {ca, []string{"-n", testUser, "-V", "+1h:+2h"}, false},
		"other principal": {ca, []string{"-n", "root"}, false},
		"no principal":    {ca, nil, false},
		"for a host":      {ca, []string{"-h", "-n", testUser}, false},
		"other authority": {stranger, []string{"-n", testUser}, false},
		"source address":  {ca, []string{"-n", testUser, "-O", "source-address=127.0.0.0/8"}, false},
		"critical":        {ca, []string{"-n", testUser, "-O", "critical:what@example.com=x"}, false},
		"verify required": {ca, []string{"-n", testUser, "-O", "verify-required"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			identity := b.certify(test.ca, strings.ReplaceAll(name, " ", "-"), test.options...)
			stdout, stderr, code := b.with(identity, testUser+"@127.0.0.1", "echo in")
			if test.want && stdout != "in\n" || !test.want && (code != 255 || !strings.Contains(stderr, "Permission denied")) {
				t.Errorf("%d %q %q", code, stdout, stderr)
			}
			if os.Remove(identity+"-cert.pub") != nil {
				t.Fatal("there was no certificate")
			}
			if _, _, code := b.with(identity, testUser+"@127.0.0.1", "true"); code != 255 {
				t.Error("the key lets in without its certificate")
			}
		})
	}
	// RSA keys and authorities sign with SHA-2.
	rsa := filepath.Join(b.home, "rsa")
	b.keygen("-t", "rsa", "-b", "2048", "-N", "", "-f", rsa)
	b.keygen("-s", ca, "-I", "rsa", "-n", testUser, rsa+".pub")
	if stdout, stderr, _ := b.with(rsa, testUser+"@127.0.0.1", "echo in"); stdout != "in\n" {
		t.Errorf("RSA: %q", stderr)
	}
}

// What a certificate forbids is refused to that user, and to nobody else.
func TestCertificateLimits(t *testing.T) {
	b, ca := authority(t, nil)
	forced := b.certify(ca, "forced", "-n", testUser, "-O", "force-command=echo \"[$SSH_ORIGINAL_COMMAND]\"")
	bare := b.certify(ca, "bare", "-n", testUser, "-O", "clear")
	free := b.certify(ca, "free", "-n", testUser)
	host := testUser + "@127.0.0.1"

	if stdout, stderr, code := b.with(forced, host, "id"); stdout != "[id]\n" || code != 0 {
		t.Errorf("forced: %d %q %q", code, stdout, stderr)
	}
	if stdout, _, _ := b.with(forced, "-s", host, "sftp"); !strings.HasPrefix(stdout, "[internal-sftp]") {
		t.Errorf("sftp goes past the forced command: %q", stdout)
	}
	if _, _, code := b.with(forced, "-s", host, "converge-watch"); code == 0 {
		t.Error("another one's shell can be watched past the forced command")
	}
	if stdout, stderr, _ := b.with(bare, "-tt", host, "tty"); !strings.Contains(stderr, "PTY allocation request failed") {
		t.Errorf("a terminal without permit-pty: %q %q", stdout, stderr)
	}
	if _, _, code := b.with(bare, "-s", host, "converge-join"); code == 0 {
		t.Error("another one's shell can be joined without permit-pty")
	}
	if stdout, stderr, _ := b.with(free, "-tt", host, "tty"); !strings.Contains(stdout, "/dev/") {
		t.Errorf("no terminal with permit-pty: %q %q", stdout, stderr)
	}

	echo := listenOnce(t)
	for identity, want := range map[string]bool{bare: false, free: true} {
		stdout, stderr, _ := b.with(identity, "-W", echo(), host)
		if got := stdout == "forwarded"; got != want {
			t.Errorf("-W with %s: %q %q", filepath.Base(identity), stdout, stderr)
		}
		_, stderr, code := b.with(identity, "-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:1", host, "true")
		if got := code == 0; got != want {
			t.Errorf("-R with %s: %d %q", filepath.Base(identity), code, stderr)
		}
	}
}

// listenOnce returns a function that makes an address which says a word to
// whoever comes.
func listenOnce(t *testing.T) func() string {
	return func() string {
		listen, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if nc, err := listen.Accept(); err == nil {
				fmt.Fprint(nc, "forwarded")
				nc.Close()
			}
		}()
		t.Cleanup(func() { listen.Close(); <-done })
		return listen.Addr().String()
	}
}

// A certificate's internal-sftp does not turn on what the agent turned off.
func TestCertificateForcedSFTP(t *testing.T) {
	for off, want := range map[bool]bool{false: true, true: false} {
		b, ca := authority(t, func(c *Config) { c.NoSFTP = off })
		identity := b.certify(ca, "sftp", "-n", testUser, "-O", "force-command=internal-sftp")
		cmd := b.client("ssh", nil, testUser+"@127.0.0.1", "id")
		for i, arg := range cmd.Args {
			if strings.HasPrefix(arg, "IdentityFile=") {
				cmd.Args[i] = "IdentityFile=" + identity
			}
		}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The server may not answer whoever has hung up.
		_, _ = io.WriteString(stdin, "\x00\x00\x00\x05\x01\x00\x00\x00\x03") // SSH_FXP_INIT
		answer := make([]byte, 5)
		_, err = io.ReadFull(stdout, answer)
		_ = stdin.Close()
		_, _ = io.Copy(io.Discard, stdout)
		_ = cmd.Wait()
		if got := err == nil && answer[4] == 2; got != want { // SSH_FXP_VERSION
			t.Errorf("--no-sftp %v: %q, %v, %q", off, answer, err, stderr.String())
		}
	}
}

// What was granted to a key that was only asked about does not count for the
// one that signs.
func TestGrantIsOfTheKeyThatSigned(t *testing.T) {
	b, ca := authority(t, nil)
	forced := b.certify(ca, "forced", "-n", testUser, "-O", "force-command=echo forced")
	free := b.certify(ca, "free", "-n", testUser)
	for signing, asked := range map[string]string{forced: free, free: forced} {
		ring := agent.NewKeyring()
		var mute []byte
		for _, file := range []string{asked, signing} {
			private, cert := readIdentity(t, file)
			if err := ring.Add(agent.AddedKey{PrivateKey: private, Certificate: cert}); err != nil {
				t.Fatal(err)
			}
			if file == asked {
				mute = cert.Marshal()
			}
		}
		cmd := b.client("ssh", nil, testUser+"@127.0.0.1", "echo free")
		for i, arg := range cmd.Args {
			switch {
			case strings.HasPrefix(arg, "IdentityFile="):
				cmd.Args[i] = "IdentityFile=none"
			case arg == "IdentitiesOnly=yes":
				cmd.Args[i] = "IdentitiesOnly=no"
			case arg == "IdentityAgent=none":
				cmd.Args[i] = "IdentityAgent=" + serveAgent(t, reluctant{ring, mute})
			case arg == "LogLevel=ERROR":
				cmd.Args[i] = "LogLevel=DEBUG"
			}
		}
		stdout, stderr, _ := run(t, cmd)
		if stdout != filepath.Base(signing)+"\n" {
			t.Errorf("with %s: %q %q", filepath.Base(signing), stdout, stderr)
		}
		if n := strings.Count(stderr, "Server accepts key"); n != 2 {
			t.Errorf("the server was asked about %d keys: %s", n, stderr)
		}
	}
}

func readIdentity(t *testing.T, file string) (any, *ssh.Certificate) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(file + "-cert.pub"); err != nil {
		t.Fatal(err)
	}
	public, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return private, public.(*ssh.Certificate)
}

// reluctant has a key that it does not sign with.
type reluctant struct {
	agent.Agent
	mute []byte
}

func (r reluctant) Sign(key ssh.PublicKey, data []byte) (*ssh.Signature, error) {
	if bytes.Equal(key.Marshal(), r.mute) {
		return nil, errors.New("not touched")
	}
	return r.Agent.Sign(key, data)
}

// serveAgent makes a socket at which a key agent listens.
func serveAgent(t *testing.T, a agent.Agent) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		t.Fatal(err)
	}
	listen, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := listen.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer nc.Close()
				_ = agent.ServeAgent(a, nc)
			})
		}
	})
	t.Cleanup(func() {
		listen.Close()
		served.Wait()
		os.RemoveAll(dir)
	})
	return listen.Addr().String()
}

// token is a hardware key made of software: it signs as FIDO2 devices do
// (OpenSSH's PROTOCOL.u2f), with flags of the test's choice.
type token struct {
	key   ssh.PublicKey
	sign  func(hash []byte) []byte
	flags byte
}

const tokenApplication = "ssh:"

// Flags of a token's signature.
const (
	touched  = 1
	verified = 4
)

func newToken(t *testing.T, algorithm string) *token {
	t.Helper()
	tok := &token{flags: touched}
	var blob []byte
	switch algorithm {
	case ssh.KeyAlgoSKED25519:
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tok.sign = func(data []byte) []byte { return ed25519.Sign(private, data) }
		blob = ssh.Marshal(struct {
			Type, Key, Application string
		}{algorithm, string(public), tokenApplication})
	case ssh.KeyAlgoSKECDSA256:
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tok.sign = func(data []byte) []byte {
			sum := sha256.Sum256(data)
			r, s, err := ecdsa.Sign(rand.Reader, private, sum[:])
			if err != nil {
				t.Error(err)
			}
			return ssh.Marshal(struct{ R, S *big.Int }{r, s})
		}
		point, err := private.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		blob = ssh.Marshal(struct {
			Type, Curve, Key, Application string
		}{algorithm, "nistp256", string(point), tokenApplication})
	}
	var err error
	if tok.key, err = ssh.ParsePublicKey(blob); err != nil {
		t.Fatal(err)
	}
	return tok
}

func (k *token) PublicKey() ssh.PublicKey { return k.key }

func (k *token) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) {
	application, message := sha256.Sum256([]byte(tokenApplication)), sha256.Sum256(data)
	rest := binary.BigEndian.AppendUint32([]byte{k.flags}, 17)
	signed := append(append(application[:], rest...), message[:]...)
	return &ssh.Signature{Format: k.key.Type(), Blob: k.sign(signed), Rest: rest}, nil
}

// Hardware keys log in; no device is needed to see that the touch is.
func TestHardwareKeys(t *testing.T) {
	for _, algorithm := range []string{ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256} {
		t.Run(algorithm, func(t *testing.T) {
			strict, lax, certified := newToken(t, algorithm), newToken(t, algorithm), newToken(t, algorithm)
			ca, _ := newSigner(t)
			set, err := keys.New(keys.Config{
				Literals:    []string{authorizedLine(strict.key), "no-touch-required " + authorizedLine(lax.key)},
				Authorities: []string{authorizedLine(ca.PublicKey())},
			})
			if err != nil {
				t.Fatal(err)
			}
			b := newBench(t, func(c *Config) { c.Keys, c.Password = set, "" })
			try := func(what string, signer ssh.Signer, want bool) {
				t.Helper()
				client, err := b.tryDial(testUser, ssh.PublicKeys(signer))
				if (err == nil) != want {
					t.Errorf("%s: error %v, want success %v", what, err, want)
				}
				if client != nil {
					client.Close()
				}
			}
			for _, flags := range []byte{0, touched, verified, touched | verified} {
				strict.flags, lax.flags, certified.flags = flags, flags, flags
				what := fmt.Sprintf("flags %d", flags)
				try(what, strict, flags&touched != 0)
				try(what+" with no-touch-required", lax, true)
				for extension, untouched := range map[string]bool{"permit-pty": false, "no-touch-required": true} {
					cert := &ssh.Certificate{
						Key: certified.key, CertType: ssh.UserCert, ValidPrincipals: []string{testUser}, ValidBefore: ssh.CertTimeInfinity,
						Permissions: ssh.Permissions{Extensions: map[string]string{extension: ""}},
					}
					if err := cert.SignCert(rand.Reader, ca); err != nil {
						t.Fatal(err)
					}
					signer, err := ssh.NewCertSigner(cert, certified)
					if err != nil {
						t.Fatal(err)
					}
					try(what+" with a certificate and "+extension, signer, flags&touched != 0 || untouched)
				}
			}
			strict.flags = touched
			forger := newToken(t, algorithm)
			forger.key = strict.key
			try("another token's signature", forger, false)
		})
	}
}
