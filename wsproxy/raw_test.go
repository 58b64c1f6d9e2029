//go:build unix

package main

import (
	"bufio"
	"crypto/sha256"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// python starts testdata/websocket.py and returns its URL without a path.
func python(t *testing.T) (url string) {
	t.Helper()
	// Debian's own, which has the package, and no other that the PATH may have.
	cmd := exec.Command("/usr/bin/python3", "testdata/websocket.py")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said := &strings.Builder{}
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v: %s", err, said)
		}
	})
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("no port: %v: %s", err, said)
	}
	return "ws://127.0.0.1:" + strings.TrimSpace(port)
}

// TestRawForeignServer is exact in both directions with somebody else's
// websocket, and so is the way without --raw as long as nothing of Converge
// is needed.
func TestRawForeignServer(t *testing.T) {
	url := python(t)
	for name, args := range map[string][]string{
		"raw":      {"--raw", url + "/any?query"},
		"converge": {url + "/client/echo"},
	} {
		t.Run(name, func(t *testing.T) {
			data, sum := noise(t, 8<<20)
			p := start(t, "wsproxy", args...)
			go func() { _, _ = p.stdin.Write(data) }()
			got := make([]byte, len(data))
			if n, err := io.ReadFull(p.stdout, got); err != nil || sha256.Sum256(got) != sum {
				t.Errorf("%d bytes came back, %v, not what was written", n, err)
			}
			_ = p.stdin.Close()
			p.exits(t, 0)
		})
	}
}

func TestRawForeignText(t *testing.T) {
	p := start(t, "wsproxy", "--raw", python(t)+"/text")
	said, _ := io.ReadAll(p.stderr)
	_ = p.cmd.Wait()
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(string(said), "text message") {
		t.Errorf("it exited with %d and said %q", code, said)
	}
}
