//go:build linux

package sshd

import (
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"example.com/converge/pkg/watchtest"
)

// Who leaves a shell in whatever way is heard of, but nobody has left one whose
// connection broke.
func TestGoodbyes(t *testing.T) {
	t.Run("exit", func(t *testing.T) {
		b := newBench(t, nil)
		client := b.dial()
		shell := b.terminal(client, nil, "")
		shell.typeIn(t, "exit\n")
		if err := shell.Wait(); err != nil {
			t.Fatal(err)
		}
		_ = client.Close()
		b.left(t, true)
	})
	t.Run("connection closed", func(t *testing.T) {
		b := newBench(t, nil)
		client := b.dial()
		shell := b.terminal(client, nil, "")
		shell.typeIn(t, "echo re'ad'y\n")
		shell.out.Expect(t, "ready")
		_ = client.Close()
		b.left(t, false)
	})
	t.Run("OpenSSH killed", func(t *testing.T) {
		b := newBench(t, nil)
		cmd := b.openSSH(t)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.left(t, false)
	})
	// The window of ssh was closed, or ~. typed: it says that it disconnects.
	t.Run("OpenSSH hung up", func(t *testing.T) {
		b := newBench(t, nil)
		cmd := b.openSSH(t)
		_ = cmd.Process.Signal(syscall.SIGHUP)
		_ = cmd.Wait()
		b.left(t, true)
	})
}

// openSSH starts a shell in ssh, and returns when it is there.
func (b *bench) openSSH(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := b.client("ssh", nil, "-tt", testUser+"@127.0.0.1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	var out watchtest.Output
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("echo re'ad'y\n")); err != nil {
		t.Fatal(err)
	}
	out.Expect(t, "ready")
	return cmd
}

// left wants a shell to have ended, by a goodbye or not.
func (b *bench) left(t *testing.T, goodbye bool) {
	t.Helper()
	b.events.wait(t, "logout 1", 1)
	if lines := b.events.all(); slices.Contains(lines, "closed 1 shell") != goodbye {
		t.Errorf("%q", lines)
	}
}
