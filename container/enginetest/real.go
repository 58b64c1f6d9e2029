//go:build unix

package enginetest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Real is a real engine.
type Real struct{ api *http.Client }

// NewReal reaches the engine at unix://PATH.
func NewReal(t testing.TB, host string) *Real {
	path, ok := strings.CutPrefix(host, "unix://")
	if !ok {
		t.Fatal("CONVERGE_TEST_ENGINE names no engine: run scripts/engines")
	}
	r := &Real{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}}
	t.Cleanup(r.api.CloseIdleConnections)
	return r
}

// Labelled lists all containers with a label, those that do not run too.
func (r *Real) Labelled(t testing.TB, label string) []string {
	query := url.Values{"all": {"true"}, "filters": {`{"label":["` + label + `"]}`}}
	resp, err := r.api.Get("http://engine/v1.40/containers/json?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var list []struct{ ID string }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range list {
		names = append(names, c.ID)
	}
	return names
}

// Import makes an image localhost/NAME:latest of a root, with a shell as its command.
func (r *Real) Import(t testing.TB, name string, root []byte) {
	query := url.Values{"fromSrc": {"-"}, "repo": {"localhost/" + name}, "tag": {"latest"}, "changes": {`CMD ["/bin/sh"]`}}
	resp, err := r.api.Post("http://engine/v1.40/images/create?"+query.Encode(), "application/x-tar", bytes.NewReader(root))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || bytes.Contains(text, []byte("errorDetail")) {
		t.Fatalf("import %s: %s: %s", name, resp.Status, text)
	}
}

// Busybox is a root of Debian's static busybox.
func Busybox(t testing.TB) []byte {
	list, err := exec.Command("busybox", "--list-full").Output()
	if err != nil {
		t.Fatalf("busybox-static is needed: %v", err)
	}
	return Archive(t, strings.Fields(string(list)))
}

// Archive is a root with busybox under these names; none is a root that is empty.
func Archive(t testing.TB, names []string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	put := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	put(tar.Header{Typeflag: tar.TypeReg, Name: "empty", Mode: 0o644}, nil)
	if len(names) > 0 {
		program, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"bin", "sbin", "usr", "usr/bin", "usr/sbin", "tmp"} {
			put(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o1777}, nil)
		}
		put(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
		seen := map[string]bool{"bin/busybox": true}
		for _, name := range names {
			if !seen[name] && strings.Contains(name, "/") {
				seen[name] = true
				put(tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "/bin/busybox"}, nil)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(fmt.Errorf("make a root: %w", err))
	}
	return b.Bytes()
}
