//go:build unix

package web

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A FIFO under a program's or a page's name must not make a request wait for
// somebody to write into it.
func TestFIFOsAreNotOpened(t *testing.T) {
	dir := makeFolder(t, site)
	for _, name := range []string{"agent-linux-amd64", "pipe"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	h := newHandler(t, Config{Downloads: dir, Static: dir})
	wantText(t, request(h, "GET", "/docs/agent"), 404)
	wantText(t, request(h, "GET", "/docs/SHA256SUMS"), 404)
	wantText(t, request(h, "GET", "/pipe"), 404)
}
