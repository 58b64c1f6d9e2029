package web

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(m)
}

// fixedID stands in the lines of a page whose text is compared.
const fixedID = "abcdefghijklmnopqrstuvwxyz"

// settled is a modification time that is far enough from the clock for a
// checksum to be remembered.
var settled = time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)

// makeFolder makes a folder with the files given, last changed at settled.
func makeFolder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		writeFile(t, filepath.Join(dir, filepath.FromSlash(name)), content)
	}
	return dir
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, settled, settled); err != nil {
		t.Fatal(err)
	}
}

func newHandler(t testing.TB, cfg Config) *Handler {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newOrigins(t testing.TB, publicURL string, trusted ...string) *Origins {
	t.Helper()
	o, err := NewOrigins(publicURL, trusted)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// request sends one request straight to h; header is a list of names and values.
func request(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, "/", nil)
	// Set by hand: NewRequest would refuse or clean what a peer may well send.
	path, query, _ := strings.Cut(target, "?")
	r.URL.Path, r.URL.RawQuery = path, query
	r.Host = "converge.example.org"
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t testing.TB, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sumOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// wantText checks a refusal: its status and that it is one line of plain text.
func wantText(t testing.TB, res *http.Response, status int) string {
	t.Helper()
	text := body(t, res)
	if res.StatusCode != status {
		t.Errorf("status %d, want %d (%q)", res.StatusCode, status, text)
	}
	if got := res.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("Content-Type %q, want plain text", got)
	}
	if strings.Count(text, "\n") != 1 || !strings.HasSuffix(text, ".\n") {
		t.Errorf("body %q, want one sentence on one line", text)
	}
	return text
}
