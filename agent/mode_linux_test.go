package main

import (
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
)

// agentLink is the agent by a name in a folder of its own, as it is called in a
// container.
func agentLink(t *testing.T) string {
	t.Helper()
	found, err := exec.LookPath("agent")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestGuestModes: in a container the agent is the guest, whose documented lines it
// takes as they are.
func TestGuestModes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, agentLink(t), "console", "--env", "FOO=bar", "--env", "TERM=xterm", "--wait", "--pid", "--", "/bin/bash")
	cmd.Stdin = strings.NewReader("\x00echo $FOO $TERM $$\n")
	out, err := cmd.Output()
	if err != nil || len(out) < 4 || int(binary.LittleEndian.Uint32(out)) != cmd.Process.Pid || !strings.HasPrefix(string(out[4:]), "bar xterm ") {
		t.Errorf("process %d: %q, %v", cmd.Process.Pid, out, err)
	}
	child := exec.CommandContext(ctx, "sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(ctx, agentLink(t), "signal", "--pid", strconv.Itoa(child.Process.Pid), "--signal", "TERM").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%s, %v", out, err)
	}
	_ = child.Wait()
	if status := child.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("the child ended by %v", status)
	}
}

// TestFirstProcess: as the first process of a container it is the guest itself,
// with no loop around it.
func TestFirstProcess(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	args := []string{"--pid", "--fork", "--kill-child", "--mount-proc", agentLink(t), "console", "--pid", "--", "/bin/sh", "-c", "echo $$; exit 3"}
	if os.Geteuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	cmd := exec.CommandContext(ctx, "unshare", args...)
	out, err := cmd.Output()
	if cmd.ProcessState.ExitCode() != 3 || string(out) != "\x01\x00\x00\x001\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// TestSFTPServer: on its standard streams it serves files.
func TestSFTPServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, args := range [][]string{{sftpServer}, {sftpServer, "-R"}} {
		cmd := exec.CommandContext(ctx, agentLink(t), args...)
		cmd.WaitDelay = time.Minute
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		client, err := sftp.NewClientPipe(out, in)
		if err != nil {
			t.Fatal(err)
		}
		f, err := client.Create(filepath.Join(t.TempDir(), "file"))
		if refused := err != nil; refused != (len(args) > 1) {
			t.Errorf("%q: %v", args, err)
		}
		if err == nil {
			_ = f.Close()
		}
		_ = client.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}
