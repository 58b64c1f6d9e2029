// Package keys is where key material enters the agent: the host key that
// proves the agent to its users, the pin that users compare it with, and the
// set of public keys that may log in. It knows files and the formats of
// OpenSSH; it must know nothing of connections, sessions or users.
package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/files"
)

const (
	// maxHostKey bounds a host key file, in bytes; a 16384-bit RSA key in
	// OpenSSH's format has 13 KiB.
	maxHostKey = 64 << 10
	// minRSA is the smallest RSA modulus that is accepted, in bits.
	minRSA = 2048
)

// HostKey returns the signer of the SSH host key. With an empty name it makes
// an Ed25519 key that lives as long as the process. Else it reads a private
// key in OpenSSH or PEM format, without passphrase: Ed25519, ECDSA, or RSA of
// at least 2048 bits. The error is one sentence that names the file and says
// what to do. HostKey does not judge the file's permissions: see Exposed.
func HostKey(file string) (ssh.Signer, error) {
	if file == "" {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("cannot make a host key: %w", err)
		}
		return ssh.NewSignerFromKey(private)
	}
	text, err := files.Read(file, maxHostKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the host key file %s does not exist: "+
			"make it with ssh-keygen -t ed25519 -N '' -f %s: %w", file, file, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the host key file %s: give a private key file "+
			"that this user may read: %w", file, err)
	}
	signer, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("the host key file %s is protected by a passphrase: "+
			"remove it with ssh-keygen -p -N '' -f %s: %w", file, file, err)
	}
	if err != nil {
		return nil, fmt.Errorf("the host key file %s holds no private key that can be used: "+
			"make one with ssh-keygen -t ed25519 -N '' and give the file without .pub: %w", file, err)
	}
	if why := unfit(signer.PublicKey()); why != "" {
		return nil, fmt.Errorf("the host key file %s holds %s: "+
			"make another one with ssh-keygen -t ed25519 -N ''", file, why)
	}
	return signer, nil
}

// Exposed returns a sentence to warn with when accounts other than the owner
// may read the host key file, and "" when all is well or nothing can be said
// (no file, no such file, Windows). It is no error: in a container the file is
// often a mounted secret whose mode nobody chose.
func Exposed(file string) string {
	if file == "" || runtime.GOOS == "windows" {
		return ""
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm()&0o044 == 0 {
		return ""
	}
	return fmt.Sprintf("the host key file %s can be read by other accounts (mode %04o): "+
		"close it with chmod 600 %s", file, info.Mode().Perm(), file)
}

// Pin is the short text by which a client recognises a host key: the unpadded
// base64url form of the 32 bytes of an Ed25519 key (43 characters), and for
// any other key "sha256:" followed by its fingerprint, the SHA-256 of the key
// in SSH wire format (RFC 4253 §6.6), also in unpadded base64url. Both are
// safe in the fragment of a URL.
func Pin(key ssh.PublicKey) string {
	if crypto, ok := key.(ssh.CryptoPublicKey); ok && key.Type() == ssh.KeyAlgoED25519 {
		if raw, ok := crypto.CryptoPublicKey().(ed25519.PublicKey); ok {
			return base64.RawURLEncoding.EncodeToString(raw)
		}
	}
	sum := sha256.Sum256(key.Marshal())
	return "sha256:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// unfit says why a key is of a kind that is not accepted, or "".
func unfit(key ssh.PublicKey) string {
	switch key.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		return ""
	case ssh.KeyAlgoRSA:
		if crypto, ok := key.(ssh.CryptoPublicKey); ok {
			public, ok := crypto.CryptoPublicKey().(*rsa.PublicKey)
			if ok && public.N.BitLen() >= minRSA {
				return ""
			}
		}
		return fmt.Sprintf("an RSA key of less than %d bits", minRSA)
	}
	return fmt.Sprintf("a key of type %s, which is not accepted", key.Type())
}
