package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// bulk is the size of the files that transfers are tried with.
const bulk = 64 << 20

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "converge test"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:        true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: cert},
		keyFile:  {Type: "EC PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestTransfers copies large files with each stock client, each protocol of
// scp, both ways of reaching the agent, over ws and wss, in both directions.
func TestTransfers(t *testing.T) {
	for _, secure := range []bool{false, true} {
		scheme := "ws"
		var serverFlags, clientFlags []string
		if secure {
			cert, key := selfSigned(t)
			scheme = "wss"
			serverFlags = []string{"--tls-cert", cert, "--tls-key", key}
			clientFlags = []string{"--ca", cert}
		}
		s := startServer(t, serverFlags...)
		s.tls = secure
		id := newIdentity(t)
		a := startAgent(t, s, id, clientFlags...)
		ways := []way{viaWsproxy(id, a.url, clientFlags...), viaTcptows(t, id, a.url, clientFlags...)}
		if !secure {
			raw := viaWsproxy(id, a.plainURL(), "--raw")
			raw.name = "wsproxy-raw"
			ways = append(ways, raw)
		}
		source, want := randomFile(t, bulk)
		for _, w := range ways {
			t.Run(scheme+"/"+w.name, func(t *testing.T) {
				dir := t.TempDir()
				there, back := filepath.Join(dir, "there"), filepath.Join(dir, "back")
				check := func(t *testing.T, r result) {
					t.Helper()
					r.must(t)
					for _, name := range []string{there, back} {
						if got := fileSum(t, name); got != want {
							t.Errorf("%s differs", filepath.Base(name))
						}
						if err := os.Remove(name); err != nil {
							t.Fatal(err)
						}
					}
				}
				t.Run("sftp", func(t *testing.T) {
					check(t, w.sftp(t, fmt.Sprintf("put %s %s\nget %s %s\n", source, there, there, back)))
				})
				for _, protocol := range []string{"-O", "-s"} {
					t.Run("scp"+protocol, func(t *testing.T) {
						w.scp(t, protocol, source, "abc@localhost:"+there).must(t)
						check(t, w.scp(t, protocol, "abc@localhost:"+there, back))
					})
				}
				t.Run("ssh", func(t *testing.T) {
					in, err := os.Open(source)
					if err != nil {
						t.Fatal(err)
					}
					defer in.Close()
					w.ssh(t, in, "cat > "+there).must(t)
					r := w.ssh(t, nil, "cat "+there).must(t)
					if err := os.WriteFile(back, []byte(r.stdout), 0o600); err != nil {
						t.Fatal(err)
					}
					check(t, r)
				})
			})
		}
	}
}

// TestStreams: exec streams are binary-clean, apart and exact to the last
// byte, and the end of input reaches the command.
func TestStreams(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	var all strings.Builder
	for i := range 4096 {
		all.WriteByte(byte(i))
		all.WriteByte(byte(i >> 4))
	}
	for _, w := range []way{viaWsproxy(id, a.url), viaTcptows(t, id, a.url)} {
		t.Run(w.name, func(t *testing.T) {
			r := w.ssh(t, strings.NewReader(all.String()), "cat; echo apart >&2; exit 7")
			if r.stdout != all.String() {
				t.Errorf("stdout is %d bytes, want the %d that went in", len(r.stdout), all.Len())
			}
			if r.stderr != "apart\n" {
				t.Errorf("stderr is %q", r.stderr)
			}
			if r.code != 7 {
				t.Errorf("exit code %d, want 7", r.code)
			}
			if r := shell(t, nil, "echo x | "+a.ssh+" cat").must(t); r.stdout != "x\n" {
				t.Errorf("echo x | ssh cat gave %q", r.stdout)
			}
		})
	}
}

// TestExitCodes: every exit code arrives as it is, over one connection.
func TestExitCodes(t *testing.T) {
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url)
	socket := filepath.Join(t.TempDir(), "mux")
	w.options = append(w.options, "-oControlPath="+socket)
	master := start(t, nil, "ssh", append(append([]string{}, w.options...), "-M", "-oControlPersist=no", "abc@localhost", "echo up; cat")...)
	master.out.Await(t, "up", 1)
	for code := range 256 {
		if r := w.ssh(t, nil, fmt.Sprintf("exit %d", code)); r.code != code {
			t.Errorf("exit %d arrived as %d (%s)", code, r.code, r.stderr)
		}
	}
}

// TestManySessions: twenty users at once do not disturb each other.
func TestManySessions(t *testing.T) {
	const users = 20
	s := startServer(t)
	id := newIdentity(t)
	a := startAgent(t, s, id)
	w := viaWsproxy(id, a.url)
	type outcome struct {
		user int
		result
	}
	results := make(chan outcome, users)
	input := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	for user := range users {
		go func() {
			r := w.ssh(t, strings.NewReader(input), fmt.Sprintf("cat; echo user %d >&2; exit %d", user, user))
			results <- outcome{user, r}
		}()
	}
	for range users {
		r := <-results
		if r.stdout != input || r.code != r.user || r.stderr != fmt.Sprintf("user %d\n", r.user) {
			t.Errorf("user %d: %d bytes, exit code %d, stderr %q", r.user, len(r.stdout), r.code, r.stderr)
		}
	}
}
