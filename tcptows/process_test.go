//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/converge/pkg/clitest"
)

// process is a running tcptows.
type process struct {
	cmd     *exec.Cmd
	address string // that it listens on
	stderr  *bytes.Buffer
	stdout  *bufio.Reader
}

// start runs tcptows and waits until it listens. It kills it at the test's
// end if it still runs then.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	p := &process{cmd: exec.CommandContext(ctx, "tcptows", args...), stderr: &bytes.Buffer{}}
	p.cmd.Env = append(os.Environ(), "GORACE="+clitest.RaceOptions)
	p.cmd.Stderr = p.stderr
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	p.stdout = bufio.NewReader(stdout)
	line, err := p.stdout.ReadString('\n')
	address, found := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !found {
		_ = p.cmd.Wait()
		t.Fatalf("it printed %q, %v, and said %q", line, err, p.stderr)
	}
	p.address = address
	return p
}

// end sends a signal and wants exit code 0. It returns what was logged.
func (p *process) end(t *testing.T, sig os.Signal) (logged string) {
	t.Helper()
	_ = p.cmd.Process.Signal(sig)
	rest, _ := io.ReadAll(p.stdout)
	if err := p.cmd.Wait(); err != nil || len(rest) > 0 {
		t.Errorf("it ended with %v, printed %q and said %q", err, rest, p.stderr)
	}
	return p.stderr.String()
}

func (p *process) dial(t *testing.T) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// exchange sends data and wants it back, up to the end.
func exchange(t *testing.T, conn *net.TCPConn, prefix string) {
	t.Helper()
	data := make([]byte, 1<<20)
	_, _ = rand.Read(data)
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	})
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, append([]byte(prefix), data...)) {
		t.Errorf("%d bytes came back, %v, not the %d that were written", len(got), err, len(prefix)+len(data))
	}
}

func TestForward(t *testing.T) {
	url := newFake(t)
	for name, args := range map[string][]string{
		"converge": {"0", url + "/client/id", "--header", "X-Test: a, b"},
		"raw":      {"--raw", "--header=X-Test: a, b", "--", "0", url + "/any?query"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, args...)
			if host, _, _ := net.SplitHostPort(p.address); host != "127.0.0.1" {
				t.Errorf("it listens on %s without being asked to", host)
			}
			if name == "raw" { // there is no half-close: the data come before the end
				conn := p.dial(t)
				got := make([]byte, len("a, becho"))
				_, _ = conn.Write([]byte("echo"))
				if _, err := io.ReadFull(conn, got); err != nil || string(got) != "a, becho" {
					t.Errorf("read %q, %v", got, err)
				}
			} else {
				var clients sync.WaitGroup
				for range 20 {
					conn := p.dial(t)
					clients.Go(func() { exchange(t, conn, "a, b") })
				}
				clients.Wait()
			}
			p.end(t, syscall.SIGTERM)
		})
	}
}

// TestSignals has a connection that would stay.
func TestSignals(t *testing.T) {
	url := newFake(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p := start(t, "0", url+"/client/id")
			conn := p.dial(t)
			_, _ = conn.Write([]byte("x"))
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			p.end(t, sig)
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Error("the connection is still there")
			}
		})
	}
}

// ssh runs OpenSSH's client against tcptows, with nothing of this machine's
// configuration, and returns what it says and its exit code.
func (p *process) ssh(t *testing.T) (said string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	host, port, _ := net.SplitHostPort(p.address)
	cmd := exec.CommandContext(ctx, "ssh", "-F", "/dev/null", "-oUserKnownHostsFile=/dev/null",
		"-oGlobalKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no", "-oBatchMode=yes",
		"-oIdentityFile=none", "-oIdentityAgent=none", "-p", port, "abc@"+host)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// TestSSHIsTold why there is no connection, which a TCP client cannot see.
func TestSSHIsTold(t *testing.T) {
	t.Run("no such id", func(t *testing.T) {
		p := start(t, "0", newFake(t)+"/client/none")
		said, code := p.ssh(t)
		if code != 255 || !strings.Contains(said, "there is no agent none: has its job ended?") {
			t.Errorf("ssh exited with %d and said %q", code, said)
		}
		if logged := p.end(t, syscall.SIGTERM); !strings.Contains(logged, "there is no agent none") {
			t.Errorf("tcptows logged %q", logged)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		p := start(t, "0", "ws://127.0.0.1:1/client/id", "--log-format=json")
		said, code := p.ssh(t)
		if code != 255 || !strings.Contains(said, "cannot reach ws://127.0.0.1:1/client/id: check that the server runs") {
			t.Errorf("ssh exited with %d and said %q", code, said)
		}
		if logged := p.end(t, syscall.SIGTERM); !strings.Contains(logged, `"msg":"cannot connect"`) {
			t.Errorf("tcptows logged %q", logged)
		}
	})
}
