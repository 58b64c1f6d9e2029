package e2e

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCaddy types all lines of the home page through a real Caddy under a
// sub-path, with docs/Caddyfile as it is but for names and ports.
func TestCaddy(t *testing.T) {
	s := startServer(t, "--downloads", downloads(t), "--trusted-proxy", "127.0.0.0/8")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := l.Addr().String()
	_ = l.Close()
	text, err := os.ReadFile(filepath.Join("..", "docs", "Caddyfile"))
	if err != nil {
		t.Fatal(err)
	}
	names := strings.NewReplacer("converge.example.org", "http://"+front, "127.0.0.1:8080", s.addr)
	dir := t.TempDir()
	file := filepath.Join(dir, "Caddyfile")
	// Without TLS and its own admin port, in a folder of its own.
	if err := os.WriteFile(file, []byte("{\n\tadmin off\n\tauto_https off\n}\n"+names.Replace(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		t.Fatal("this test needs caddy; install it (on Debian: apt-get install caddy)")
	}
	start(t, []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir},
		caddy, "run", "--config", file, "--adapter", "caddyfile")
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get("http://" + front + "/converge/readyz")
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Fatalf("readyz through caddy: %s", resp.Status)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("caddy does not answer: %v", err)
		}
	}
	typePage(t, "http://"+front+"/converge/")
}
