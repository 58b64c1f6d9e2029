//go:build linux

package sshd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"example.com/converge/agent/internal/keys"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if guestBuilt != "" {
			_ = os.RemoveAll(guestBuilt)
		}
		os.Exit(code)
	}))
}

const (
	testUser     = "abc"
	testPassword = "correct horse"
	// patience is for what takes milliseconds on an idle machine.
	patience = 60 * time.Second
)

// newSigner makes an Ed25519 key pair.
func newSigner(t testing.TB) (ssh.Signer, ed25519.PrivateKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, private
}

func authorizedLine(key ssh.PublicKey) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}

// bench is a server on a loopback port, and what a client needs to use it.
type bench struct {
	t      testing.TB
	server *Server
	events *recorder
	host   ssh.Signer
	user   ssh.Signer
	port   string
	dir    string // working folder of the server's processes
	home   string // of OpenSSH clients: key, known_hosts, nothing else
	accept sync.WaitGroup
	listen net.Listener
}

// newBench starts a server that lets one key and one password in. It is shut
// down at the end of the test.
func newBench(t testing.TB, change func(*Config)) *bench {
	t.Helper()
	b := &bench{t: t, events: newRecorder(), dir: t.TempDir(), home: t.TempDir()}
	b.host, _ = newSigner(t)
	var private ed25519.PrivateKey
	b.user, private = newSigner(t)
	set, err := keys.NewSet(nil, []string{authorizedLine(b.user.PublicKey())}, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		User: testUser, HostKey: b.host, Keys: set, Password: testPassword,
		Shell: "/bin/bash", Dir: b.dir, Events: b.events,
		Env: []string{"PATH=/usr/bin:/bin", "HOME=" + b.dir},
	}
	if change != nil {
		change(&cfg)
	}
	if b.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	if b.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	_, b.port, _ = net.SplitHostPort(b.listen.Addr().String())
	b.accept.Go(func() {
		for {
			nc, err := b.listen.Accept()
			if err != nil {
				return
			}
			b.accept.Go(func() { b.server.HandleConn(nc) })
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		b.listen.Close()
		if err := b.server.Shutdown(ctx, ""); err != nil {
			t.Error(err)
		}
		b.accept.Wait()
	})
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	b.write("id", pem.EncodeToMemory(block))
	b.write("known_hosts", fmt.Appendf(nil, "[127.0.0.1]:%s %s\n", b.port, authorizedLine(cfg.HostKey.PublicKey())))
	return b
}

// write puts a file in the client's home.
func (b *bench) write(name string, text []byte) string {
	b.t.Helper()
	name = filepath.Join(b.home, name)
	if err := os.WriteFile(name, text, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return name
}

// options keep an OpenSSH client from everything that is not the test's.
func (b *bench) options(more ...string) []string {
	args := []string{"-F", "/dev/null"}
	for _, option := range append([]string{
		"UserKnownHostsFile=" + filepath.Join(b.home, "known_hosts"),
		"GlobalKnownHostsFile=/dev/null", "StrictHostKeyChecking=yes",
		"IdentityFile=" + filepath.Join(b.home, "id"), "IdentitiesOnly=yes",
		"IdentityAgent=none", "BatchMode=yes", "LogLevel=ERROR",
		"KexAlgorithms=curve25519-sha256", // sntrup761 would cost 0.3 s a login
		"Port=" + b.port,
	}, more...) {
		args = append(args, "-o", option)
	}
	return args
}

// client makes an OpenSSH program that is not run yet.
func (b *bench) client(program string, options []string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	b.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, append(b.options(options...), args...)...)
	cmd.Env = []string{"HOME=" + b.home, "PATH=/usr/bin:/bin", "LANG=C.UTF-8"}
	cmd.Dir = b.home
	return cmd
}

// ssh makes a run of ssh with a command.
func (b *bench) ssh(args ...string) *exec.Cmd {
	return b.client("ssh", nil, append([]string{testUser + "@127.0.0.1"}, args...)...)
}

// run runs a client and returns its streams and exit code.
func run(t testing.TB, cmd *exec.Cmd) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// dial logs in with the Go client, by key unless methods are given.
func (b *bench) dial(methods ...ssh.AuthMethod) *ssh.Client {
	b.t.Helper()
	client, err := b.tryDial(testUser, methods...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { client.Close() })
	return client
}

func (b *bench) tryDial(user string, methods ...ssh.AuthMethod) (*ssh.Client, error) {
	if len(methods) == 0 {
		methods = []ssh.AuthMethod{ssh.PublicKeys(b.user)}
	}
	cfg := &ssh.ClientConfig{User: user, Auth: methods, Timeout: patience}
	// The server's own key, whatever its type.
	cfg.HostKeyCallback = ssh.FixedHostKey(b.server.cfg.HostKey.PublicKey())
	return ssh.Dial("tcp", "127.0.0.1:"+b.port, cfg)
}

// session opens a session that is closed at the end of the test.
func (b *bench) session(client *ssh.Client) *ssh.Session {
	b.t.Helper()
	session, err := client.NewSession()
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { session.Close() })
	return session
}

// recorder keeps the events as lines, and wakes who waits for one.
type recorder struct {
	mu     sync.Mutex
	lines  []string
	change chan struct{}
}

func newRecorder() *recorder { return &recorder{change: make(chan struct{})} }

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
	close(r.change)
	r.change = make(chan struct{})
}

func (r *recorder) Login(u UserInfo)                { r.add("login %d", u.ID) }
func (r *recorder) SessionOpened(id uint64, k Kind) { r.add("opened %d %s", id, k) }
func (r *recorder) SessionClosed(id uint64, k Kind) { r.add("closed %d %s", id, k) }
func (r *recorder) ForwardOpened(id uint64)         { r.add("forward opened %d", id) }
func (r *recorder) ForwardClosed(id uint64)         { r.add("forward closed %d", id) }
func (r *recorder) Activity(id uint64)              { r.add("activity %d", id) }
func (r *recorder) Logout(u UserInfo)               { r.add("logout %d", u.ID) }

// all returns the lines so far.
func (r *recorder) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.lines)
}

// count returns how many lines are so far.
func (r *recorder) count(line string) int {
	n := 0
	for _, l := range r.all() {
		if l == line {
			n++
		}
	}
	return n
}

// wait waits until a line has come so many times.
func (r *recorder) wait(t testing.TB, line string, times int) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		r.mu.Lock()
		change := r.change
		r.mu.Unlock()
		if r.count(line) >= times {
			return
		}
		select {
		case <-change:
		case <-limit.C:
			t.Fatalf("no %d× %q in %q", times, line, r.all())
		}
	}
}

// processes returns the numbers of all processes.
func processes() []int {
	entries, _ := os.ReadDir("/proc")
	var list []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			list = append(list, pid)
		}
	}
	return list
}
