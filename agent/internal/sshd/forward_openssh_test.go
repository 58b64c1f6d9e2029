//go:build linux

package sshd

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// background starts a client that stays until the end of the test, and returns
// what it prints.
func (b *bench) background(cmd *exec.Cmd) *watchtest.Output {
	b.t.Helper()
	var out watchtest.Output
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &out
}

// loud makes an OpenSSH client say what it usually says. The first of two
// options counts.
func loud(cmd *exec.Cmd) *exec.Cmd {
	cmd.Args = append([]string{cmd.Args[0], "-o", "LogLevel=INFO"}, cmd.Args[1:]...)
	return cmd
}

// loopback is an address that nobody else listens at.
func loopback(t testing.TB) string {
	t.Helper()
	n := os.Getpid()
	return fmt.Sprintf("127.%d.%d.%d", 1+n>>16&0x3f, n>>8&0xff, 1+n&0x7f)
}

// reach dials until somebody listens, and then calls use.
func reach(t testing.TB, network, addr string, use func(net.Conn)) {
	t.Helper()
	var nc net.Conn
	watchtest.Eventually(t, "somebody at "+addr, func() (ok bool) {
		var err error
		nc, err = net.Dial(network, addr)
		return err == nil
	})
	use(nc)
}

// All kinds of forwards of one OpenSSH client, each with both orders of ending.
func TestOpenSSHForwards(t *testing.T) {
	b := newBench(t, nil)
	data := noise(1<<20, 21)
	got := make(chan []byte, 1)
	dir := t.TempDir()
	near := func(name string) string { return filepath.Join(dir, name) }
	tcp, tcpEarly := newTarget(t, "tcp", "127.0.0.1:0", mirror), newTarget(t, "tcp", "127.0.0.1:0", closedEarly(got))
	socket, socketEarly := newTarget(t, "unix", near("m"), mirror), newTarget(t, "unix", near("e"), closedEarly(got))
	ip := loopback(t)
	args := []string{"-N"}
	type way struct{ network, addr string }
	var mirrors, earlies []way
	port := 21000
	for i, to := range []*target{tcp, tcpEarly, socket, socketEarly} {
		ways := &mirrors
		if i%2 == 1 {
			ways = &earlies
		}
		addr := fmt.Sprintf("%s:%d", ip, port+i)
		path, remote := near(fmt.Sprintf("l%d", i)), near(fmt.Sprintf("r%d", i))
		args = append(args, "-L", addr+":"+to.Addr().String(), "-L", path+":"+to.Addr().String(), "-R", remote+":"+to.Addr().String())
		*ways = append(*ways, way{"tcp", addr}, way{"unix", path}, way{"unix", remote})
	}
	b.background(b.client("ssh", []string{"ExitOnForwardFailure=yes"}, append(args, testUser+"@127.0.0.1")...))
	for _, w := range mirrors {
		reach(t, w.network, w.addr, func(nc net.Conn) { askMirror(t, nc, data) })
	}
	for _, w := range earlies {
		reach(t, w.network, w.addr, func(nc net.Conn) { askEarly(t, nc, data, got) })
	}
	b.noActivity()
	if n := b.events.count("forward opened 1"); n != 4+12 { // the -R sockets, and one connection for each way
		t.Errorf("%d forwards", n)
	}
}

// ssh -D, as a browser uses it (RFC 1928): the name is looked up here.
func TestOpenSSHDynamic(t *testing.T) {
	b := newBench(t, nil)
	data := noise(1<<20, 22)
	to := newTarget(t, "tcp", "127.0.0.1:0", mirror)
	addr := loopback(t) + ":21080"
	b.background(b.client("ssh", []string{"ExitOnForwardFailure=yes"}, "-N", "-D", addr, testUser+"@127.0.0.1"))
	port := to.Addr().(*net.TCPAddr).Port
	for _, target := range []string{"\x03\x09localhost", "\x01\x7f\x00\x00\x01"} {
		reach(t, "tcp", addr, func(nc net.Conn) {
			_, err := nc.Write([]byte("\x05\x01\x00" + "\x05\x01\x00" + target + string([]byte{byte(port >> 8), byte(port)})))
			if err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 2+10)
			if _, err := io.ReadFull(nc, answer); err != nil || answer[3] != 0 {
				t.Fatalf("%x %v", answer, err)
			}
			askMirror(t, nc, data)
		})
	}
}

// ssh -W: standard input and output are the connection.
func TestOpenSSHStdioForward(t *testing.T) {
	b := newBench(t, nil)
	data := noise(1<<20, 23)
	to := newTarget(t, "tcp", "127.0.0.1:0", mirror)
	cmd := b.client("ssh", nil, "-W", to.Addr().String(), testUser+"@127.0.0.1")
	cmd.Stdin = bytes.NewReader(data)
	stdout, stderr, code := run(t, cmd)
	if code != 0 || stderr != "" {
		t.Errorf("%d %q", code, stderr)
	}
	same(t, "through -W", []byte(stdout), append(fmt.Appendf(nil, "%d:", len(data)), data...))
	to.Close()
	cmd = loud(b.client("ssh", nil, "-W", to.Addr().String(), testUser+"@127.0.0.1"))
	if _, stderr, code = run(t, cmd); code == 0 || !strings.Contains(stderr, "connection refused") {
		t.Errorf("%d, without the reason: %q", code, stderr)
	}
}

