//go:build linux

package sshd

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gssh "github.com/gliderlabs/ssh"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/keys"
)

func TestNewRefuses(t *testing.T) {
	host, _ := newSigner(t)
	empty, err := keys.NewSet(nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"nobody may log in": {Config{User: "a", HostKey: host}, "nobody could log in"},
		"empty set of keys": {Config{User: "a", HostKey: host, Keys: empty}, "nobody could log in"},
		"no user":           {Config{HostKey: host, Password: "x"}, "user name"},
		"no host key":       {Config{User: "a", Password: "x"}, "host key"},
		"no such shell":     {Config{User: "a", HostKey: host, Password: "x", Shell: "/no/sh"}, "/no/sh"},
		"bad pattern":       {Config{User: "a", HostKey: host, Password: "x", AcceptEnv: []string{"A["}}, "A["},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(test.cfg); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// Should New ever let an open configuration through, the handshake does not.
func TestFailClosed(t *testing.T) {
	host, _ := newSigner(t)
	server, err := New(Config{User: testUser, HostKey: host, Password: testPassword})
	if err != nil {
		t.Fatal(err)
	}
	server.ssh.PasswordHandler = nil
	// Without our callback the library lets everybody in. If it does no
	// longer, the guards can be looked at again.
	open := &gssh.Server{HostSigners: []gssh.Signer{host}}
	for name, test := range map[string]struct {
		serve func(net.Conn)
		want  bool
	}{
		"ours": {server.HandleConn, false}, "the library's": {open.HandleConn, true},
	} {
		listen, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var served sync.WaitGroup
		served.Go(func() {
			if nc, err := listen.Accept(); err == nil {
				test.serve(nc)
			}
		})
		client, err := ssh.Dial("tcp", listen.Addr().String(), &ssh.ClientConfig{
			User: testUser, HostKeyCallback: ssh.FixedHostKey(host.PublicKey()),
		})
		if (err == nil) != test.want {
			t.Errorf("%s: error %v, want success %v", name, err, test.want)
		}
		if err == nil {
			client.Close()
		}
		listen.Close()
		served.Wait()
	}
}

func TestLogin(t *testing.T) {
	b := newBench(t, nil)
	stranger, _ := newSigner(t)
	for name, test := range map[string]struct {
		user   string
		method ssh.AuthMethod
		want   bool
	}{
		"key":             {testUser, ssh.PublicKeys(b.user), true},
		"password":        {testUser, ssh.Password(testPassword), true},
		"second key":      {testUser, ssh.PublicKeys(stranger, b.user), true},
		"other key":       {testUser, ssh.PublicKeys(stranger), false},
		"other password":  {testUser, ssh.Password("wrong"), false},
		"no password":     {testUser, ssh.Password(""), false},
		"user, key":       {"abcd", ssh.PublicKeys(b.user), false},
		"user, password":  {"ab", ssh.Password(testPassword), false},
		"no user":         {"", ssh.Password(testPassword), false},
		"host key's half": {testUser, ssh.PublicKeys(b.host), false},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := b.tryDial(test.user, test.method)
			if (err == nil) != test.want {
				t.Errorf("error %v, want success %v", err, test.want)
			}
			if client != nil {
				client.Close()
			}
		})
	}
}

// A wrong user gets the same answers as a wrong password.
func TestWrongUserLooksLikeWrongPassword(t *testing.T) {
	b := newBench(t, nil)
	_, wrongUser := b.tryDial("nobody", ssh.Password(testPassword))
	_, wrongPassword := b.tryDial(testUser, ssh.Password("wrong"))
	if wrongUser == nil || wrongPassword == nil || wrongUser.Error() != wrongPassword.Error() {
		t.Errorf("%v\n%v", wrongUser, wrongPassword)
	}
}

