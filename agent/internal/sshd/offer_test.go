//go:build linux

package sshd

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/keys"
)

func TestOfferFor(t *testing.T) {
	both := func(kex, ciphers, macs string) *proposal {
		split := func(text string) []string { return strings.Split(text, ",") }
		return &proposal{
			KexAlgorithms:          split(kex),
			EncryptionClientServer: split(ciphers), EncryptionServerClient: split(ciphers),
			MACClientServer: split(macs), MACServerClient: split(macs),
		}
	}
	stock := both("sntrup761x25519-sha512@openssh.com,curve25519-sha256,ecdh-sha2-nistp256",
		"chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com,aes256-gcm@openssh.com",
		"umac-64-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-256,hmac-sha1")
	oneWay := both("curve25519-sha256", "aes128-ctr", "hmac-sha2-256")
	oneWay.EncryptionClientServer = []string{"aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes128-ctr"}
	oneWay.MACClientServer = []string{"hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"}
	full := fullOffer()
	for name, test := range map[string]struct {
		proposal *proposal
		aes      bool
		want     offer
	}{
		"unknown":        {nil, true, full},
		"empty":          {&proposal{}, true, full},
		"stock":          {stock, true, offer{modernKex, gcm, modernMACs}},
		"stock, no AES":  {stock, false, offer{modernKex, chacha, modernMACs}},
		"only chacha20":  {both("curve25519-sha256", "chacha20-poly1305@openssh.com", "hmac-sha1"), true, offer{modernKex, full.ciphers, full.macs}},
		"no AEAD":        {both(curveLibSSH, "aes128-ctr,aes256-ctr", "hmac-sha2-256,hmac-sha2-512-etm@openssh.com"), true, offer{modernKex, full.ciphers, modernMACs}},
		"post-quantum":   {both("mlkem768x25519-sha256", "aes256-gcm@openssh.com", ""), true, offer{modernKex, gcm, full.macs}},
		"FIPS":           {both("ecdh-sha2-nistp384", "aes256-gcm@openssh.com", "hmac-sha2-256"), true, offer{full.kex, gcm, full.macs}},
		"FIPS, no AES":   {both("ecdh-sha2-nistp384", "aes256-gcm@openssh.com", "hmac-sha2-256"), false, full},
		"one way only":   {oneWay, true, offer{modernKex, full.ciphers, full.macs}},
		"one way no AES": {oneWay, false, offer{modernKex, full.ciphers, full.macs}},
	} {
		got := offerFor(test.proposal, test.aes)
		if !slices.Equal(got.kex, test.want.kex) || !slices.Equal(got.ciphers, test.want.ciphers) ||
			!slices.Equal(got.macs, test.want.macs) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

var negotiated = regexp.MustCompile(`kex: server->client cipher: (\S+) MAC: (\S+)`)

// What stock ssh ends on, and that it still gets what it insists on.
func TestOpenSSHCiphers(t *testing.T) {
	for name, test := range map[string]struct {
		aes          bool
		args         []string
		cipher, macs string
	}{
		"default":         {true, nil, "aes128-gcm@openssh.com", "<implicit>"},
		"without AES":     {false, nil, "chacha20-poly1305@openssh.com", "<implicit>"},
		"chacha20":        {true, []string{"-c", "chacha20-poly1305@openssh.com"}, "chacha20-poly1305@openssh.com", "<implicit>"},
		"aes256-gcm":      {true, []string{"-c", "aes256-gcm@openssh.com"}, "aes256-gcm@openssh.com", "<implicit>"},
		"gcm, no AES":     {false, []string{"-c", "aes128-gcm@openssh.com"}, "aes128-gcm@openssh.com", "<implicit>"},
		"aes256-ctr":      {true, []string{"-c", "aes256-ctr"}, "aes256-ctr", "hmac-sha2-256-etm@openssh.com"},
		"ctr without etm": {true, []string{"-c", "aes128-ctr", "-m", "hmac-sha2-512"}, "aes128-ctr", "hmac-sha2-512"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func(had bool) { machineHasAES = had }(machineHasAES)
			machineHasAES = test.aes
			b := newBench(t, nil)
			args := slices.Concat([]string{"-o", "LogLevel=DEBUG1"}, test.args, []string{testUser + "@127.0.0.1", "echo here"})
			// The first value of an option counts: this one stands before.
			cmd := b.client("ssh", nil)
			cmd.Args = slices.Concat(cmd.Args[:1], args[:2], cmd.Args[1:], args[2:])
			stdout, stderr, code := run(t, cmd)
			m := negotiated.FindStringSubmatch(stderr)
			if code != 0 || stdout != "here\n" || m == nil {
				t.Fatalf("%d %q %s", code, stdout, stderr)
			}
			if m[1] != test.cipher || m[2] != test.macs {
				t.Errorf("it ended on %s and %s", m[1], m[2])
			}
		})
	}
}

// New keys, which the client asks for after so many bytes, change nothing.
func TestOpenSSHRekey(t *testing.T) {
	b := newBench(t, nil)
	text := noise(4<<20, 11)
	cmd := b.client("ssh", []string{"RekeyLimit=256K"}, testUser+"@127.0.0.1", "cat")
	cmd.Stdin = bytes.NewReader(text)
	stdout, stderr, code := run(t, cmd)
	if code != 0 {
		t.Fatalf("%d %s", code, stderr)
	}
	same(t, "through cat", []byte(stdout), text)
}

// Dropbear's client has no AES-GCM, and guesses the key exchange.
func TestDropbear(t *testing.T) {
	b := newBench(t, nil)
	for name, args := range map[string][]string{
		"default": nil, "aes256-ctr": {"-c", "aes256-ctr", "-m", "hmac-sha2-256"},
	} {
		cmd := exec.CommandContext(t.Context(), "dbclient",
			slices.Concat([]string{"-y", "-p", b.port}, args, []string{testUser + "@127.0.0.1", "echo here; exit 3"})...)
		cmd.Env = []string{"HOME=" + b.home, "PATH=/usr/bin:/bin", "DROPBEAR_PASSWORD=" + testPassword}
		stdout, stderr, code := run(t, cmd)
		if code != 3 || stdout != "here\n" {
			t.Errorf("%s: %d %q %q", name, code, stdout, stderr)
		}
	}
}

// paramiko logs in and copies: a Python client with CTR ciphers only.
func TestParamiko(t *testing.T) {
	b := newBench(t, nil)
	text := noise(1<<20, 12)
	b.write("file", text)
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", `
import sys, paramiko
host, port, user, password, file, far = sys.argv[1:]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(host, int(port), user, password, allow_agent=False, look_for_keys=False)
t = client.get_transport()
print(t.remote_cipher, t.remote_mac)
_, out, _ = client.exec_command("echo here; exit 4")
print(out.read().decode().strip(), out.channel.recv_exit_status())
sftp = client.open_sftp()
sftp.put(file, far)
sftp.symlink("file", far + ".link")
sftp.chmod(far, 0o600)
print(sftp.stat(far).st_size, sftp.readlink(far + ".link"))
sftp.get(far, file + ".back")
client.close()
`, "127.0.0.1", b.port, testUser, testPassword, filepath.Join(b.home, "file"), filepath.Join(b.dir, "copy"))
	cmd.Env = []string{"HOME=" + b.home, "PATH=/usr/bin:/bin", "PYTHONWARNINGS=ignore"}
	stdout, stderr, code := run(t, cmd)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 3 {
		t.Fatalf("%d %q %s", code, stdout, stderr)
	}
	if !strings.Contains(lines[0], "-etm@openssh.com") {
		t.Errorf("it ended on %s", lines[0])
	}
	if lines[1] != "here 4" || lines[2] != "1048576 file" {
		t.Errorf("%q", lines)
	}
	for _, name := range []string{filepath.Join(b.dir, "copy"), filepath.Join(b.home, "file.back")} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		same(t, name, got, text)
	}
}

// Host keys of the other types serve too.
func TestHostKeyTypes(t *testing.T) {
	for kind, algorithm := range map[string]string{"ecdsa": "ecdsa-sha2-nistp256", "rsa": "rsa-sha2-512"} {
		file := filepath.Join(t.TempDir(), "key")
		keygen := exec.CommandContext(t.Context(), "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file)
		if out, err := keygen.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		signer, err := keys.HostKey(file)
		if err != nil {
			t.Fatal(err)
		}
		b := newBench(t, func(c *Config) { c.HostKey = signer })
		cmd := b.client("ssh", []string{"HostKeyAlgorithms=" + algorithm}, testUser+"@127.0.0.1", "true")
		if _, stderr, code := run(t, cmd); code != 0 {
			t.Errorf("%s: %d %s", kind, code, stderr)
		}
	}
}

// A client may wait for the server's KEXINIT before it sends its own.
func TestClientWaitsForServer(t *testing.T) {
	b := newBench(t, nil)
	nc, err := net.Dial("tcp", "127.0.0.1:"+b.port)
	if err != nil {
		t.Fatal(err)
	}
	shy := &shyConn{Conn: nc, heard: make(chan struct{})}
	conn, channels, requests, err := ssh.NewClientConn(shy, "", &ssh.ClientConfig{
		User: testUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(b.user)},
		HostKeyCallback: ssh.FixedHostKey(b.host.PublicKey()),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	if out, err := b.session(client).Output("echo here"); err != nil || string(out) != "here\n" {
		t.Errorf("%q %v", out, err)
	}
}

// shyConn sends its second message, which is KEXINIT, when something has come
// after the server's line.
type shyConn struct {
	net.Conn
	written int
	line    bytes.Buffer
	heard   chan struct{}
}

func (c *shyConn) Write(p []byte) (int, error) {
	if c.written++; c.written == 2 {
		<-c.heard
	}
	return c.Conn.Write(p)
}

func (c *shyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if before := c.line.Len(); before <= 64 {
		c.line.Write(p[:n])
		end := bytes.IndexByte(c.line.Bytes(), '\n') + 1
		if end > 0 && c.line.Len() > end {
			close(c.heard)
			c.line.Write(make([]byte, 128)) // once
		}
	}
	return n, err
}
