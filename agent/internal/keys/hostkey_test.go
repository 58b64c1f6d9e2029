package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// newKey makes an Ed25519 key pair.
func newKey(t testing.TB) (ed25519.PrivateKey, ssh.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return private, public
}

// line is the key as a line of authorized_keys, without the newline.
func line(key ssh.PublicKey) string {
	return strings.TrimSuffix(string(ssh.MarshalAuthorizedKey(key)), "\n")
}

// write puts text in a file of a fresh folder and returns its name.
func write(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func privatePEM(t testing.TB, key crypto.PrivateKey, passphrase string) string {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestHostKeyFresh(t *testing.T) {
	one, err := HostKey("")
	if err != nil {
		t.Fatal(err)
	}
	two, err := HostKey("")
	if err != nil {
		t.Fatal(err)
	}
	if one.PublicKey().Type() != ssh.KeyAlgoED25519 {
		t.Errorf("type %s", one.PublicKey().Type())
	}
	if bytes.Equal(one.PublicKey().Marshal(), two.PublicKey().Marshal()) {
		t.Error("two runs have the same host key")
	}
}

func TestHostKeyFile(t *testing.T) {
	private, public := newKey(t)
	file := write(t, privatePEM(t, private, ""))
	signer, err := HostKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(signer.PublicKey().Marshal(), public.Marshal()) {
		t.Error("another key than the file's")
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.PrivateKey{ec, rsaKey(t, 2048)} {
		if _, err := HostKey(write(t, privatePEM(t, key, ""))); err != nil {
			t.Errorf("%T: %v", key, err)
		}
	}
}

func TestHostKeyRefused(t *testing.T) {
	private, public := newKey(t)
	t.Setenv("GODEBUG", "rsa1024min=0")
	for name, test := range map[string]struct{ file, want string }{
		"missing":    {filepath.Join(t.TempDir(), "nowhere"), "does not exist: make it with ssh-keygen"},
		"folder":     {t.TempDir(), "cannot read the host key file"},
		"passphrase": {write(t, privatePEM(t, private, "secret")), "ssh-keygen -p"},
		"public":     {write(t, line(public)), "without .pub"},
		"empty":      {write(t, ""), "no private key"},
		"huge":       {write(t, strings.Repeat("x", maxHostKey+1)), "64 KiB"},
		"weak":       {write(t, privatePEM(t, rsaKey(t, 1024), "")), "less than 2048 bits"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := HostKey(test.file)
			if err == nil {
				t.Fatal("accepted")
			}
			text := err.Error()
			if !strings.Contains(text, test.want) || !strings.Contains(text, test.file) || strings.Contains(text, "\n") {
				t.Errorf("%q does not name %s and say %q on one line", text, test.file, test.want)
			}
		})
	}
}

func TestExposed(t *testing.T) {
	private, _ := newKey(t)
	file := write(t, privatePEM(t, private, ""))
	if text := Exposed(file); text != "" {
		t.Errorf("0600: %s", text)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if text := Exposed(file); runtime.GOOS != "windows" && !strings.Contains(text, "chmod 600 "+file) {
		t.Errorf("0644: %q", text)
	}
	if text := Exposed(""); text != "" {
		t.Errorf("no file: %s", text)
	}
}

func TestPin(t *testing.T) {
	private, public := newKey(t)
	pin := Pin(public)
	raw, err := base64.RawURLEncoding.DecodeString(pin)
	if err != nil || len(pin) != 43 || !bytes.Equal(raw, private.Public().(ed25519.PublicKey)) {
		t.Errorf("pin %q is not the key", pin)
	}
	other, err := ssh.NewPublicKey(&rsaKey(t, 2048).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	standard := strings.TrimPrefix(ssh.FingerprintSHA256(other), "SHA256:")
	want := "sha256:" + strings.NewReplacer("+", "-", "/", "_").Replace(standard)
	if got := Pin(other); got != want {
		t.Errorf("pin %q, want %q", got, want)
	}
}
