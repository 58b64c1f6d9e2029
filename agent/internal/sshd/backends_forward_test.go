//go:build linux

package sshd

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// files copies there and back with stock clients, in one place. Nothing there is
// needed for it: no shell, no tools.
func (b *bench) files(t *testing.T, w *world) {
	t.Helper()
	option := b.master()
	data := noise(w.bulk, 41)
	b.write("big", data)
	random := make([]byte, 6)
	_, _ = rand.Read(random)
	dir := filepath.Join(w.folder(t), "t"+hex.EncodeToString(random))
	batch := b.write("batch", []byte(strings.NewReplacer("DIR", dir).Replace(
		"pwd\nmkdir DIR\nput big DIR/up\nget DIR/up down\nchmod 600 DIR/up\nln -s up DIR/link\nls -l DIR\nrm DIR/link\nrename DIR/up DIR/moved\nls DIR\n")))
	stdout, stderr, code := run(t, b.client("sftp", []string{option}, "-b", batch, testUser+"@127.0.0.1"))
	if code != 0 || stderr != "" || !strings.Contains(stdout, "-rw-------") || !strings.Contains(stdout, "moved") {
		t.Fatalf("sftp: %d %q %q", code, stdout, stderr)
	}
	fetched := func(what, name string) {
		got, err := os.ReadFile(filepath.Join(b.home, name))
		if err != nil {
			t.Error(err)
		}
		same(t, what, got, data)
	}
	fetched("by sftp", "down")
	for _, args := range [][]string{
		{"big", testUser + "@127.0.0.1:" + dir + "/copied"}, {testUser + "@127.0.0.1:" + dir + "/copied", "back"},
		{"-r", testUser + "@127.0.0.1:" + dir, "all"},
	} {
		if _, stderr, code := run(t, b.client("scp", []string{option}, append([]string{"-s"}, args...)...)); code != 0 {
			t.Errorf("scp %q: %d %q", args, code, stderr)
		}
	}
	fetched("by scp", "back")
	fetched("by scp -r", "all/moved")
	batch = b.write("batch", []byte("rm "+dir+"/*\nrmdir "+dir+"\nget "+dir+"/up\n"))
	if _, stderr, code := run(t, b.client("sftp", []string{option}, "-b", batch, testUser+"@127.0.0.1")); code == 0 || !strings.Contains(stderr, "not found") {
		t.Errorf("sftp of what is gone: %d %q", code, stderr)
	}
}

func testFiles(t *testing.T, w *world) {
	w.bench(t, nil).files(t, w)
	if w.engine != "" {
		t.Run("empty", func(t *testing.T) { w.boxBench(t, w.config(t, w.empty), nil).files(t, w) })
	}
}

// Read-only is read-only.
func testReadOnlyFiles(t *testing.T, w *world) {
	b := w.bench(t, func(c *Config) { c.ReadOnlySFTP = true })
	folder := w.folder(t)
	b.write("file", []byte("text"))
	for _, line := range []string{"put file " + folder + "/new", "mkdir " + folder + "/new", "symlink a " + folder + "/new"} {
		_, stderr, code := run(t, b.client("sftp", nil, "-b", b.write("batch", []byte(line+"\n")), testUser+"@127.0.0.1"))
		if code == 0 || !strings.Contains(strings.ToLower(stderr), "permission denied") && !strings.Contains(stderr, "read-only") {
			t.Errorf("%s: %d %q", line, code, stderr)
		}
	}
	stdout, stderr, code := run(t, b.client("sftp", nil, "-b", b.write("batch", []byte("ls -a "+folder+"\n")), testUser+"@127.0.0.1"))
	if code != 0 || strings.Contains(stdout, "new") {
		t.Errorf("ls: %d %q %q", code, stdout, stderr)
	}
}

// command has a master do something.
func (b *bench) command(option, command string, args ...string) (stdout, stderr string, code int) {
	b.t.Helper()
	args = append([]string{"-O", command}, args...)
	stdout, stderr, code = run(b.t, b.client("ssh", []string{option, "ExitOnForwardFailure=yes"}, append(args, testUser+"@127.0.0.1")...))
	return strings.TrimSpace(stdout), stderr, code
}

// forward has a master forward.
func (b *bench) forward(option string, args ...string) string {
	b.t.Helper()
	stdout, stderr, code := b.command(option, "forward", args...)
	if code != 0 {
		b.t.Fatalf("%q: %d %q", args, code, stderr)
	}
	return stdout
}

