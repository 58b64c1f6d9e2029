//go:build linux

package sshd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pkg/sftp"
)

func TestOpenSSHSFTP(t *testing.T) {
	b := newBench(t, nil)
	big := noise(16<<20, 2)
	b.write("big", big)
	batch := b.write("batch", []byte("pwd\nmkdir sub\nput big sub/up\nget sub/up down\nchmod 600 sub/up\nln -s up sub/link\nls -l sub\nrename sub/up sub/moved\nrm sub/moved\n"))
	cmd := b.client("sftp", nil, "-b", batch, testUser+"@127.0.0.1")
	stdout, stderr, code := run(t, cmd)
	if code != 0 || stderr != "" {
		t.Fatalf("%d %q %q", code, stdout, stderr)
	}
	if !strings.Contains(stdout, "Remote working directory: "+b.dir) {
		t.Errorf("%q", stdout)
	}
	down, err := os.ReadFile(filepath.Join(b.home, "down"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "put and got", down, big)
	b.events.wait(t, "closed 1 sftp", 1)
	b.events.wait(t, "logout 1", 1)
	if lines := b.events.all(); lines[0] != "login 1" || lines[1] != "opened 1 sftp" || b.events.count("activity 1") == 0 {
		t.Errorf("%q", lines)
	}
}

func TestOpenSSHCopy(t *testing.T) {
	b := newBench(t, nil)
	big := noise(16<<20, 3)
	file := b.write("big", big)
	for mode, kind := range map[string]string{"-O": "exec", "-s": "sftp"} {
		t.Run(mode, func(t *testing.T) {
			far := testUser + "@127.0.0.1:copy" + mode
			if _, stderr, code := run(t, b.client("scp", nil, mode, file, far)); code != 0 || stderr != "" {
				t.Fatalf("up: %d %q", code, stderr)
			}
			near := filepath.Join(b.home, "back"+mode)
			if _, stderr, code := run(t, b.client("scp", nil, mode, far, near)); code != 0 || stderr != "" {
				t.Fatalf("down: %d %q", code, stderr)
			}
			for _, name := range []string{filepath.Join(b.dir, "copy"+mode), near} {
				got, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				same(t, name, got, big)
			}
			if _, stderr, code := run(t, b.client("scp", nil, mode, testUser+"@127.0.0.1:missing", near)); code == 0 || !strings.Contains(stderr, "No such file") {
				t.Errorf("missing: %d %q", code, stderr)
			}
			if n := b.events.count("opened 1 " + kind); n != 1 {
				t.Logf("%q", b.events.all())
			}
		})
	}
}

// A client may leave in the middle of a transfer.
func TestSFTPCut(t *testing.T) {
	b := newBench(t, nil)
	client := b.dial()
	files, err := sftp.NewClient(client)
	if err != nil {
		t.Fatal(err)
	}
	f, err := files.Create(filepath.Join(b.dir, "half"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(noise(1<<20, 4)); err != nil {
		t.Fatal(err)
	}
	client.Close()
	b.events.wait(t, "logout 1", 1)
	if b.events.count("closed 1 sftp") != 1 {
		t.Errorf("%q", b.events.all())
	}
	_ = files.Close() // its goroutines; the connection is gone
}
