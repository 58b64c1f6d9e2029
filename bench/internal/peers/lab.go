//go:build linux

// Package peers sets up what is compared: for each peer the processes between
// a client and an SSH server, or a raw far end, on loopback. It knows how each
// is configured and started, and nothing of what is measured on it.
package peers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"example.com/converge/bench/internal/child"
	"example.com/converge/bench/internal/proc"
)

// Lab is a folder with all that peers need: the programs, built from this
// repository, and the keys.
type Lab struct {
	// Dir is a folder, in memory where the machine has one, for what is
	// transferred.
	Dir string
	// Root is the repository.
	Root string

	user string // who runs sshd
	self string // this program, which is also its children
}

// ErrNotRepository is returned by New outside a clone of the repository.
var ErrNotRepository = errors.New("cannot find the repository's go.work: run this in a clone of it")

// New makes a lab and builds the programs. Close removes it.
func New(ctx context.Context) (*Lab, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOWORK").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask the Go command for go.work: %w", err)
	}
	work := strings.TrimSpace(string(out))
	if work == "" || work == "off" {
		return nil, ErrNotRepository
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, fmt.Errorf("cannot tell who runs this: %w", err)
	}
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "converge-bench-")
	if err != nil {
		return nil, err
	}
	lab := &Lab{Dir: dir, Root: filepath.Dir(work), user: me.Username, self: self}
	err = lab.build(ctx)
	if err == nil {
		err = lab.makeKeys(ctx)
	}
	if err != nil {
		_ = lab.Close()
		return nil, err
	}
	return lab, nil
}

// Close removes the folder.
func (l *Lab) Close() error { return os.RemoveAll(l.Dir) }

// Program is the path of one of the programs, which are built as a release's are.
func (l *Lab) Program(name string) string { return l.path(name) }

// path is a file of the lab.
func (l *Lab) path(name string) string { return filepath.Join(l.Dir, name) }

// build builds the programs as a release does, and the agent's SSH server
// alone, which is laid over the agent's module.
func (l *Lab) build(ctx context.Context) error {
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		filepath.Join(l.Root, "agent", "internal", "alone", "main.go"): filepath.Join(l.Root, "bench", "internal", "peers", "testdata", "sshd", "main.go"),
	}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.path("overlay.json"), overlay, 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-o", l.Dir + "/", "./server", "./agent", "./wsproxy", "./gitgate"},
		{"-o", l.path("alone"), "-overlay", l.path("overlay.json"), "./agent/internal/alone"},
	} {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath"}, args...)...)
		cmd.Dir = l.Root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build the programs: %w: %s", err, out)
		}
	}
	return nil
}

// makeKeys makes one host key and one user key for everybody, and the servers'
// state key.
func (l *Lab) makeKeys(ctx context.Context) error {
	for _, name := range []string{"hostkey", "userkey"} {
		cmd := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", l.path(name))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot make a key: %w: %s", err, out)
		}
	}
	if out, err := exec.CommandContext(ctx, l.path("server"), "--make-state-key", l.path("state.key")).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot make a state key: %w: %s", err, out)
	}
	return nil
}

// freeAddress finds an address of loopback that nobody listens on, for the
// programs that cannot find one themselves. It is below those that the kernel
// gives to outgoing connections, so that nobody takes it by chance.
func freeAddress() (string, error) {
	var last error
	for range 100 {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(10000))))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
		last = err
	}
	return "", fmt.Errorf("cannot find a free port: %w", last)
}

// ready is what children of this program print.
var ready = regexp.MustCompile(`(?m)^ready (\S+)$`)

// StartChild starts a child of this program, which listens, and returns its
// address.
func (l *Lab) StartChild(ctx context.Context, args ...string) (*proc.Process, string, error) {
	return started(ctx, ready, append([]string{l.self, child.Arg}, args...)...)
}

// started starts a program and waits for the pattern, whose first submatch it
// returns if there is one.
func started(ctx context.Context, pattern *regexp.Regexp, args ...string) (*proc.Process, string, error) {
	p, err := proc.Start(args...)
	if err != nil {
		return nil, "", err
	}
	match, err := p.Wait(ctx, pattern)
	if err != nil {
		p.Stop()
		return nil, "", err
	}
	return p, match[len(match)-1], nil
}

// startFar starts raw far ends under the ids from first on, and returns the
// address that they listen on or call.
func (l *Lab) startFar(ctx context.Context, kind, address string, first, count int) (*proc.Process, string, error) {
	return l.StartChild(ctx, "far", kind, address, strconv.Itoa(first), strconv.Itoa(count))
}

// startServer starts Converge's server.
func (l *Lab) startServer(ctx context.Context) (*proc.Process, string, error) {
	address, err := freeAddress() // it may be taken again after a restart
	if err != nil {
		return nil, "", err
	}
	return l.startServerAt(ctx, address)
}

func (l *Lab) startServerAt(ctx context.Context, address string) (*proc.Process, string, error) {
	return started(ctx, regexp.MustCompile(`address=(\S+)`), l.path("server"), "--listen", address, "--state-key", l.path("state.key"))
}

// StartAgent starts Converge's agent with more options, and returns when it has
// printed how to reach it.
func (l *Lab) StartAgent(ctx context.Context, server string, options ...string) (*proc.Process, error) {
	p, _, err := started(ctx, regexp.MustCompile(`host key: `), append([]string{l.path("agent"), "--id", child.ID(0), "--id-conflict", "fail",
		"--authorized-keys", l.path("userkey.pub"), "--host-key", l.path("hostkey"),
		"--expiry", "0", "--max-duration", "0", "--keep", "ws://" + server}, options...)...)
	return p, err
}

// startAlone starts the agent's SSH server on a carrier.
func (l *Lab) startAlone(ctx context.Context, kind, address string) (*proc.Process, string, error) {
	return started(ctx, ready, l.path("alone"), kind, address, child.ID(0), l.path("hostkey"), l.path("userkey.pub"))
}

// StartSSHD starts OpenSSH's server, with Debian's defaults for what costs
// time.
func (l *Lab) StartSSHD(ctx context.Context) (*proc.Process, string, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, "", err
	}
	name, err := exec.LookPath("sshd")
	if err != nil {
		return nil, "", err
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			return nil, "", err
		}
	}
	_, port, _ := net.SplitHostPort(address)
	args := []string{name, "-D", "-e", "-f", "/dev/null"}
	for _, option := range []string{
		"ListenAddress=127.0.0.1", "Port=" + port, "HostKey=" + l.path("hostkey"),
		"AuthorizedKeysFile=" + l.path("userkey.pub"), "StrictModes=no", "PermitRootLogin=yes",
		"UsePAM=no", "PidFile=none", "MaxStartups=1000", "LogLevel=INFO", "PrintMotd=no",
		"Subsystem=sftp " + sftpServer(),
	} {
		args = append(args, "-o", option)
	}
	p, _, err := started(ctx, regexp.MustCompile(`Server listening on`), args...)
	return p, address, err
}

// sftpServer is OpenSSH's sftp server: Debian's program, or the built-in one.
func sftpServer() string {
	const debian = "/usr/lib/openssh/sftp-server"
	if _, err := os.Stat(debian); err == nil {
		return debian
	}
	return "internal-sftp"
}