// Forwards into the place and out of it, by a stock client: what comes in goes to
// where the same client has the place listen, and so out again.
func testForwards(t *testing.T, w *world) {
	b := w.bench(t, nil)
	option := b.master()
	data := noise(w.bulk/3, 42)
	got := make(chan []byte, 1)
	echo, early := newTarget(t, "tcp", "127.0.0.1:0", mirror), newTarget(t, "tcp", "127.0.0.1:0", closedEarly(got))
	dir := t.TempDir() // for a container it is only a name
	for i, host := range []string{"localhost", "127.0.0.1", "[::1]"} {
		far := b.forward(option, "-R", host+":0:"+echo.Addr().String())
		near := localPort(t)
		b.forward(option, "-L", near+":"+host+":"+far)
		reach(t, "tcp", near, func(nc net.Conn) { askMirror(t, nc, data) })
		if i > 0 {
			continue
		}
		farEarly := b.forward(option, "-R", "0:"+early.Addr().String())
		path := filepath.Join(dir, "early")
		b.forward(option, "-L", path+":127.0.0.1:"+farEarly)
		reach(t, "unix", path, func(nc net.Conn) { askEarly(t, nc, data, got) })
		// A browser's way, which names the host.
		socks := localPort(t)
		b.forward(option, "-D", socks)
		reach(t, "tcp", socks, func(nc net.Conn) {
			port, err := strconv.Atoi(far)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := nc.Write([]byte("\x05\x01\x00" + "\x05\x01\x00\x03\x09localhost" + string([]byte{byte(port >> 8), byte(port)}))); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 2+10)
			if _, err := io.ReadFull(nc, answer); err != nil || answer[3] != 0 {
				t.Fatalf("%x %v", answer, err)
			}
			askMirror(t, nc, data)
		})
		// What is taken is refused.
		if _, _, code := b.command(option, "forward", "-R", "127.0.0.1:"+far+":"+early.Addr().String()); code == 0 {
			t.Error("two listen at one port")
		}
	}
	path := filepath.Join(dir, "s")
	if w.real {
		path = "/tmp/forwarded.sock"
	}
	b.forward(option, "-R", path+":"+echo.Addr().String())
	near := filepath.Join(dir, "near")
	b.forward(option, "-L", near+":"+path)
	reach(t, "unix", near, func(nc net.Conn) { askMirror(t, nc, data) })
	// The reason for a refusal comes from there.
	_, err := b.dial().Dial("tcp", "127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("refused: %v", err)
	}
	b.noActivity()
}

// A connection through a listener outlives it.
func testForwardsLive(t *testing.T, w *world) {
	b := w.bench(t, nil)
	client := b.dial()
	l, err := client.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- nc
	}()
	near, err := client.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	if far == nil {
		return
	}
	if ip, _, err := net.SplitHostPort(far.RemoteAddr().String()); err != nil || ip != "127.0.0.1" {
		t.Errorf("it comes from %v", far.RemoteAddr())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
		if _, err := way[0].Write([]byte("still here")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if _, err := io.ReadFull(way[1], buf); err != nil || string(buf) != "still here" {
			t.Fatalf("%q %v", buf, err)
		}
	}
	if nc, err := client.Dial("tcp", l.Addr().String()); err == nil {
		nc.Close()
		t.Error("connected where nobody listens any more")
	}
	near.Close()
	if _, err := io.ReadAll(far); err != nil {
		t.Error(err)
	}
	far.Close()
	watchtest.Eventually(t, "no forwards", func() bool { return b.forwardsOpen(1) == 0 })
}

// A key agent that is lent is reached from the place.
func testAgent(t *testing.T, w *world) {
	b := w.bench(t, nil)
	_, private := newSigner(t)
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	key := b.write("agent-key", pem.EncodeToMemory(block))
	socket := filepath.Join(b.home, "a")
	b.background(exec.Command("ssh-agent", "-D", "-a", socket))
	reach(t, "unix", socket, func(nc net.Conn) { nc.Close() })
	tool := func(socket string, args ...string) string {
		cmd := exec.Command("ssh-add", args...)
		cmd.Env = []string{"SSH_AUTH_SOCK=" + socket}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("ssh-add %q: %v %s", args, err, out)
		}
		return string(out)
	}
	tool(socket, "-q", key)
	option := b.master("-A", "-o", "ForwardAgent="+socket)
	cmd := b.client("ssh", []string{option}, "-A", testUser+"@127.0.0.1", `test -S "$SSH_AUTH_SOCK" && echo "$SSH_AUTH_SOCK"`)
	stdout, stderr, code := run(t, cmd)
	if code != 0 {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	// The tools of the place are not needed to try it.
	near := filepath.Join(t.TempDir(), "near")
	b.forward(option, "-L", near+":"+strings.TrimSpace(stdout))
	if got := tool(near, "-L"); !strings.HasPrefix(got, authorizedLine(signer.PublicKey())) {
		t.Errorf("%q", got)
	}
}