// ssh -R 0 says which port it got, and a master adds and cancels forwards while
// sessions run.
func TestOpenSSHRemotePorts(t *testing.T) {
	b := newBench(t, nil)
	data := noise(1<<20, 24)
	one := newTarget(t, "tcp", "127.0.0.1:0", mirror)
	two := newTarget(t, "unix", filepath.Join(t.TempDir(), "m"), mirror)
	control := filepath.Join(b.home, "control")
	out := b.background(loud(b.client("ssh", []string{"ControlPath=" + control, "ControlMaster=yes", "ExitOnForwardFailure=yes"},
		"-N", "-R", "0:"+one.Addr().String(), "-R", "127.0.0.1:0:"+two.Addr().String(), testUser+"@127.0.0.1")))
	ports := make(map[string]string)
	allocated := regexp.MustCompile(`Allocated port (\d+) for remote forward to (\S+)`)
	watchtest.Eventually(t, "two ports", func() bool {
		for _, found := range allocated.FindAllStringSubmatch(out.String(), -1) {
			ports[found[1]] = found[2]
		}
		return len(ports) == 2
	})
	for port := range ports {
		reach(t, "tcp", "127.0.0.1:"+port, func(nc net.Conn) { askMirror(t, nc, data) })
	}
	master := func(command string, args ...string) string {
		t.Helper()
		args = append([]string{"-O", command}, args...)
		stdout, stderr, code := run(t, b.client("ssh", []string{"ControlPath=" + control}, append(args, testUser+"@127.0.0.1")...))
		if code != 0 {
			t.Errorf("%s: %d %q", command, code, stderr)
		}
		return strings.TrimSpace(stdout)
	}
	// The client takes one that it has already for the same.
	third := master("forward", "-R", "localhost:0:"+one.Addr().String())
	if ports[third] != "" || third == "" {
		t.Errorf("port %q beside %v", third, ports)
	}
	reach(t, "tcp", "127.0.0.1:"+third, func(nc net.Conn) { askMirror(t, nc, data) })
	before := b.events.count("forward closed 1")
	fixed := fmt.Sprintf("127.0.0.1:%s:%s", third, one.Addr())
	path := filepath.Join(t.TempDir(), "far")
	master("forward", "-R", path+":"+one.Addr().String())
	reach(t, "unix", path, func(nc net.Conn) { askMirror(t, nc, data) })
	master("cancel", "-R", path+":"+one.Addr().String())
	b.events.wait(t, "forward closed 1", before+2)
	if _, err := os.Stat(path); err == nil {
		t.Error("the socket is still there")
	}
	if _, _, code := run(t, b.client("ssh", []string{"ControlPath=" + control, "ExitOnForwardFailure=yes"},
		"-O", "forward", "-R", fixed, testUser+"@127.0.0.1")); code == 0 {
		t.Error("a port is forwarded twice")
	}
	// The others have not noticed.
	for port := range ports {
		reach(t, "tcp", "127.0.0.1:"+port, func(nc net.Conn) { askMirror(t, nc, data) })
	}
}

// ssh -A: tools of the session find the client's keys, and only as long as the
// connection is there.
func TestOpenSSHAgentForwarding(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	b := newBench(t, nil)
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
	add := exec.Command("ssh-add", "-q", key)
	add.Env = []string{"SSH_AUTH_SOCK=" + socket}
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	// The client's own log-in stays with its file.
	withAgent := func(args ...string) *exec.Cmd {
		cmd := b.client("ssh", nil, args...)
		for i, arg := range cmd.Args {
			if arg == "IdentityAgent=none" {
				cmd.Args[i] = "IdentityAgent=" + socket
			}
		}
		return cmd
	}
	script := `ssh-add -L; stat -c '%a' "$SSH_AUTH_SOCK" "$(dirname "$SSH_AUTH_SOCK")"; echo "$SSH_AUTH_SOCK"`
	stdout, stderr, code := run(t, withAgent("-A", testUser+"@127.0.0.1", script))
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 4 || !strings.HasPrefix(lines[0], authorizedLine(signer.PublicKey())) ||
		lines[1] != "600" || lines[2] != "700" || !strings.HasPrefix(lines[3], tmp+"/") {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	b.events.wait(t, "logout 1", 1)
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) != 0 {
		t.Errorf("left: %v %v", entries, err)
	}
	if stdout, _, _ := run(t, withAgent("-a", testUser+"@127.0.0.1", `echo "<$SSH_AUTH_SOCK>"`)); stdout != "<>\n" {
		t.Errorf("%q", stdout)
	}
	if n := b.events.count("forward opened 1"); n != 0 {
		t.Errorf("%d forwards", n)
	}
}
