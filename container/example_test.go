//go:build unix

package container_test

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"example.com/converge/pkg/watchtest"
)

// The example serves a client that logs in with its key, within its size.
func TestExample(t *testing.T) {
	e, _ := fake(t)
	e.Start()
	folder := t.TempDir()
	program := filepath.Join(folder, "sshserver")
	if out, err := exec.Command("go", "build", "-o", program, "./examples/sshserver").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if text, err := os.ReadFile("examples/sshserver/main.go"); err != nil || strings.Count(string(text), "\n") >= 80 {
		t.Errorf("the example has %d lines, %v", strings.Count(string(text), "\n"), err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(folder, "key.pub")
	if err := os.WriteFile(key, ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	server := exec.Command(program, "127.0.0.1:0", "shell", key)
	server.Env = append(os.Environ(), "GUEST="+guestFile, "DOCKER_HOST="+e.Host())
	server.Stderr = t.Output()
	out, err := server.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	}()
	line, _ := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("the server said %q", line)
	}
	c, err := ssh.Dial("tcp", address, &ssh.ClientConfig{
		User: "somebody", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("input")
	if err := s.Setenv("NAME", "value"); err != nil {
		t.Error(err)
	}
	said, err := s.Output("echo $NAME; cat; exit 42")
	exit, ok := err.(*ssh.ExitError)
	if !ok || exit.ExitStatus() != 42 || string(said) != "value\ninput" {
		t.Errorf("%q, %v", said, err)
	}
	_ = c.Close()
	watchtest.Eventually(t, "the container is left", func() bool { return len(e.Containers()) == 0 })
}
