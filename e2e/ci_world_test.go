//go:build unix

package e2e

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyForge is a forge of any kind on which octocat has that key, and the file of
// its certificate.
func keyForge(t *testing.T, id identity) (url, ca string) {
	t.Helper()
	forge := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/octocat.keys" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write([]byte(id.public + "\n"))
	}))
	t.Cleanup(forge.Close)
	ca = filepath.Join(t.TempDir(), "ca.pem")
	writeText(t, ca, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forge.Certificate().Raw})))
	return forge.URL, ca
}

// staticServer hands out the folder above docs, and is no rendezvous.
func staticServer(t *testing.T, docs string) *server {
	t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(filepath.Dir(docs))))
	t.Cleanup(s.Close)
	return &server{addr: s.Listener.Addr().String()}
}

func (s *server) url() string { return "http://" + s.addr }

// writeText writes a file, below folders that it makes; a script can be run.
func writeText(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	mode := os.FileMode(0o644)
	if strings.HasPrefix(text, "#!") {
		mode = 0o755
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}