// The user is that of the attempt, not that of the connection's first one,
// which the library remembers.
func TestUserMayChange(t *testing.T) {
	host, _ := newSigner(t)
	s, err := New(Config{User: testUser, HostKey: host, Password: testPassword})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]bool{testUser: true, "other": false} {
		if got := s.allowsPassword(attempt{user: user}, testPassword); got != want {
			t.Errorf("%s: %v", user, got)
		}
	}
	if s.allowsPassword(attempt{}, "wrong") {
		t.Error("a wrong password is let in")
	}
}

// attempt is a context in which only the current attempt can be seen.
type attempt struct {
	gssh.Context
	user string
}

func (a attempt) Value(any) any { return ssh.ConnMetadata(metadata{user: a.user}) }

type metadata struct {
	ssh.ConnMetadata
	user string
}

func (m metadata) User() string { return m.user }

// A key that the client shows and cannot prove is not let in.
func TestKeyMustBeProved(t *testing.T) {
	b := newBench(t, nil)
	stranger, _ := newSigner(t)
	_, err := b.tryDial(testUser, ssh.PublicKeys(liar{stranger, b.user.PublicKey()}))
	if err == nil {
		t.Error("a public key alone is enough")
	}
	if n := len(b.server.Users()); n != 0 {
		t.Errorf("%d users", n)
	}
}

// liar signs with another key than it shows.
type liar struct {
	ssh.Signer
	shown ssh.PublicKey
}

func (l liar) PublicKey() ssh.PublicKey { return l.shown }

// Only the methods that were configured are offered, as OpenSSH sees it.
func TestMethodsOffered(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"(publickey).":          func(c *Config) { c.Password = "" },
		"(password).":           func(c *Config) { c.Keys = nil },
		"(password,publickey).": func(*Config) {},
	} {
		t.Run(want, func(t *testing.T) {
			b := newBench(t, change)
			cmd := b.client("ssh", []string{"PreferredAuthentications=none"}, testUser+"@127.0.0.1", "true")
			_, stderr, code := run(t, cmd)
			if code != 255 || !strings.Contains(stderr, "Permission denied "+want) {
				t.Errorf("%d %q", code, stderr)
			}
		})
	}
}

func TestUsers(t *testing.T) {
	b := newBench(t, nil)
	before := time.Now()
	first := b.dial()
	b.dial(ssh.Password(testPassword))
	users := b.server.Users()
	if len(users) != 2 {
		t.Fatalf("%d users", len(users))
	}
	if got, want := users[0].KeyFingerprint, ssh.FingerprintSHA256(b.user.PublicKey()); got != want {
		t.Errorf("fingerprint %q, want %q", got, want)
	}
	if users[1].KeyFingerprint != "" {
		t.Errorf("fingerprint %q after a password", users[1].KeyFingerprint)
	}
	for _, u := range users {
		if u.User != testUser || !strings.HasPrefix(u.Remote, "127.0.0.1:") || u.Since.Before(before) {
			t.Errorf("%+v", u)
		}
	}
	first.Close()
	b.events.wait(t, "logout 1", 1)
	if users := b.server.Users(); len(users) != 1 || users[0].ID != 2 {
		t.Errorf("%+v", users)
	}
}

// A key that is appended to the file lets in, without a restart.
func TestKeysFileChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "authorized_keys")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := keys.NewSet([]string{file}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *Config) { c.Keys, c.Password = set, "" })
	if _, stderr, code := run(t, b.ssh("true")); code != 255 || !strings.Contains(stderr, "Permission denied") {
		t.Fatalf("before: %d %q", code, stderr)
	}
	if err := os.WriteFile(file, []byte(authorizedLine(b.user.PublicKey())+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := run(t, b.ssh("true")); code != 0 {
		t.Errorf("after: %d %q", code, stderr)
	}
}

func TestTooManyTries(t *testing.T) {
	b := newBench(t, nil)
	tries := 0
	_, err := b.tryDial(testUser, ssh.RetryableAuthMethod(ssh.PasswordCallback(func() (string, error) {
		tries++
		return "wrong", nil
	}), 100))
	if err == nil || tries != maxAuthTries {
		t.Errorf("%d tries, error %v", tries, err)
	}
}

func TestAlgorithms(t *testing.T) {
	b := newBench(t, nil)
	dial := func(change func(*ssh.ClientConfig)) error {
		cfg := &ssh.ClientConfig{
			User: testUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.user)},
			HostKeyCallback: ssh.FixedHostKey(b.host.PublicKey()),
		}
		change(cfg)
		client, err := ssh.Dial("tcp", "127.0.0.1:"+b.port, cfg)
		if err == nil {
			client.Close()
		}
		return err
	}
	kex := func(names ...string) func(*ssh.ClientConfig) {
		return func(c *ssh.ClientConfig) { c.KeyExchanges = names }
	}
	cipher := func(names ...string) func(*ssh.ClientConfig) {
		return func(c *ssh.ClientConfig) { c.Ciphers = names }
	}
	mac := func(names ...string) func(*ssh.ClientConfig) {
		return func(c *ssh.ClientConfig) { c.MACs, c.Ciphers = names, []string{ssh.CipherAES128CTR} }
	}
	for name, change := range map[string]func(*ssh.ClientConfig){
		"mlkem": kex(ssh.KeyExchangeMLKEM768X25519), "curve25519": kex(ssh.KeyExchangeCurve25519),
		"libssh": kex("curve25519-sha256@libssh.org"), "nistp256": kex(ssh.KeyExchangeECDHP256),
		"aes128-gcm": cipher(ssh.CipherAES128GCM), "aes256-gcm": cipher(ssh.CipherAES256GCM),
		"chacha20": cipher(ssh.CipherChaCha20Poly1305), "aes256-ctr": cipher(ssh.CipherAES256CTR),
		"etm": mac(ssh.HMACSHA256ETM), "sha2-512": mac(ssh.HMACSHA512),
	} {
		if err := dial(change); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*ssh.ClientConfig){
		"group14-sha1": kex(ssh.InsecureKeyExchangeDH14SHA1), "group1": kex(ssh.InsecureKeyExchangeDH1SHA1),
		"3des": cipher(ssh.InsecureCipherTripleDESCBC), "cbc": cipher(ssh.InsecureCipherAES128CBC),
		"hmac-sha1": mac(ssh.HMACSHA1), "hmac-sha1-96": mac(ssh.InsecureHMACSHA196),
	} {
		var none *ssh.AlgorithmNegotiationError
		if err := dial(change); err == nil || !errors.As(err, &none) && !strings.Contains(err.Error(), "EOF") {
			t.Errorf("%s is not refused: %v", name, err)
		}
	}
}

// An RSA host key, and an RSA user key, sign with SHA-2 and not with SHA-1.
func TestRSASignsModern(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rsa")
	keygen := newBench(t, nil).client("ssh-keygen", nil)
	keygen.Args = []string{"ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", file}
	if _, stderr, code := run(t, keygen); code != 0 {
		t.Fatal(stderr)
	}
	signer, err := keys.HostKey(file)
	if err != nil {
		t.Fatal(err)
	}
	set, err := keys.NewSet([]string{file + ".pub"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, func(c *Config) { c.HostKey, c.Keys = signer, set })
	for algorithm, want := range map[string]bool{
		ssh.KeyAlgoRSA: false, ssh.KeyAlgoRSASHA256: true, ssh.KeyAlgoRSASHA512: true,
	} {
		host := []string{"HostKeyAlgorithms=" + algorithm, "PubkeyAcceptedAlgorithms=rsa-sha2-512", "IdentityFile=" + file}
		user := []string{"HostKeyAlgorithms=rsa-sha2-512", "PubkeyAcceptedAlgorithms=" + algorithm, "IdentityFile=" + file}
		for what, options := range map[string][]string{"host": host, "user": user} {
			_, stderr, code := run(t, b.client("ssh", options, testUser+"@127.0.0.1", "true"))
			if (code == 0) != want {
				t.Errorf("%s key with %s: %d %q", what, algorithm, code, stderr)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	b := newBench(t, nil)
	nc, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	const want = "SSH-2.0-Converge\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		t.Errorf("%q %v", got, err)
	}
}
